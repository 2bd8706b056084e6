"""What the programs share: flags whose errors are one line, and exit statuses."""
import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

from util.errors import InputError


class Parser(argparse.ArgumentParser):
    """Raises InputError instead of printing the usage. Flags cannot be abbreviated."""

    def __init__(self, **kwargs):
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see --help")


def exit_status(program: str, run: Callable[[], None]) -> int:
    """Run a program. Returns 0 done, 2 bad input (told in one line on stderr), 130 interrupted."""
    try:
        run()
    except InputError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 130
    return 0
