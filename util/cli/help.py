"""Help in three lengths, and docs/flags.md (`python -m util.cli.help > docs/flags.md`), from the declared flags."""
import argparse
from pathlib import Path
from typing import Any

from util.cli.flags import Flag, Group, add_groups, chosen
from util.cli.groups import all_groups
from util.cli.verbs import VERBS, Verb

ROOT = Path(__file__).resolve().parents[2]

USAGE = "python HyTIP.py VERB ... [flags]"
TITLE = "Neural video codecs: HyTIP and its relatives (`models` lists them); the small one comes with its weights."
COMMANDS = {"test": "eval", "compress": "encode", "decompress": "decode", "schedule": "train", "train_conf": "train",
            "list_models": "models"}
"""Flags that were there before the verbs -> verb."""


def help_wanted(argv: list[str]) -> str | None:
    """The help that the command line asks for, if it does."""
    if "--help_all" in argv:
        return whole_help()
    if "-h" not in argv and "--help" not in argv:
        return None
    for word in argv:
        verb = COMMANDS.get(word.removeprefix("--")) if word.startswith("--") else word
        if verb in VERBS:
            return verb_help(verb)
    return short_help()


def short_help() -> str:
    """The verbs, and the flags that are needed often."""
    lines = [f"usage: {USAGE}", "", TITLE, "", *_verb_lines(), "", "for example:"]
    lines += [f"  python HyTIP.py {verb.example}" for verb in VERBS.values()]
    lines += ["", "Needed often (all flags of a verb: `VERB --help`; every flag: `--help_all`, docs/flags.md):"]
    flags = [flag for group in chosen(all_groups(), often=True) for flag in group.flags]
    return "\n".join(lines) + "\n" + _format([Group("flags", (), flags=flags)])


def verb_help(name: str) -> str:
    """Everything that matters for a verb."""
    verb = VERBS[name]
    head = [f"usage: python HyTIP.py {_words(name, verb)} [flags]", "", f"{verb.help[0].upper()}{verb.help[1:]}.", "",
            f"  python HyTIP.py {verb.example}", ""]
    return "\n".join(head) + "\n" + _format(chosen(all_groups(), name))


def whole_help() -> str:
    """Every flag."""
    head = [f"usage: {USAGE}", "", TITLE, "", *_verb_lines(), ""]
    return "\n".join(head) + "\n" + _format(all_groups())


def _words(name: str, verb: Verb) -> str:
    return " ".join((name, *verb.usage))


def _verb_lines() -> list[str]:
    return [f"  {_words(name, verb):<22} {verb.help}" for name, verb in VERBS.items()]


def default_text(flag: Flag) -> str | None:
    """The default as a user would type it; None where there is none to tell."""
    default: Any = flag.options.get("default")
    if default is None or default is False or "default" in flag.options.get("help", ""):
        return None
    if isinstance(default, Path):
        return str(default.relative_to(ROOT) if default.is_absolute() else default)
    return " ".join(map(str, default)) if isinstance(default, list | tuple) else str(default)


def _format(groups: list[Group]) -> str:
    """As argparse lays it out, without its usage."""
    parser = argparse.ArgumentParser(usage=argparse.SUPPRESS, add_help=False, formatter_class=_formatter)
    shown = []
    for group in groups:
        own = Group(group.title, group.tasks, group.remark)
        for flag in group.flags:
            default = default_text(flag)
            text = flag.options.get("help", "") + (f" (default: {default})" if default else "")
            own.flags.append(Flag(flag.names, {**flag.options, "help": text}, flag.tasks))
        shown.append(own)
    add_groups(parser, shown)
    return parser.format_help().strip("\n")


def _formatter(prog: str) -> argparse.HelpFormatter:
    return argparse.HelpFormatter(prog, max_help_position=30, width=118)


def markdown() -> str:
    """docs/flags.md: a table per group."""
    lines = ["# Flags", "", "Made by `python -m util.cli.help > docs/flags.md` of the declarations in "
             "util/cli/groups.py and util/training/options.py.", "",
             "| verb | stands for | meaning |", "|---|---|---|"]
    for name, verb in VERBS.items():
        flags = " ".join(verb.flags(*(word.strip("[]") for word in verb.usage)))
        lines.append(f"| `{_words(name, verb)}` | `{flags}` | {verb.help} |")
    for group in all_groups():
        lines += ["", f"## {group.title[0].upper()}{group.title[1:]}", ""]
        if group.remark:
            lines += [f"{group.remark[0].upper()}{group.remark[1:]}.", ""]
        lines += ["| flag | default | for | meaning |", "|---|---|---|---|"]
        lines += [_row(flag) for flag in group.flags]
    return "\n".join(lines) + "\n"


def _row(flag: Flag) -> str:
    options = flag.options
    if "choices" in options:
        value = "{" + ",".join(map(str, options["choices"])) + "}"
    else:
        value = "" if options.get("action") == "store_true" else options.get("metavar", "")
    if options.get("nargs") == "+":
        value += "..."
    elif isinstance(options.get("nargs"), int):
        value = " ".join([value] * options["nargs"])
    names = ", ".join(f"`{name}`" for name in flag.names[:-1])
    usage = f"{names}{', ' if names else ''}`{flag.names[-1]}{' ' if value else ''}{value}`"
    meaning = options.get("help", "").replace("%%", "%").replace("|", "\\|")
    return f"| {usage} | {default_text(flag) or ''} | {', '.join(flag.tasks)} | {meaning} |"


if __name__ == "__main__":
    print(markdown(), end="")
