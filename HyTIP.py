"""HyTIP, a neural video codec (ICCV 2025): evaluate, compress, decompress, train. `--help` lists the flags."""
import sys
import warnings

# Importing CompressAI announces the end of torch.jit; users of this program can do nothing about it.
warnings.filterwarnings("ignore", category=FutureWarning, message=r".*torch\.jit.*")
warnings.filterwarnings("ignore", category=DeprecationWarning, message=r".*torch\.jit.*")

from util.cli.arguments import parse_arguments  # noqa: E402
from util.cli.commands import command_of  # noqa: E402
from util.program import exit_status  # noqa: E402


def run(argv: list[str] | None) -> None:
    """Parse, then one call."""
    arguments = parse_arguments(argv)
    command_of(arguments)(arguments)


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 bad input, 130 interrupted."""
    return exit_status("HyTIP", lambda: run(argv))


if __name__ == "__main__":
    sys.exit(main())
