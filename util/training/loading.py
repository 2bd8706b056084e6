"""Batches on their way from the disk: who reads them, how long training waits for them, which clips are corrupt."""
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from dataloader.clips import EpochClips, Sample, collate
from dataloader.sampling import MicroBatch
from util.errors import InputError
from util.training.checkpoints import Progress

CORRUPT_FILE = "corrupt_clips.txt"


def loader_workers(asked: int | None, device: torch.device) -> int:
    """Loader processes of this process: as many as were asked for; by default none on a CPU, whose cores compute, and
    on a GPU this process's share of the machine's cores, less the one that it runs on itself."""
    if asked is not None or device.type == "cpu":
        return asked or 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)) - 1)


def make_loader(clips: EpochClips, parts: list[MicroBatch], workers: int, device: torch.device) -> DataLoader:
    """The loader of what a process codes in an epoch."""
    return DataLoader(clips, collate_fn=collate,
                      batch_sampler=[part.samples for part in parts], num_workers=workers,
                      pin_memory=device.type == "cuda", prefetch_factor=4 if workers else None,
                      worker_init_fn=_obey_the_trainer_alone)


def _obey_the_trainer_alone(_worker: int) -> None:
    """Of a loader's process: SIGTERM ends it only when it comes from the trainer.

    Schedulers, and `timeout`, send it to all processes of a job. The trainer finishes its step and saves; without its
    loader it could not.
    """
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(trainer: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != trainer:
        pass
    os._exit(0)


def batches(loader: DataLoader, progress: Progress) -> Iterator[Sample]:
    """The loader's batches; the time that they are waited for is added to the progress.

    Raises:
        InputError: bad input that a worker found.
    """
    iterator = iter(loader)
    while True:
        started = time.monotonic()
        try:
            batch = next(iterator)
        except StopIteration:
            return
        except InputError as error:                                # with the worker's traceback before the message
            message = str(error).strip().splitlines()[-1]
            raise InputError(message.removeprefix("util.errors.InputError: ")) from None
        progress.waited += time.monotonic() - started
        yield batch


def report_corrupt(messages: tuple[str, ...], folder: Path) -> None:
    """Report each corrupt clip once in the life of the experiment, whose folder keeps the list."""
    if not messages:
        return
    path = folder / CORRUPT_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    known = set(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else set()
    for message in dict.fromkeys(messages):
        if message not in known:
            tqdm.write(f"skipped for good: clip {message}")
            with path.open("a", encoding="utf-8") as file:
                file.write(f"{message}\n")
