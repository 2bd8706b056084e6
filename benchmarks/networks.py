"""The networks alone: how many multiply-adds a frame takes, and how long in their plain form.

Shapes: frames 1 3 H W in [0, 1].
"""
import copy
import time

import torch
from torch import Tensor, nn

from benchmarks.spans import synchronise
from models.codec import Memory, VideoCodec
from models.entropy.coder import Recorder, Replayer
from util.coding.gop import CodingPlan
from util.evaluation.complexity import multiply_adds

COUNTED = (192, 384)
"""Height and width at which multiply-adds are counted; both multiples of 64, so that no padding distorts them."""


class Rounding:
    """A coder that only rounds: what is left of coding is the networks."""

    def code(self, residual, scale, distribution, name):
        return residual.round()

    def code_z(self, z, prior, size, name):
        return z.round()


def eager(model: VideoCodec) -> VideoCodec:
    """The unoptimised form: contiguous NCHW, activations out of place, in float32; no bands (`ConditionalFrame`).

    What makes the networks fast is a matter of layout and of flags of their modules, so it can be undone; only sums in
    place, which the blocks contain, stay.
    """
    model = copy.deepcopy(model).to(torch.float32, memory_format=torch.contiguous_format)
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    return model.eval().requires_grad_(False)


class ConditionalFrame:
    """The second P-frame after an I-frame, the first one with a full memory, ready to be coded over and over.

    Args:
        model: placed.
        frames: three, 1 3 H W.
        plan: at least three frames per GOP.
    """

    def __init__(self, model: VideoCodec, frames: list[Tensor], plan: CodingPlan):
        self._model, self._frame, self._device = model, frames[2], frames[2].device
        size = tuple(frames[0].shape[-2:])
        self._headers = [plan.header(n, size) for n in range(3)]
        self._memory: Memory | None = None
        with torch.no_grad():
            for frame, header in zip(frames[:2], self._headers):
                self._memory = model.code_frame(Rounding(), frame, self._memory, header).memory

    def seconds(self) -> float:
        """Once. Where gradients are recorded, blocks are not cut into bands; frozen weights have none to record."""
        with torch.enable_grad():
            synchronise(self._device)
            start = time.perf_counter()
            self._model.code_frame(Rounding(), self._frame, self._memory, self._headers[2])
            synchronise(self._device)
            return time.perf_counter() - start


def macs_per_frame(model: VideoCodec, plan: CodingPlan, count: int, size: tuple[int, int], decode: bool) -> float:
    """Of convolutions and matrix products, per frame of a clip as it is coded, by scaling what COUNTED takes.

    Args:
        model: frozen, in float32.
        count: frames of the clip.
        size: height and width, whose padding for I- and P-frames counts.
    """
    reference, height, width = next(model.parameters()), *size
    frame = torch.rand(1, 3, *COUNTED, generator=torch.Generator().manual_seed(0)).to(reference)
    memory, total, known = None, 0.0, {}
    for n in range(count):
        header = plan.header(n, COUNTED)
        kind = header.intra, memory is not None and memory.ref_y is not None, header.refresh
        grid = 64 if header.intra else 16
        pixels = (height + -height % grid) * (width + -width % grid)
        if kind not in known:
            known[kind] = _counted(model, frame, memory, header, decode)
        macs, memory = known[kind]
        total += macs * pixels / (COUNTED[0] * COUNTED[1])
    return total / count


def _counted(model: VideoCodec, frame: Tensor, memory: Memory | None, header, decode: bool) -> tuple[float, Memory]:
    """Multiply-adds of one frame, and what it leaves."""
    recorder, coded = Recorder(), []
    macs = multiply_adds(lambda: coded.append(model.code_frame(recorder, frame, memory, header)))
    if decode:
        macs = multiply_adds(lambda: model.code_frame(Replayer(recorder.symbols), None, memory, header))
    return macs, coded[0].memory


def peak_rate(device: torch.device, dtype: torch.dtype, seconds: float = 1.0, small: bool = False) -> float:
    """Multiply-adds per second that PyTorch reaches here at best: the larger of a matrix product's and a convolution's.

    Args:
        seconds: to spend on each.
        small: with matrices and pictures that are no measure of anything; formats that a CPU emulates take a minute of
            the proper ones.
    """
    side, rows = (256, 16) if small else (4096 if device.type == "cuda" else 2048, 128)
    a = torch.randn(side, side, device=device, dtype=dtype)
    network = nn.Conv2d(256, 256, 3, padding=1).to(device, dtype, memory_format=torch.channels_last)
    x = torch.randn(1, 256, rows, 2 * rows, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        return max(side ** 3 / _fastest(lambda: a @ a, device, seconds),
                   9 * 256 * x.numel() / _fastest(lambda: network(x), device, seconds))


def _fastest(run, device: torch.device, seconds: float) -> float:
    run()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        synchronise(device)
        start = time.perf_counter()
        run()
        synchronise(device)
        best = min(best, time.perf_counter() - start)
    return best
