"""The training loop of one step: phases, epochs, optimizer steps.

All random choices follow from the seed, the epoch and a sample's place in it (dataloader/sampling.py), sums over
a batch are taken over all processes, and every decision is made on those sums. So the processes stay alike, their
number changes nothing but rounding, and a run that is interrupted and resumed repeats itself.
"""
import math
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from dataloader.clips import ClipRecipe, ClipSet, EpochClips, Sample
from dataloader.sampling import EpochOrder, MicroBatch, Share
from util.errors import InputError
from util.program import Ended
from util.training.averaging import WeightAverage
from util.training.checkpoints import AVERAGE, KEY, Checkpoints, Progress, restore_random_states
from util.training.clip_loss import ClipLoss
from util.training.distributed import Team
from util.training.layout import use_channels_last
from util.training.loading import batches, loader_workers, make_loader, report_corrupt
from util.training.network import TrainedNetwork
from util.training.options import TrainingOptions
from util.training.phases import Phase
from util.training.records import Records, progress_text
from util.training.signals import Stopped, StopSignal
from util.training.steps import OptimizerSteps, StepReport
from util.training.validation import Validation

STOP, SAVE = "stop", "save"
"""What a process may wish for. Wishes travel with the sums of a step, so that all processes grant them after the same
step: one that saved or stopped alone would leave the others waiting."""


@dataclass
class Setup:
    """What a trainer works on.

    Attributes:
        clips: of each phase, by its name.
        anchor: the intra rate of a single-rate model.
        resumed: content of the checkpoint that the run goes on from, or None.
    """
    options: TrainingOptions
    network: TrainedNetwork
    phases: tuple[Phase, ...]
    clips: Mapping[str, ClipSet]
    checkpoints: Checkpoints
    validation: Validation | None
    anchor: int
    progress: Progress
    resumed: dict | None = None


