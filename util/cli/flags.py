"""What a flag is. Parser, help and docs/flags.md are all made of the same declarations (arguments.py)."""
import argparse
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Flag:
    """A flag as argparse takes it, and who wants to know of it.

    Attributes:
        names: e.g. ("-n", "--num_workers").
        options: the rest of `add_argument`.
        tasks: verbs that it matters for.
        often: `--help` lists it, not only `--help_all`.
    """
    names: tuple[str, ...]
    options: dict[str, Any]
    tasks: tuple[str, ...]
    often: bool = False


@dataclass
class Group:
    """Flags under one title.

    Attributes:
        tasks: verbs that its flags matter for, unless they say otherwise.
        remark: below the title.
    """
    title: str
    tasks: tuple[str, ...]
    remark: str = ""
    flags: list[Flag] = field(default_factory=list)

    def add_argument(self, *names: str, tasks: tuple[str, ...] | None = None, often: bool = False, **options: Any
                     ) -> None:
        """Declare a flag: as for argparse, with `tasks` and `often` of `Flag`."""
        self.flags.append(Flag(names, options, self.tasks if tasks is None else tasks, often))


def add_groups(parser: argparse.ArgumentParser, groups: Iterable[Group]) -> None:
    """Hand the flags to a parser; groups that are left without any are left out."""
    for group in groups:
        if group.flags:
            section = parser.add_argument_group(group.title, group.remark or None)
            for flag in group.flags:
                section.add_argument(*flag.names, **flag.options)


def chosen(groups: Iterable[Group], task: str | None = None, often: bool = False) -> list[Group]:
    """The groups with the flags of one task, or those that are needed often."""
    return [Group(group.title, group.tasks, group.remark, [
        flag for flag in group.flags if (task is None or task in flag.tasks) and (flag.often or not often)])
        for group in groups]
