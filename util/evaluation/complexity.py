"""Multiply-adds, parameters and buffers, counted from outside the model.

The convention is that of the released figures (SPEC section 10): one conditional P-frame at 384x192;
multiply-adds of convolutions, plus one per output of a biased convolution and one per output of an activation.
Matrix products of the attention are told apart: the released count leaves them out. It also leaves out the 1x1
convolutions inside GDN (5.4 kMAC/pixel), which its hooks did not see; here they count.
"""
import math
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from models.entropy.coder import Recorder, Replayer
from models.hytip.codec import HyTIP
from models.memory import FrameHeader, Memory

SIZE = (192, 384)

aten = torch.ops.aten
ACTIVATIONS = (aten.leaky_relu, aten.relu, aten.gelu, aten.sigmoid, aten._prelu_kernel)
PRODUCTS = (aten.mm, aten.bmm, aten.addmm, aten.baddbmm)


class Macs(NamedTuple):
    """Thousands of multiply-adds per pixel.

    Attributes:
        convolutions: the convolutions alone.
        total: the released convention.
        attention: matrix products, not in `total`.
        parts: `total` per network.
    """
    convolutions: float
    total: float
    attention: float
    parts: dict[str, float]


def _convolution(x, w, bias, _stride, _padding, _dilation, transposed, *_, out_shape=None, **__) -> int:
    biases = 2 * math.prod(out_shape) if bias is not None else 0
    return conv_flop_count(x, w, out_shape, transposed=transposed) + biases


def _activation(*_, out_shape=None, **__) -> int:
    return 2 * math.prod(out_shape)


def _count(run, model: nn.Module, mapping: dict) -> tuple[float, float, dict[str, float]]:
    """(all but matrix products, matrix products, all but matrix products per network), in kMAC per pixel."""
    # Where gradients are recorded there are no bands of rows (models/layers/bands.py), whose overlaps count twice.
    with torch.enable_grad(), FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        run()
    scale = 1 / (2 * 1000 * SIZE[0] * SIZE[1])
    counts = counter.get_flop_counts()

    def sums(module: str) -> tuple[float, float]:
        operations = counts.get(module, {})
        products = sum(value for operation, value in operations.items() if operation in PRODUCTS)
        return (sum(operations.values()) - products) * scale, products * scale

    total, products = sums("Global")
    parts = {name: sums(type(getattr(model, name)).__name__)[0] for name in ("motion_estimation", "motion")}
    parts["inter"] = total - sum(parts.values())                # its prediction is no module call of its own
    return total, products, parts


@torch.no_grad()
def count_macs(model: HyTIP, decode: bool = False) -> Macs:
    """Complexity of coding (or decoding) one conditional P-frame at 384x192. The model must be frozen."""
    reference = next(model.parameters())
    frames = torch.rand(3, 1, 3, *SIZE, generator=torch.Generator().manual_seed(0)).to(reference)
    memory = _memory_after_p_frame(model, frames)
    header = FrameHeader(intra=False, qp=0, size=SIZE, frame_type=2)
    recorder = Recorder()

    def encode() -> None:
        model.code_frame(recorder, frames[2], memory, header)

    def replay() -> None:
        model.code_frame(Replayer(recorder.symbols), None, memory, header)

    if decode:
        encode()
    run = replay if decode else encode
    convolutions, attention, _ = _count(run, model, {})
    mapping = {aten.convolution: _convolution, **dict.fromkeys(ACTIVATIONS, _activation)}
    total, _, parts = _count(run, model, mapping)
    return Macs(convolutions, total, attention, parts)


def _memory_after_p_frame(model: HyTIP, frames: torch.Tensor) -> Memory:
    memory = None
    for frame, intra in zip(frames[:2], (True, False)):
        header = FrameHeader(intra=intra, qp=0, size=tuple(frame.shape[-2:]))
        memory = model.code_frame(Recorder(), frame, memory, header).memory
    return memory


@torch.no_grad()
def buffer_size(model: HyTIP) -> float:
    """Values remembered per pixel between two P-frames, in full-resolution channels."""
    reference = next(model.parameters())
    return _memory_after_p_frame(model, torch.full((2, 1, 3, 64, 64), 0.5).to(reference)).buffer_size()


def parameters(model: HyTIP) -> dict[str, int]:
    """Parameters of each network."""
    return {name: sum(p.numel() for p in network.parameters()) for name, network in model.named_children()}


def describe_macs(macs: Macs, decode: bool) -> str:
    """For the terminal."""
    lines = [f"{'decoding' if decode else 'encoding'} one conditional P-frame at {SIZE[1]}x{SIZE[0]}, in kMAC/pixel"]
    lines += [f"  {name:<20}{value:10.1f}" for name, value in macs.parts.items() if value]
    lines += [f"  {'total':<20}{macs.total:10.1f}", f"  {'convolutions alone':<20}{macs.convolutions:10.1f}",
              f"  {'attention products':<20}{macs.attention:10.1f}  (not in the total)"]
    return "\n".join(lines)


def describe_size(model: HyTIP) -> str:
    """For the terminal."""
    sizes = parameters(model)
    without_intra = sum(value for name, value in sizes.items() if name != "intra")
    lines = ["parameters, in millions"]
    lines += [f"  {name:<20}{value / 1e6:10.3f}" for name, value in sizes.items()]
    lines += [f"  {'without intra':<20}{without_intra / 1e6:10.3f}",
              f"buffer between P-frames: {buffer_size(model):.3f} full-resolution channels"]
    return "\n".join(lines)