class Trainer:
    """Trains the phases of one step."""

    def __init__(self, setup: Setup, team: Team):
        self.setup, self.team, self.options = setup, team, setup.options
        self.network = setup.network.to(team.device).train()
        if self.options.channels_last:
            use_channels_last(self.network)
        self.average = WeightAverage(self.network, self.options.ema) if self.options.ema else None
        self.progress = setup.progress
        self.records = None
        self.stop = StopSignal()
        self._resumed = setup.resumed
        self._saved_at = time.monotonic()

    def run(self) -> None:
        """Train to the end.

        Raises:
            Ended: a signal stopped the run, here or in another process; everything is saved.
        """
        if self._resumed is not None:
            restore_random_states(self._resumed[KEY]["random"])
            if self.average is not None and AVERAGE in self._resumed[KEY]:
                self.average.restore(self._resumed[KEY][AVERAGE])
        if self.team.leads:
            _remove_leftovers(self.setup.checkpoints)
            self.records = Records(self.setup.checkpoints.folder.parent, self.progress.epoch, self.progress.updates)
        try:
            with self.stop:
                if self.setup.validation and not self.options.no_sanity and self._resumed is None:
                    self.setup.validation.trial(self.network.codec, self.team)
                for phase in self._remaining():
                    self._run_phase(phase)
            if any(self.team.gather(self.stop.received)):          # in the last moment; and every file is there
                raise Stopped
        except Stopped:
            self.team.wait()                                       # until the leader has saved
            self.team.say(f"stopped by a signal; everything is in {self.setup.checkpoints.folder}; "
                          "--restore resume goes on from there")
            raise Ended(self.stop.received or signal.SIGTERM) from None
        finally:
            if self.records:
                self.records.close()

    def _remaining(self) -> Iterator[Phase]:
        for phase in self.setup.phases:
            if phase.last_epoch >= self.progress.epoch and phase.first_epoch <= self._end:
                yield phase

    @property
    def _end(self) -> float:
        return self.options.end_epoch or math.inf

    def _run_phase(self, phase: Phase) -> None:
        self.begin(phase)
        while self.progress.epoch <= min(phase.last_epoch, self._end):
            self._train_epoch(phase)
            self._finish_epoch(phase)

    def begin(self, phase: Phase) -> None:
        """Choose the parameters; a new Adam, or the one of the interrupted run.

        Raises:
            InputError: the interrupted phase had other parameters or learning rates.
        """
        chosen = self.network.select(phase)
        self.steps = OptimizerSteps(self.network.groups(chosen, phase), phase.lr, lag=lag_of(self.team.device),
                                    clip_norm=phase.clip_norm, skip_above=phase.skip_above)
        if self._resumed is not None and self.progress.phase == phase.name \
                and not self.steps.load(self._resumed["optimizer"]):
            raise InputError(f"phase {phase.name} trained other parts, or with another lr_inputs, when it was "
                             "interrupted; put them back as they were, or go back to the epoch before the phase with "
                             "--restore resume --restore_exp_epoch N")
        self._resumed = None
        self.progress.phase = phase.name
        loss = loss_of_phase(self.options, phase, self.network, self.setup.anchor)
        example = example_of_phase(phase, phase.crop_size or self.options.crop_size, self.team.device)
        self.module = self.team.share(loss, *example, static=self.options.accumulate == 1, varying=phase.late > 0)
        self.team.say(f"{phase.name}: epochs {phase.first_epoch} to {phase.last_epoch}, {len(chosen)} tensors with "
                      f"{sum(p.numel() for p in chosen.values()):,} parameters")

    def _train_epoch(self, phase: Phase) -> None:
        """The rest of the current epoch.

        Raises:
            Stopped: by a signal, after everything was saved.
        """
        clips, batch_size = self.setup.clips[phase.name], self.options.batch_size or phase.batch_size
        samples = phase.steps_per_epoch and phase.steps_per_epoch * batch_size
        order = EpochOrder(self.options.seed, self.progress.epoch, len(clips.clips), phase.train_len, batch_size,
                           samples, clips.groups)
        share = Share(self.team.rank, self.team.processes, self.options.accumulate)
        steps = min(order.steps, 2) if self.options.debug else order.steps
        parts = [part for part in share.micro_batches(order, self.progress.step) if part.step < steps]
        recipe = ClipRecipe(phase.p_frames + 1, phase.crop_size or self.options.crop_size, phase.random_start,
                            phase.still)
        samples_of_epoch = EpochClips(clips, order, recipe, self.network.codec.for_training().qps)
        loader = make_loader(samples_of_epoch, parts, loader_workers(self.options.num_workers, self.team.device),
                             self.team.device)
        bar = tqdm(total=steps, initial=self.progress.step, desc=f"epoch {self.progress.epoch}/{phase.last_epoch}",
                   unit="step", disable=None if self.team.leads else True)
        started, sums = time.monotonic(), None
        with bar, torch.autograd.set_detect_anomaly(self.options.debug):
            for part, batch in zip(parts, batches(loader, self.progress)):
                before = order.frames_before(part.step, phase.late)
                sums = self.accumulate(part, batch, len(order.batch(part.step)), sums, before)
                if part.last:
                    now = time.monotonic()
                    self.progress.seconds += now - started
                    started = now
                    self.steps.set_rate(phase.lr_at(self.progress.epoch, part.step, steps))
                    self.update(sums, bar)
                    sums = None
            self._grant(self._account(self.steps.drain(), bar), bar)

    def accumulate(self, part: MicroBatch, batch: Sample, batch_size: int, sums: dict[str, Tensor] | None,
                   before: int = 0) -> dict[str, Tensor]:
        """Gradients of one micro-batch, averaged over the whole batch, and the sums of its loss and terms."""
        report_corrupt(batch.corrupt, self.setup.checkpoints.folder.parent)
        alone = self.team.processes == 1
        with nullcontext() if part.last or alone else self.module.no_sync():
            loss, terms = self.module(*(x.to(self.team.device, non_blocking=True)
                                        for x in (batch.frames, batch.qp, batch.noise_key)), before)
            weight = self.team.processes / batch_size if part.real else 0.0
            (loss.sum() * weight).backward()
        found = {"loss": loss.detach(), **terms, "samples": torch.ones_like(loss)}
        found = {name: value.double().sum() * part.real for name, value in found.items()}
        return found if sums is None else {name: value + sums[name] for name, value in found.items()}

    def update(self, sums: dict[str, Tensor], bar: tqdm) -> None:
        """One optimizer step, or its omission; alike on all processes.

        The host learns of it, and of wishes, when it arrives (util/training/steps.py); nothing is saved before.

        Raises:
            Stopped: as `_grant`.
        """
        self._names = sorted(sums)
        due = self.team.leads and time.monotonic() - self._saved_at >= 60 * self.options.save_minutes
        wishes = [torch.full((), float(wish), dtype=torch.float64, device=self.team.device)
                  for wish in (self.stop.received, due)]
        values = self.team.sum(torch.stack([*(sums[name] for name in self._names), *wishes]))
        mean = values[self._names.index("loss")] / values[self._names.index("samples")]
        self.steps.take(mean, values)
        if self.average is not None:
            self.average.update()
        self._grant(self._account(self.steps.reports(), bar), bar)

    def _grant(self, wishes: set[str], bar: tqdm) -> None:
        """Save, and stop, where any process wished it and all of them have learnt of it.

        Raises:
            Stopped: after everything was saved.
        """
        if not wishes:
            return
        wishes = wishes | self._account(self.steps.drain(), bar)
        self._save_last()
        if STOP in wishes:
            raise Stopped

    def _account(self, reports: Iterable[StepReport], bar: tqdm) -> set[str]:
        """Count and record steps. Returns what any process wished at one of them."""
        wishes, progress = set(), self.progress
        for report in reports:
            *totals, stop, save = report.sums
            found = dict(zip(self._names, totals))
            samples = found.pop("samples")
            found["gradient_norm"] = report.norm * samples
            means = {name: total / samples for name, total in found.items()}
            if report.taken:
                progress.skipped_in_row = 0
                progress.samples += round(samples)
                for name, total in found.items():
                    progress.sums[name] = progress.sums.get(name, 0.0) + total
            else:
                self._skip(means)
            progress.step += 1
            progress.updates += 1
            bar.set_postfix_str(progress_text(self._means(), self.options.ssim), refresh=False)
            bar.update()
            if self.records:
                self.records.step(progress, means)
            wishes |= {name for name, value in ((STOP, stop), (SAVE, save)) if value > 0}
        return wishes

    def _skip(self, means: Mapping[str, float]) -> None:
        progress = self.progress
        progress.skipped += 1
        progress.skipped_in_row += 1
        where = f"phase {progress.phase}, epoch {progress.epoch}, step {progress.step + 1}"
        self.team.say(f"skipped: loss {means['loss']:g}, gradient norm {means['gradient_norm']:g} ({where}); "
                      f"{progress.skipped} steps skipped so far")
        if progress.skipped_in_row >= self.options.max_skipped:
            raise InputError(f"{progress.skipped_in_row} steps in a row had a loss that is NaN or above the phase's "
                             f"bound (skip_above) or an infinite gradient ({where}); try a lower lr for the phase, "
                             "--amp off, or go back to an earlier epoch with --restore resume --restore_exp_epoch N, "
                             "and check the training data")

    def _means(self) -> Mapping[str, float]:
        return {name: total / self.progress.samples for name, total in self.progress.sums.items()}

    def _finish_epoch(self, phase: Phase) -> None:
        """Validate, record, save; the state then says that the next epoch begins.

        Raises:
            Stopped: by a signal during the validation; what was saved before it goes on with it.
        """
        progress, loss, best = self.progress, math.nan, False
        if self.records:
            self.records.epoch(progress, self.steps.lr, self._means(),
                               phase.p_frames + 1, self.team.peak_memory())
        self.team.say(f"epoch {progress.epoch}: {progress_text(self._means(), self.options.ssim)}, {progress.samples} "
                      f"samples in {progress.seconds:.1f} s, {progress.skipped} steps skipped so far")
        if self.setup.validation and phase.validate:
            self._save_last()                                      # validation may take long
            with self._averaged():
                rows, loss, pictures = self.setup.validation.run(self.network.codec, self.team,
                                                                 phase.stage == "intra", self.stop)
            best = loss < progress.best                            # False for NaN
            progress.best = loss if best else progress.best
            if self.records:
                self.records.validated(progress, rows, loss, pictures)
            self.team.say(f"  validation loss {loss:.4f}{', the best so far' if best else ''}")
        epoch = progress.epoch
        progress.epoch, progress.step = epoch + 1, 0
        progress.sums, progress.samples, progress.seconds, progress.waited = {}, 0, 0.0, 0.0
        if self.team.leads:
            files = self.setup.checkpoints
            for path in (files.of_epoch(epoch), *([files.best] if best else [])):
                files.save(path, self.network, progress, self.steps.optimizer, epoch=epoch, loss=loss,
                           average=self.average)
            files.prune(self.options.keep)
        self._saved_at = time.monotonic()

    def _averaged(self) -> AbstractContextManager:
        return nullcontext() if self.average is None else self.average.in_place()

    def _save_last(self) -> None:
        if self.team.leads:
            self.setup.checkpoints.save(self.setup.checkpoints.last, self.network, self.progress, self.steps.optimizer,
                                        epoch=self.progress.epoch, average=self.average)
        self._saved_at = time.monotonic()


