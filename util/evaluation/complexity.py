"""Multiply-adds, parameters and buffers, counted from outside the model.

The convention is that of the released figures (docs/fidelity.md): one conditional P-frame at 384x192;
multiply-adds of convolutions, plus one per output of a biased convolution and one per output of an activation.
Matrix products of the attention are told apart: the released count leaves them out. It also leaves out the 1x1
convolutions inside GDN (5.4 kMAC/pixel), which its hooks did not see; here they count.

A second convention is that of ptflops, which DCVC-MIP's figures follow: matrix products and inputs of max-pooling
count, of activations only (leaky) ReLU.
"""
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count, sdpa_flop_count

from models.codec import FrameHeader, Memory, Size, VideoCodec
from models.entropy.coder import Recorder, Replayer

SIZE = (192, 384)
"""Of the released figures. A figure per pixel is the same at any size that all grids of a codec divide."""

aten = torch.ops.aten
RECTIFIERS = (aten.leaky_relu, aten.leaky_relu_, aten.relu, aten.relu_)
ACTIVATIONS = (*RECTIFIERS, aten.gelu, aten.sigmoid, aten._prelu_kernel)
POOLS = (aten.max_pool2d_with_indices,)
FUSED = (aten._scaled_dot_product_flash_attention_for_cpu,)
"""Attention kernels that PyTorch's counter does not know."""
PRODUCTS = (aten.mm, aten.bmm, aten.addmm, aten.baddbmm, aten._scaled_dot_product_efficient_attention,
            aten._scaled_dot_product_flash_attention, *FUSED)


class Macs(NamedTuple):
    """Thousands of multiply-adds per pixel.

    Attributes:
        convolutions: the convolutions alone.
        total: the released convention.
        attention: matrix products, not in `total`.
        parts: `total` per network.
        ptflops: the second convention.
    """
    convolutions: float
    total: float
    attention: float
    parts: dict[str, float]
    ptflops: float


def _convolution(x, w, bias, _stride, _padding, _dilation, transposed, *_, out_shape=None, **__) -> int:
    biases = 2 * math.prod(out_shape) if bias is not None else 0
    return conv_flop_count(x, w, out_shape, transposed=transposed) + biases


def _activation(*_, out_shape=None, **__) -> int:
    return 2 * math.prod(out_shape)


def _pool(x, *_, **__) -> int:
    return 2 * math.prod(x)


def _fused(q, k, v, *_, **__) -> int:
    return sdpa_flop_count(q, k, v)


PLAIN = dict.fromkeys(FUSED, _fused)
CONVENTION = {aten.convolution: _convolution, **dict.fromkeys(ACTIVATIONS, _activation), **dict.fromkeys(POOLS, _pool),
              **PLAIN}


class _Ledger:
    """Whose operations a counter counts: of each network, by hooks around every module in it.

    A network need not be called as a whole: each of its parts knows where it belongs.
    """

    def __init__(self, codec: VideoCodec, counter: FlopCounterMode):
        self._counter, self._open, self._seen = counter, [], Counter()
        self.parts: dict[str, Counter] = {name: Counter() for name, _ in codec.networks()}
        self._hooks = []
        for name, network in codec.networks():
            for module in network.modules():
                self._hooks += [module.register_forward_pre_hook(lambda *_, name=name: self._enter(name)),
                                module.register_forward_hook(lambda *_: self._leave())]

    def _settle(self) -> None:
        """What was counted since the last call belongs to the innermost network."""
        now = Counter(self._counter.get_flop_counts().get("Global", {}))
        if self._open:
            self.parts[self._open[-1]] += now - self._seen
        self._seen = now

    def _enter(self, name: str) -> None:
        self._settle()
        self._open.append(name)

    def _leave(self) -> None:
        self._settle()
        self._open.pop()

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()


Counts = Mapping[object, float]
"""Thousands of multiply-adds per pixel, by operation."""


@contextmanager
def _counter(mapping: dict) -> Iterator[FlopCounterMode]:
    """Counts the operations of a block, two for a multiply-add."""
    # Where gradients are recorded there are no bands of rows (models/layers/bands.py), whose overlaps count twice.
    with torch.enable_grad(), FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        yield counter


def multiply_adds(run: Callable[[], object]) -> float:
    """Of the convolutions and matrix products, attention included, of whatever `run` does with frozen networks."""
    with _counter(PLAIN) as counter:
        run()
    return counter.get_total_flops() / 2


