"""A lower bound that does not stop learning."""
import torch
from torch import Tensor, nn


class _AtLeast(torch.autograd.Function):
    """max(x, bound); below the bound, only gradients that would raise x (negative ones: losses descend) pass."""

    @staticmethod
    def forward(ctx, x: Tensor, bound: Tensor) -> Tensor:
        ctx.save_for_backward(x, bound)
        return torch.maximum(x, bound)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        x, bound = ctx.saved_tensors
        return gradient * ((x >= bound) | (gradient < 0)), None


def bounded(x: Tensor, bound: Tensor) -> Tensor:
    """max(x, bound), elementwise; its gradient still raises x where it is below. `bound` has one element."""
    return _AtLeast.apply(x, bound)


class LowerBound(nn.Module):
    """`bounded` with a constant, which the released checkpoints hold as a buffer, `bound` (1,)."""

    def __init__(self, bound: float):
        super().__init__()
        self.register_buffer("bound", torch.tensor([bound], dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        return bounded(x, self.bound)