def loss_of_phase(options: TrainingOptions, phase: Phase, network: TrainedNetwork, anchor: int) -> ClipLoss:
    """What a phase minimises. `anchor`: the intra rate of a single-rate model."""
    plan = phase.stage_plan(variable_rate=not network.codec.single_rate, through_references=options.FGOP_Inter_XtRNN,
                            frame_types=options.frame_types(phase.late + phase.p_frames + 1))
    return ClipLoss(network, plan, phase.loss(options.frame_weight), anchor=anchor,
                    quality_level=options.quality_level, lambdas=phase.lambdas, balance=phase.balance,
                    ssim=options.ssim, amp=(phase.amp or options.amp) == "bfloat16")


def example_of_phase(phase: Phase, side: int, device: torch.device, batch: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Black clips of the length that a phase trains on, as its loss takes them."""
    return (torch.zeros(batch, phase.p_frames + 1, 3, side, side, dtype=torch.uint8, device=device),
            *(torch.zeros(batch, dtype=torch.int64, device=device) for _ in range(2)))


def lag_of(device: torch.device) -> int:
    """Steps that the host may be behind: a GPU goes on while the report of its last step travels."""
    return 1 if device.type == "cuda" else 0


def _remove_leftovers(checkpoints: Checkpoints) -> None:
    """Temporary files of a process that was killed while saving."""
    if checkpoints.folder.is_dir():
        for path in checkpoints.folder.glob(".*.pth.tar.*"):
            path.unlink(missing_ok=True)
