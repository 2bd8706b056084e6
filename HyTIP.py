"""HyTIP, a neural video codec (ICCV 2025): encode, decode, evaluate, train. `--help` lists verbs and flags."""
import sys

from util.cli.arguments import parse_arguments
from util.cli.commands import command_of
from util.program import exit_status, wait_patiently


def run(argv: list[str] | None) -> None:
    """Parse, then one call."""
    arguments = parse_arguments(argv)
    command_of(arguments)(arguments)


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 bad input, 128 + n ended by signal n (130: Ctrl-C)."""
    return exit_status("HyTIP", lambda: run(argv))


if __name__ == "__main__":
    wait_patiently()
    sys.exit(main())
