"""Estimated rate and quality of sequences: the main job of the command line.

Frames are read once and coded at every rate point; nothing is kept but what the next frame needs.
"""
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from dataloader.source import FrameSource
from models.entropy.coder import Estimator
from models.hytip.codec import HyTIP
from models.layers.functional import crop, pad_to_multiple, warp
from models.memory import CodedFrame, Memory
from util.arithmetic import Arithmetic
from util.coding.gop import CodingPlan
from util.evaluation.metrics import Metric
from util.evaluation.report import Averages, FrameResult, PFrameParts, average_gop

P_FRAME_PARTS = ("my", "mz", "ry", "rz")


Observer = Callable[[int, int, Tensor, CodedFrame, Estimator], None]
"""Is shown frame number (from 0), index of the plan, source (1 3 H W), outcome and coder of each coded frame."""


@torch.inference_mode()
def evaluate(model: HyTIP, arithmetic: Arithmetic, source: FrameSource, plans: Sequence[CodingPlan],
             metrics: Sequence[Metric], align: int, estimator: type[Estimator] = Estimator,
             observe: Observer | None = None) -> Iterator[list[list[FrameResult]]]:
    """Code a sequence with estimated bits. Yields, per frame, one result per plan and metric.

    Args:
        source: the frames, already cropped.
        plans: one per rate point.
        align: frames are replicate-padded to multiples of this for coding; quality is measured without.
        estimator: the kind of coder.
    """
    memories: list[Memory | None] = [None] * len(plans)
    for n, pixels in enumerate(source):
        original = arithmetic.frame(pixels)
        frame = pad_to_multiple(original, align)
        results = []
        for i, plan in enumerate(plans):
            coder = estimator()
            header = plan.header(n, tuple(frame.shape[-2:]))
            coded = model.code_frame(coder, frame, memories[i], header)
            bits = {name: value.item() for name, value in coder.bits.items()}
            results.append([measure(n, original, memories[i], coded, bits, metric, tuple(original.shape[-2:]))
                            for metric in metrics])
            if observe is not None:
                observe(n, i, original, coded, coder)
            memories[i] = coded.memory
        yield results


def measure(n: int, original: Tensor | None, memory: Memory | None, coded: CodedFrame, bits: dict[str, float],
            metric: Metric, size: tuple[int, int]) -> FrameResult:
    """The report's row of frame n (from 0).

    Args:
        original: 1 3 H W in [0, 1], or None without a source: qualities stay empty.
        memory: what the frame was predicted from.
        bits: by name of the part; they add up to the rate.
        size: height and width of the frame without padding.
    """
    def quality(x: Tensor) -> float | None:
        return None if original is None else metric(crop(x, size).clamp(0, 1), original)

    pixels = size[0] * size[1]
    rates = {name: value / pixels for name, value in bits.items()}
    parts = None
    if coded.prediction is not None:
        warped = warp(memory.frame, coded.flow_hat)
        parts = PFrameParts(quality(coded.prediction.mc_frame), quality(warped), *(rates[k] for k in P_FRAME_PARTS))
    return FrameResult(n + 1, quality(coded.frame), sum(rates.values()), parts)


def gop_averages(rows: Sequence[FrameResult], gop: int) -> list[Averages]:
    """The averages of each GOP of a sequence."""
    return [average_gop(rows[start:start + gop]) for start in range(0, len(rows), gop)]

