"""Processes for tests: copies of this one, so that PyTorch, which takes seconds to load, is there already."""
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

from torch.distributed import TCPStore
from training_helpers import free_port


@contextmanager
def forked(function: Callable[..., object], *arguments: object, said: Path, **environment: object
           ) -> Iterator[BaseProcess]:
    """A process that calls the function and ends with the status that it returns (None: 0), or 1 and a traceback.

    Args:
        said: file that gets its output.
        environment: variables that it has besides ours.
    """
    process = multiprocessing.get_context("fork").Process(target=_run, args=(function, arguments, said, environment))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def _run(function: Callable[..., object], arguments: tuple, said: Path, environment: dict) -> None:
    output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(output, number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    os.environ.update({name: str(value) for name, value in environment.items()})
    sys.exit(function(*arguments))


def team_of_two(function: Callable[..., object], *arguments: object, folder: Path) -> tuple[list[int], list[str]]:
    """Statuses and outputs of two processes as torchrun would start them, where they meet outlasting their meetings."""
    files = [folder / f"process_{rank}.txt" for rank in range(2)]
    meeting = TCPStore("127.0.0.1", free_port(), is_master=True, wait_for_workers=False)
    shared = {"WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": meeting.port,
              "TORCHELASTIC_USE_AGENT_STORE": "True"}
    with forked(function, *arguments, said=files[0], RANK=0, LOCAL_RANK=0, **shared) as leader, \
         forked(function, *arguments, said=files[1], RANK=1, LOCAL_RANK=1, **shared) as other:
        processes = (leader, other)
        for process in processes:
            process.join(timeout=300)
        return [process.exitcode for process in processes], [file.read_text() for file in files]
