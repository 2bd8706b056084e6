"""`--dry_run`: what is missing of a study, in optimizer steps, hours and disk, without training data.

Hours follow from timed steps of black clips on the device at hand, in one process. All kinds of phases are timed with
the first row that is missing; of the others one kind, and the rest in proportion. On a CPU one clip is timed, of at
most 64x64 pixels, as time is nearly proportional to pixels there; on a GPU a batch as the phase has it.
"""
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from dataloader.clips import find_clips
from dataloader.sampling import EpochOrder
from util.errors import InputError
from util.evaluation.metrics import MS_SSIM_SIDE
from util.study.rows import Job
from util.training.layout import use_channels_last
from util.training.main import intra_rate, new_codec
from util.training.network import TrainedNetwork
from util.training.options import DEFAULT_DATASET, TrainingOptions
from util.training.phases import Phase, read_phases, shortened
from util.training.trainer import example_of_phase, loss_of_phase

CLIPS = {"Vimeo-90k": 91_701, "BVI-DVC": 800}
"""Clips of data sets, for where they are not at hand: septuplets of Vimeo-90k, sequences of BVI-DVC."""

SIDE = 64
"""Of the pictures that are timed on a CPU."""


class Cost(NamedTuple):
    """What a job takes: optimizer steps, hours, bytes of the checkpoints that stay."""
    updates: int
    hours: float
    size: int


class Clock:
    """Times steps, each kind once."""

    def __init__(self, device: torch.device):
        self.device = device
        self._seconds: dict[tuple, float] = {}

    def costs(self, jobs: Sequence[Job]) -> Iterator[Cost]:
        """Of what is missing of each job."""
        for job in jobs:
            missing = [own for _, own in job.options_of_steps() if not job.result_of(own).is_file()]
            yield self._cost([(own, phase, _updates(own, phase)) for own in missing for phase in
                              shortened(read_phases(own.train_conf), own.epoch_ratio)])

    def _cost(self, phases: Sequence[tuple[TrainingOptions, Phase, int]]) -> Cost:
        if not phases:
            return Cost(0, 0.0, 0)
        ratio = 1.0
        known = [entry for entry in phases if _kind(*entry[:2]) in self._seconds]
        if known:
            options, phase, _ = max(known, key=lambda entry: entry[2])
            ratio = self._time(options, phase) / self._seconds[_kind(options, phase)]
        total = 0.0
        for options, phase, updates in phases:
            kind = _kind(options, phase)
            if kind not in self._seconds:
                self._seconds[kind] = self._time(options, phase) / ratio
            total += updates * (options.batch_size or phase.batch_size) * self._seconds[kind] * ratio
        last = {options.experiment_name: (options, phase) for options, phase, _ in phases}
        size = sum(_size(*entry) for entry in last.values())
        return Cost(sum(updates for _, _, updates in phases), total / 3600, size)

    def _time(self, options: TrainingOptions, phase: Phase) -> float:
        """Seconds per clip of the phase's crops."""
        network = TrainedNetwork(new_codec(options), options.Pretrain_frame_feature).to(self.device).train()
        if options.channels_last:
            use_channels_last(network)
        network.select(phase)
        crop, on_cuda = phase.crop_size or options.crop_size, self.device.type == "cuda"
        side = crop if on_cuda else min(crop, MS_SSIM_SIDE + 16 if options.ssim else SIDE)
        batch = -(-(options.batch_size or phase.batch_size) // options.accumulate) if on_cuda else 1
        loss = loss_of_phase(options, phase, network, intra_rate(options, network.codec))
        example = example_of_phase(phase, side, self.device, batch)
        seconds = []
        for _ in range(3 if on_cuda else 2):
            started = time.perf_counter()
            loss(*example, before=phase.late // 2)[0].sum().backward()
            if on_cuda:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
        return min(seconds) * crop ** 2 / side ** 2 / batch


def _kind(options: TrainingOptions, phase: Phase) -> tuple:
    """What phases of equal cost have in common."""
    return (phase.stage, phase.mode, phase.rnn, phase.p_frames, phase.late, phase.frozen,
            phase.crop_size or options.crop_size, phase.amp or options.amp)


def _updates(options: TrainingOptions, phase: Phase) -> int:
    """Optimizer steps of a phase.

    Raises:
        InputError: an epoch is as long as the data, of which nothing is known.
    """
    epochs = min(phase.last_epoch, options.end_epoch or phase.last_epoch) - phase.first_epoch + 1
    if options.debug or phase.steps_per_epoch:
        return max(0, epochs) * (2 if options.debug else phase.steps_per_epoch)
    name = options.train_dataset or DEFAULT_DATASET
    try:
        count = len(find_clips(name, options.train_data or options.data, phase.clips).clips)
    except InputError:
        if name not in CLIPS:
            raise
        count = CLIPS[name]
    batch = options.batch_size or phase.batch_size
    return max(0, epochs) * EpochOrder(0, phase.first_epoch, count, phase.train_len, batch).steps


def _size(options: TrainingOptions, phase: Phase) -> int:
    """Bytes of two checkpoints, of the newest epoch and in between: weights, and Adam's two values each."""
    with torch.device("meta"):
        network = TrainedNetwork(new_codec(options), options.Pretrain_frame_feature)
        trained = sum(value.numel() for value in network.select(phase).values())
    return 2 * 4 * (sum(value.numel() for _, value in network.entries()) + 2 * trained)


def describe(names: Sequence[str], costs: Sequence[Cost], device: torch.device) -> str:
    """A line per row, and their sum."""
    lines = [("row", "optimizer steps", f"hours, one {'GPU' if device.type == 'cuda' else 'CPU process'}", "disk, GB")]
    total = Cost(*map(sum, zip(*costs))) if costs else Cost(0, 0.0, 0)
    for name, cost in [*zip(names, costs), ("all", total)]:
        lines.append((name, f"{cost.updates:,}", f"{cost.hours:,.2f}", f"{cost.size / 1e9:.2f}")
                     if cost.updates else (name, "trained", "", ""))
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join([line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in
                                                           zip(line[1:], widths[1:]))]).rstrip() for line in lines)
