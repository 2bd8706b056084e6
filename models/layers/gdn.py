"""Generalised divisive normalisation (Balle et al., ICLR 2016): every channel divided by a norm of all of them."""
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.bound import LowerBound

OFFSET = 2.0 ** -18
"""Keeps the square root behind the parameters away from zero, where its slope is infinite."""


class _NonNegative(nn.Module):
    """A parameter p stands for p^2 - OFFSET^2, at least `least`: so it cannot become negative by learning.

    Buffers and their names are those of the released checkpoints.
    """

    def __init__(self, least: float = 0.0):
        super().__init__()
        self.register_buffer("pedestal", torch.tensor([OFFSET ** 2], dtype=torch.float32))
        self.lower_bound = LowerBound((least + OFFSET ** 2) ** 0.5)

    def parameter(self, value: Tensor) -> nn.Parameter:
        """The parameter that stands for `value`."""
        return nn.Parameter((value + self.pedestal).sqrt())

    def forward(self, parameter: Tensor) -> Tensor:
        return self.lower_bound(parameter) ** 2 - self.pedestal


class GDN(nn.Module):
    """x_i / sqrt(beta_i + sum_j gamma_ij x_j^2) at every position; B C H W in and out."""

    def __init__(self, channels: int):
        super().__init__()
        self.beta_reparam = _NonNegative(least=1e-6)
        self.gamma_reparam = _NonNegative()
        self.beta = self.beta_reparam.parameter(torch.ones(channels))
        self.gamma = self.gamma_reparam.parameter(0.1 * torch.eye(channels))

    def forward(self, x: Tensor) -> Tensor:
        gamma = self.gamma_reparam(self.gamma)[..., None, None]
        return x * F.conv2d(x ** 2, gamma, self.beta_reparam(self.beta)).rsqrt()
