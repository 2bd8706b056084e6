"""Which clips an epoch holds, in which order, and every random choice about them.

Everything is a pure function of the seed, the epoch and the sample's place in the epoch, so that the choices do not
depend on the number of processes, workers or restarts, and nothing random has to be saved.
"""
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class EpochOrder:
    """The samples of one epoch.

    Attributes:
        seed: of the run.
        epoch: from 1.
        clips: clips in the data set.
        fraction: of the data set that makes an epoch; a fresh random part each epoch (at least one clip).
        batch_size: samples per optimizer step, over all processes; the last step may have fewer.
        samples: in the epoch, whatever `fraction` says; clips are used again where there are fewer.
        groups: with `samples`: numbers of clips that follow each other in the data set and have equal shares.
    """
    seed: int
    epoch: int
    clips: int
    fraction: float
    batch_size: int
    samples: int | None = None
    groups: tuple[int, ...] = ()

    @cached_property
    def order(self) -> np.ndarray:
        """Index of the clip of each sample."""
        generator = np.random.default_rng((self.seed, self.epoch))
        if self.samples is None:
            count = max(1, round(self.clips * self.fraction))
            return generator.permutation(self.clips)[:count]
        groups, start, parts = self.groups or (self.clips,), 0, []
        for n, size in enumerate(groups):
            share = (self.samples - n - 1) // len(groups) + 1
            rounds = [generator.permutation(size) for _ in range(-(-share // size))]
            parts.append(start + np.concatenate([*rounds, np.empty(0, int)])[:share])
            start += size
        # Mixed once more, so that no group meets the same strata of the rates in every batch.
        return generator.permutation(np.concatenate(parts))

    @property
    def steps(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def batch(self, step: int) -> range:
        """The samples of an optimizer step."""
        return range(step * self.batch_size, min((step + 1) * self.batch_size, len(self.order)))

    def generator(self, sample: int) -> np.random.Generator:
        """Draws everything about one sample."""
        return np.random.default_rng((self.seed, self.epoch, sample))

    def noise_key(self, sample: int) -> int:
        """Key of the sample's quantisation noise, in 0..2^62."""
        return int(np.random.default_rng((self.seed, self.epoch, sample, 1)).integers(2 ** 62))

    def frames_before(self, step: int, most: int) -> int:
        """P-frames, 0..most, that an optimizer step codes before it learns from any (`Phase.late`)."""
        return int(np.random.default_rng((self.seed, self.epoch, step, 3)).integers(most + 1))

    def rate(self, sample: int, rates: int) -> int:
        """QP of a sample: sample i of B draws from the i-th of B equal strata of the rates."""
        batch = self.batch(sample // self.batch_size)
        i, size = sample - batch.start, len(batch)
        low, high = round(rates * i / size), round(rates * (i + 1) / size) - 1
        generator = np.random.default_rng((self.seed, self.epoch, sample, 2))
        return int(generator.integers(low, max(low, high) + 1)) if low < rates else rates - 1


@dataclass(frozen=True)
class MicroBatch:
    """What one process codes at a time.

    Attributes:
        step: the optimizer step it belongs to.
        samples: places in the epoch.
        real: whether the samples count; a process without a share codes one that does not.
        last: whether the step is complete with it.
    """
    step: int
    samples: tuple[int, ...]
    real: bool
    last: bool


@dataclass(frozen=True)
class Share:
    """The part of each batch that belongs to one process.

    Attributes:
        rank, processes: which of how many.
        accumulate: into how many micro-batches the part is split at most.
    """
    rank: int = 0
    processes: int = 1
    accumulate: int = 1

    def micro_batches(self, order: EpochOrder, first_step: int = 0) -> Iterator[MicroBatch]:
        """What this process codes from a step on."""
        for step in range(first_step, order.steps):
            batch = order.batch(step)
            own = list(batch)[self.rank::self.processes]
            parts = [tuple(part.tolist()) for part in np.array_split(own, self.accumulate) if len(part)]
            real = bool(parts)
            for n, part in enumerate(parts or [(batch.start,)], start=1):
                yield MicroBatch(step, part, real, n == max(1, len(parts)))
