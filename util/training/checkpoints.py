"""Checkpoints of a run: released layout, plus what is needed to go on as if nothing had happened.

    results/{experiment}/checkpoints/epoch={n}.pth.tar   after every epoch
                                     last.pth.tar        in between: every --save_minutes, and at SIGTERM
                                     best.pth.tar        least validation loss so far
"""
import random
import re
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer

from util.checkpoint import read_file
from util.errors import InputError
from util.files import atomic_path
from util.training.averaging import WeightAverage
from util.training.network import TrainedNetwork

KEY = "training"
"""Where a file keeps the `Progress`."""

AVERAGE = "average"
"""Where, beside it, the state of a `WeightAverage`."""


@dataclass
class Progress:
    """Where a run stands. All fields are plain numbers, text, lists and dicts.

    Attributes:
        phase: name of the phase to which the optimizer belongs.
        epoch, step: the next optimizer step.
        updates: optimizer steps of the whole run, skipped ones included.
        skipped: steps without an update, in the whole run.
        skipped_in_row: of these, the latest in a row.
        best: least validation loss.
        sums, samples: of each term over the epoch so far.
        seconds, waited: that the epoch has taken so far, and of these, waiting for the loader.
        seed, recipe: what must not change between interruption and continuation.
    """
    phase: str = ""
    epoch: int = 1
    step: int = 0
    updates: int = 0
    skipped: int = 0
    skipped_in_row: int = 0
    best: float = float("inf")
    sums: dict[str, float] = field(default_factory=dict)
    samples: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    seed: int = 0
    recipe: dict[str, Any] = field(default_factory=dict)


class Checkpoints:
    """The checkpoint folder of an experiment."""

    def __init__(self, results: Path, experiment: str):
        self.folder = Path(results) / experiment / "checkpoints"

    def of_epoch(self, epoch: int) -> Path:
        return self.folder / f"epoch={epoch}.pth.tar"

    @property
    def last(self) -> Path:
        return self.folder / "last.pth.tar"

    @property
    def best(self) -> Path:
        return self.folder / "best.pth.tar"

    def epochs(self) -> list[int]:
        """Epochs that have a file, in ascending order."""
        if not self.folder.is_dir():
            return []
        matches = (re.fullmatch(r"epoch=(\d+)\.pth\.tar", path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def newest(self, epoch: int | None = None) -> Path | None:
        """The file to go on from: of a given epoch, or the one that is furthest. None where there is none.

        Raises:
            InputError: the given epoch has no file.
        """
        if epoch is not None:
            if epoch not in self.epochs():
                raise InputError(f"{self.of_epoch(epoch)} does not exist; --restore_exp_epoch can be one of "
                                 f"{', '.join(map(str, self.epochs())) or 'none: the folder has no checkpoint'}")
            return self.of_epoch(epoch)
        epochs = self.epochs()
        newest = self.of_epoch(epochs[-1]) if epochs else None
        if self.last.is_file():
            progress = read_progress(read_file(self.last), self.last)
            if newest is None or (progress.epoch, progress.step) > (epochs[-1] + 1, 0):
                return self.last
        return newest

    def save(self, path: Path, network: TrainedNetwork, progress: Progress, optimizer: Optimizer, *,
             epoch: int, loss: float = float("nan"), average: WeightAverage | None = None) -> None:
        """Write a file; its name appears when it is complete. The learning rate follows from phase and epoch.

        Args:
            average: whose values are the weights of the file; those of the last step are kept for resuming.
        """
        kept = {**asdict(progress), "random": random_states()}
        if average is not None:
            kept[AVERAGE] = average.state()
        with average.in_place() if average is not None else nullcontext():
            content = network.layout(epoch=epoch, loss=loss, optimizer=optimizer.state_dict())
            content[KEY] = kept
            with atomic_path(path) as temporary:
                torch.save(content, temporary)

    def prune(self, keep: int | None) -> None:
        """Remove the files of all epochs but the newest; None keeps them all."""
        for epoch in self.epochs()[:-keep] if keep else ():
            self.of_epoch(epoch).unlink(missing_ok=True)


def read_progress(content: dict, path: Path) -> Progress:
    """The progress that a file holds.

    Raises:
        InputError: it holds none.
    """
    kept = content.get(KEY)
    fields = Progress.__dataclass_fields__
    if not isinstance(kept, dict) or not {"phase", "epoch", "step", "recipe"} <= kept.keys():
        raise InputError(f"{path} holds weights but no training state, so it cannot be resumed; start from it with "
                         "another --restore")
    return Progress(**{name: kept[name] for name in fields if name in kept})


def restore_network(network: TrainedNetwork, content: dict, path: Path) -> None:
    """Fill the network from its own checkpoint, strictly.

    Raises:
        InputError: an entry is missing, unexpected or misshapen.
    """
    given = {network.plain_name(name): value for name, value in content["state_dict"].items()}
    own = dict(network.entries())
    for name in own.keys() ^ given.keys():
        raise InputError(f"{path}: entry {name} is {'missing' if name in own else 'unexpected'}; resume with the "
                         "configuration files and flags of the interrupted run")
    for name, value in own.items():
        if given[name].shape != value.shape:
            raise InputError(f"{path}: entry {name} has shape {list(given[name].shape)}, not {list(value.shape)}; "
                             "resume with the configuration files of the interrupted run")
    network.load_entries(given)


def random_states() -> dict:
    """The generators of the process. Training draws nothing from them, but code that is added may."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    version, state, gauss_next = random.getstate()
    return {"torch": torch.get_rng_state(), "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), position,
                                                      has_gauss, gauss],
            "python": [version, list(state), gauss_next],
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def restore_random_states(states: dict) -> None:
    torch.set_rng_state(states["torch"])
    kind, keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    version, state, gauss_next = states["python"]
    random.setstate((version, tuple(state), gauss_next))
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
