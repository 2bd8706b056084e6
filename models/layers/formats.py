"""Networks that mix number formats: the only casts besides those of the entropy models.

A part is told its format once; hooks convert what comes in and, where asked for, what goes out. So the networks
themselves contain no casts, and weights keep their names.
"""
from collections.abc import Iterable
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


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Floating tensors inside tuples in another format."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, tuple):
        return tuple(_cast(item, dtype) for item in value)
    return value
