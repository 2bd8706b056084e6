"""From the command line to checked arguments; nothing that is slow to load is needed for it."""
import argparse
import re
import sys
from pathlib import Path

from models.rates import RATES
from util.choices import PRECISIONS
from util.cli.flags import add_groups
from util.cli.groups import BUFFER, TARGETS, all_groups
from util.cli.help import help_wanted
from util.cli.verbs import expand
from util.errors import InputError
from util.program import Parser

ROOT = Path(__file__).resolve().parents[2]


def build_parser() -> argparse.ArgumentParser:
    """All flags."""
    parser = Parser(prog="HyTIP.py", add_help=False)
    add_groups(parser, all_groups())
    return parser


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse and check what can be checked without opening a file. `--help` is printed, and ends the program.

    Raises:
        InputError: an unknown flag or a value outside its bounds.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    if (text := help_wanted(argv)) is not None:
        print(text)
        raise SystemExit(0)
    arguments = build_parser().parse_args(_attached(expand(argv)))
    _check(arguments)
    return arguments


def intra_qualities(arguments: argparse.Namespace) -> list[int]:
    """`--iframe_quality`, one per QP; the QPs themselves by default."""
    return arguments.iframe_quality or arguments.QP


def _check(arguments: argparse.Namespace) -> None:
    qualities = intra_qualities(arguments)
    if len(qualities) != len(arguments.QP):
        raise InputError(f"--iframe_quality has {len(qualities)} values, --QP has {len(arguments.QP)}; "
                         "give one per QP")
    for flag, values in (("--QP", arguments.QP), ("--iframe_quality", qualities)):
        for value in values:
            if not 0 <= value < RATES:
                raise InputError(f"{flag} {value} is outside 0..{RATES - 1}")
    if len(set(arguments.QP)) != len(arguments.QP):
        raise InputError("--QP names a rate twice; give each once")
    for flag in ("gop", "test_seq_len", "crop_factor", "rate_gop_size", "reset_interval", "max_pixels"):
        if getattr(arguments, flag) < 1:
            raise InputError(f"--{flag} {getattr(arguments, flag)} must be at least 1")
    if arguments.frames is not None and arguments.frames < 1:
        raise InputError(f"--frames {arguments.frames} must be at least 1")
    if arguments.portable and arguments.precision != PRECISIONS[0]:
        raise InputError(f"--portable computes in float64, not in --precision {arguments.precision}; leave one of "
                         "them out")
    _check_targets(arguments)
    if arguments.compute_decode_macs and not arguments.compute_macs:
        raise InputError("--compute_decode_macs needs --compute_macs")


def _attached(argv: list[str]) -> list[str]:
    """Negative amounts joined to their flags, so that they are refused as what they are, not taken for flags."""
    joined: list[str] = []
    for word in argv:
        if joined and joined[-1].removeprefix("--") in (*TARGETS, "buffer") and re.match(r"-[\d.]", word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _check_targets(arguments: argparse.Namespace) -> None:
    given = [f"--{flag}" for flag in TARGETS if getattr(arguments, flag) is not None]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} are targets that exclude each other; give one")
    if given and not (arguments.compress and arguments.input is not None):
        raise InputError(f"{given[0]} works on one video; give it with --compress --input (encode)")
    if arguments.buffer is None:
        arguments.buffer = BUFFER
    elif arguments.bitrate is None and arguments.ladder is None:
        raise InputError("--buffer belongs to --bitrate or --ladder; give one of them as well")
