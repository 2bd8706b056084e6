"""Coder objects: what a network calls wherever a symbol crosses the channel.

A network never knows whether bits are estimated, recorded, written or read. It hands over the real-valued
residual (None when decoding) with its distribution and gets the quantised one back, so that there is one
coding path for all uses. Latents are handed over flat, B x n, already restricted to the positions of the pass.
"""
from typing import Protocol

import torch
from torch import Tensor

from models.entropy.distributions import Conditional, Factorized


class Coder(Protocol):
    """The interface that the codecs see. `name` is that of the latent: a section of the stream, a column of reports."""

    def code(self, residual: Tensor | None, scale: Tensor, distribution: Conditional, name: str) -> Tensor:
        """Quantise, or read, the mean-removed latent (B x n). Returns integers as floats, of scale's shape."""

    def code_z(self, z: Tensor | None, prior: Factorized, size: tuple[int, int], name: str) -> Tensor:
        """Quantise, or read, the hyper latent (B, prior.channels, *size). Returns integers as floats."""


class Estimator:
    """Rounds, and adds up the bits that the distributions give: the evaluation of the paper.

    `bits[name]` is a float64 tensor (B,), the bits of each sample so far.
    """

    def __init__(self):
        self.bits: dict[str, Tensor] = {}

    def code(self, residual: Tensor, scale: Tensor, distribution: Conditional, name: str) -> Tensor:
        symbols = residual.round()
        self._count(name, distribution.bits(symbols, scale))
        return symbols

    def code_z(self, z: Tensor, prior: Factorized, size: tuple[int, int], name: str) -> Tensor:
        assert z.shape[-2:] == size
        symbols = z.round()
        self._count(name, prior.bits(symbols))
        return symbols

    def _count(self, name: str, bits: Tensor) -> None:
        """Elementwise bits, B first."""
        total = bits.flatten(1).sum(1, dtype=torch.float64)
        self.bits[name] = self.bits[name] + total if name in self.bits else total


class Recorder(Estimator):
    """An estimator that also keeps every symbol tensor, in coding order."""

    def __init__(self):
        super().__init__()
        self.symbols: list[tuple[str, Tensor]] = []

    def code(self, residual, scale, distribution, name):
        symbols = super().code(residual, scale, distribution, name)
        self.symbols.append((name, symbols))
        return symbols

    def code_z(self, z, prior, size, name):
        symbols = super().code_z(z, prior, size, name)
        self.symbols.append((name, symbols))
        return symbols


class Replayer:
    """Hands out what a `Recorder` kept: a decoder without a bitstream."""

    def __init__(self, symbols: list[tuple[str, Tensor]]):
        self._symbols = iter(symbols)

    def _next(self, name: str, shape: tuple[int, ...]) -> Tensor:
        recorded, symbols = next(self._symbols)
        assert recorded == name and tuple(symbols.shape[1:]) == shape, (recorded, name, symbols.shape, shape)
        return symbols

    def code(self, residual: None, scale: Tensor, distribution: Conditional, name: str) -> Tensor:
        assert residual is None
        return self._next(name, tuple(scale.shape[1:]))

    def code_z(self, z: None, prior: Factorized, size: tuple[int, int], name: str) -> Tensor:
        assert z is None
        return self._next(name, (prior.channels, *size))

    def finish(self) -> None:
        """Every recorded symbol must have been asked for."""
        assert next(self._symbols, None) is None, "symbols left over"
