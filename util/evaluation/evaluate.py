"""Estimated rate and quality of sequences: the main job of the command line.

Frames are read once and coded at every rate point; nothing is kept but what the next frame needs.
"""
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from dataloader.source import FrameSource
from models.codec import CodedFrame, FrameHeader, Memory, VideoCodec
from models.entropy.coder import Estimator
from models.layers.functional import crop, warp
from util.arithmetic import Arithmetic
from util.coding.gop import CodingPlan
from util.evaluation.metrics import Metric
from util.evaluation.report import Averages, FrameResult, PFrameParts, average_gop

P_FRAME_PARTS = ("my", "mz", "ry", "rz")


Observer = Callable[[int, int, FrameHeader, Tensor, CodedFrame, Estimator], None]
"""Is shown number (from 0), index of the plan, header, source (1 3 H W), outcome and coder of each coded frame."""


@torch.inference_mode()
def evaluate(model: VideoCodec, arithmetic: Arithmetic, source: FrameSource, plans: Sequence[CodingPlan],
             metrics: Sequence[Metric], align: int | None, estimator: type[Estimator] = Estimator,
             observe: Observer | None = None) -> Iterator[list[list[FrameResult]]]:
    """Code a sequence with estimated bits. Yields, per frame, one result per plan and metric.

    Args:
        source: the frames, already cropped.
        plans: one per rate point.
        align: frames are padded to multiples of this for coding, by default of the codec's grid; quality is measured
            without.
        estimator: the kind of coder.
    """
    memories: list[Memory | None] = [None] * len(plans)
    align = model.grid.multiple(align)
    for n, pixels in enumerate(source):
        original = arithmetic.frame(pixels)
        frame = model.grid.pad(original, align)
        results = []
        for i, plan in enumerate(plans):
            coder = estimator()
            header = model.understood(plan.header(n, tuple(frame.shape[-2:])))
            coded = model.code_frame(coder, frame, memories[i], header)
            bits = {name: value.item() for name, value in coder.bits.items()}
            results.append([measure(n, header, original, memories[i], coded, bits, metric, tuple(original.shape[-2:]))
                            for metric in metrics])
            if observe is not None:
                observe(n, i, header, original, coded, coder)
            memories[i] = coded.memory
        yield results


def measure(n: int, header: FrameHeader, original: Tensor | None, memory: Memory | None, coded: CodedFrame,
            bits: dict[str, float], metric: Metric, size: tuple[int, int]) -> FrameResult:
    """The report's row of frame n (from 0).

    Args:
        original: 1 3 H W in [0, 1], or None without a source: qualities stay empty.
        memory: what the frame was predicted from.
        bits: by name of the part; they add up to the rate.
        size: height and width of the frame without padding.
    """
    def quality(x: Tensor | None) -> float | None:
        return None if original is None or x is None else metric(crop(x, size).clamp(0, 1), original)

    pixels = size[0] * size[1]
    rates = {name: value / pixels for name, value in bits.items()}
    parts = None
    if not header.intra:
        flow = coded.views.get("decoded_flow")
        warped = None if flow is None else warp(memory.frame, flow)
        parts = PFrameParts(quality(coded.views.get("mc")), quality(warped), *map(rates.get, P_FRAME_PARTS))
    return FrameResult(n + 1, quality(coded.frame), sum(rates.values()), parts)


def gop_averages(rows: Sequence[FrameResult], gop: int) -> list[Averages]:
    """The averages of each GOP of a sequence."""
    return [average_gop(rows[start:start + gop]) for start in range(0, len(rows), gop)]

