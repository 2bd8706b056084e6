"""Networks that mix number formats, and gains that need a wide one: the only casts besides those of the entropy models.

A part is told its format once; hooks convert what comes in and, where asked for, what goes out. So the networks
themselves contain no casts, and weights keep their names.
"""
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn


def compute_in(inside: torch.dtype, parts: Iterable[nn.Module], outside: torch.dtype | None = None) -> None:
    """Let parts of a model compute in a number format of their own.

    Args:
        inside: of their weights and inputs.
        outside: of what they return, tuples included; None leaves it as it is.
    """
    for part in parts:
        part.to(inside)
        part.register_forward_pre_hook(lambda _, args: _cast(args, inside))
        if outside is not None:
            part.register_forward_hook(lambda _, args, output: _cast(output, outside))


def store_channels_last(model: nn.Module) -> None:
    """Give all weights of 2D convolutions this layout. Module.to would refuse those of 3D ones, which have none."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)


@contextmanager
def autocast_in(part: nn.Module, kind: str, dtype: torch.dtype | None) -> Iterator[None]:
    """Inside the block, let a part compute in a number format by autocast, its weights staying what they are.

    Args:
        kind: of its device.
        dtype: the format, or None for float32 in what is called with half precision.
    """
    entered = []

    def enter(_, args: tuple) -> Any:
        entered.append(torch.autocast(kind, dtype, enabled=dtype is not None))
        entered[-1].__enter__()
        return _cast(args, torch.float32) if dtype is None else args

    def leave(*_) -> None:
        entered.pop().__exit__(None, None, None)

    handles = part.register_forward_pre_hook(enter), part.register_forward_hook(leave, always_call=True)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def wide_arithmetic(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Inside the block, compute in float32 what half precision is too narrow for, under autocast, too.

    For sums and exponentials inside parts that compute in half precision as a whole.

    Returns:
        The tensors, in float32 where they were narrower.
    """
    kind = tensors[0].device.type
    narrow = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    with torch.autocast(kind, enabled=False) if narrow else nullcontext():
        yield tuple(x.float() if x.dtype in (torch.float16, torch.bfloat16) else x for x in tensors)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Floating tensors inside tuples in another format."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, tuple):
        return tuple(_cast(item, dtype) for item in value)
    return value


def log_linear(anchors: Tensor, count: int, narrow: bool = False) -> Tensor:
    """Gains from the first to the last anchor with equal ratios, (count, ...) in the format of the anchors.

    Computed in float64 as numpy's linspace does, but on the device, so that the host does not wait for it.

    Args:
        narrow: take the logarithms in the format of the anchors.
    """
    first, last = (x.log().double() if narrow else x.double().log() for x in (anchors[:1], anchors[-1:]))
    steps = torch.arange(count - 1, dtype=torch.float64, device=anchors.device)
    steps = steps.view(-1, *[1] * (anchors.ndim - 1))
    return torch.cat((steps * ((last - first) / (count - 1)) + first, last)).exp().to(anchors.dtype)
