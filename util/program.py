"""What the programs share: flags whose errors are one line, exit statuses, signals, and OpenMP's manners."""
import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from util.errors import InputError


class Parser(argparse.ArgumentParser):
    """Raises InputError instead of printing the usage. Flags cannot be abbreviated."""

    def __init__(self, **kwargs):
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see --help")


class Ended(BaseException):
    """A signal ended the program. Like KeyboardInterrupt it passes by `except Exception`, and runs every `finally`.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


def wait_patiently() -> None:
    """Idle OpenMP threads soon sleep, unless the environment says otherwise. Before PyTorch is loaded.

    Where other programs use the cores as well, threads that spin for long take the time from those that compute;
    threads that sleep at once wake too late on a quiet machine. Both are measured in benchmarks/README.md.
    """
    if not any(name in os.environ for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")):
        os.environ["GOMP_SPINCOUNT"] = "4000"


def exit_status(program: str, run: Callable[[], None]) -> int:
    """Run a program. Returns 0 done, 2 bad input (told in one line on stderr), 128 + n ended by signal n (130: Ctrl-C).

    141, as if by SIGPIPE, is the end of a program whose output nobody reads any more.
    """
    try:
        with _signals():
            run()
            sys.stdout.flush()
    except InputError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except Ended as end:
        print(f"{program}: ended by {signal.Signals(end.number).name}", file=sys.stderr)
        return 128 + end.number
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())      # or the interpreter would complain again
        return 128 + signal.SIGPIPE
    return 0


@contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM and SIGHUP raise `Ended`, so that no temporary file stays. Ignored ones (nohup) stay ignored.

    The exception comes wherever the program is, which may be an import or a destructor of a library that turns it
    into an error of its own, or swallows it. Whatever became of it: the signal ended the program.
    """
    def end(number: int, _frame: object) -> None:
        for other in before:
            signal.signal(other, signal.SIG_IGN)                            # one is enough; let `finally` work
        received.append(number)
        raise Ended(number)

    before, received = {}, []
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)
                  if signal.getsignal(number) == signal.SIG_DFL}
        for number in before:
            signal.signal(number, end)
    try:
        yield
    except Exception as error:
        if received:
            raise Ended(received[0]) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        raise Ended(received[0])