def _count(run: Callable[[], object], codec: VideoCodec, mapping: dict, size: Size = SIZE
           ) -> tuple[Counts, dict[str, Counts]]:
    """Everything that is counted in a frame of that size, and what of it each network does."""
    with _counter(mapping) as counter:
        ledger = _Ledger(codec, counter)
        try:
            run()
        finally:
            ledger.close()

    def scaled(operations: Mapping) -> Counts:
        return {operation: value / (2 * 1000 * size[0] * size[1]) for operation, value in operations.items()}

    total = scaled(counter.get_flop_counts().get("Global", {}))
    return total, {name: scaled(operations) for name, operations in ledger.parts.items()}


def _sum(counts: Counts, *operations: object) -> float:
    return sum(counts.get(operation, 0) for operation in operations)


@torch.no_grad()
def count_macs(model: VideoCodec, decode: bool = False, size: Size = SIZE) -> Macs:
    """Complexity of coding (or decoding) one P-frame of that size with all memory there. The model must be frozen."""
    frames = torch.rand(3, 1, 3, *size, generator=torch.Generator().manual_seed(0)).to(next(model.parameters()))
    memory = _memory_after_p_frame(model, frames)
    header = FrameHeader(intra=False, qp=0, size=size, frame_type=model.frame_types - 1)
    recorder = Recorder()

    def encode() -> None:
        model.code_frame(recorder, frames[2], memory, header)

    def replay() -> None:
        model.code_frame(Replayer(recorder.symbols), None, memory, header)

    if decode:
        encode()
    run = replay if decode else encode
    plain, _ = _count(run, model, PLAIN, size)
    counts, parts = _count(run, model, CONVENTION, size)
    released = (aten.convolution, *ACTIVATIONS)
    return Macs(_sum(plain, aten.convolution), _sum(counts, *released), _sum(counts, *PRODUCTS),
                {name: _sum(own, *released) for name, own in parts.items()},
                _sum(counts, aten.convolution, *RECTIFIERS, *POOLS, *PRODUCTS))


def _memory_after_p_frame(model: VideoCodec, frames: torch.Tensor) -> Memory:
    memory = None
    for frame, intra in zip(frames[:2], (True, False)):
        header = FrameHeader(intra=intra, qp=0, size=tuple(frame.shape[-2:]))
        memory = model.code_frame(Recorder(), frame, memory, header).memory
    return memory


class Buffer(NamedTuple):
    """Values remembered per pixel between two P-frames, in full-resolution channels.

    Attributes:
        encoder, decoder: all told; a decoder may need less.
        parts: of the decoder's, by name.
    """
    encoder: float
    decoder: float
    parts: dict[str, float]


@torch.no_grad()
def buffer_size(model: VideoCodec, size: Size = SIZE) -> Buffer:
    """Of a model, from what it remembers of a frame of that size."""
    memory = _memory_after_p_frame(model, torch.full((2, 1, 3, *size), 0.5).to(next(model.parameters())))
    pixels = size[0] * size[1]
    return Buffer(memory.buffer_size(), memory.buffer_size(decoder=True),
                  {name: value.numel() / pixels for name, value in memory.tensors(decoder=True).items()})


def parameters(model: VideoCodec) -> dict[str, int]:
    """Parameters of each network."""
    return {name: sum(p.numel() for p in network.parameters()) for name, network in model.networks()}


def describe_macs(macs: Macs, decode: bool) -> str:
    """For the terminal."""
    lines = [f"{'decoding' if decode else 'encoding'} one conditional P-frame at {SIZE[1]}x{SIZE[0]}, in kMAC/pixel"]
    lines += [f"  {name:<20}{value:10.1f}" for name, value in macs.parts.items() if value]
    lines += [f"  {'total':<20}{macs.total:10.1f}", f"  {'convolutions alone':<20}{macs.convolutions:10.1f}",
              f"  {'matrix products':<20}{macs.attention:10.1f}  (not in the total)",
              f"  {'as ptflops counts':<20}{macs.ptflops:10.1f}  (products and pools, rectifiers only)"]
    return "\n".join(lines)


def describe_size(model: VideoCodec) -> str:
    """For the terminal."""
    sizes, buffer = parameters(model), buffer_size(model)
    without_intra = sum(value for name, value in sizes.items() if name != model.intra_network)
    lines = ["parameters, in millions"]
    lines += [f"  {name:<20}{value / 1e6:10.3f}" for name, value in sizes.items()]
    lines += [f"  {'without intra':<20}{without_intra / 1e6:10.3f}",
              f"buffer between P-frames: {buffer.encoder:.3f} full-resolution channels"]
    if buffer.decoder != buffer.encoder:
        lines.append(f"  of which a decoder needs {buffer.decoder:.3f}")
    return "\n".join(lines)
