"""Coder objects that write symbols to bytes and read them back (interface: models/entropy/coder.py).

A frame is one ANS code over the integer tables, call after call. Within one call, symbols are grouped by table, in
stable order; then come the values that escaped their tables, as

    sign (1 bit), number of bits n (a table of its own), the lowest n bits of the excess + 1

where the excess counts from the table's end outwards. The code is little-endian 32-bit words without the zero bytes at
its end; what each latent takes of it is the difference of the coder's size before and after. One frame of one sample
(B = 1) is coded per object.

Nothing leaves the device but symbols (int32) and table indices (uint8). The encoder only starts these copies and codes
at the end, so that the host may do it while the device computes the next frame; the decoder has one transfer down and
one up per call.
"""
import math
import zlib
from typing import NamedTuple

import constriction
import numpy as np
import torch
from torch import Tensor
from torch.profiler import record_function

from models.entropy.distributions import Conditional, Factorized
from models.entropy.tables import NO_SCALE, TOTAL, Tables, TableSet, coder_model
from models.entropy.transfer import Download, upload
from util.errors import InputError

Ans = constriction.stream.stack.AnsCoder
Uniform = constriction.stream.model.Uniform

MAX_SYMBOL = 1 << 30
"""Largest absolute value that can be coded."""
NO_SYMBOL = -(1 << 31)
"""What stands, among symbols on their way to the host, for a value that cannot be coded."""

ESCAPE_BITS = 31
"""An excess + 1 lies below 2^ESCAPE_BITS."""


def _length_frequencies() -> np.ndarray:
    """Of the numbers of bits 0..ESCAPE_BITS - 1: each is a factor of sqrt(2) rarer than the one before it."""
    weights = [math.isqrt(1 << 2 * ESCAPE_BITS - n) for n in range(ESCAPE_BITS)]
    frequencies = np.array([1 + (TOTAL - ESCAPE_BITS) * weight // sum(weights) for weight in weights])
    frequencies[0] += TOTAL - frequencies.sum()
    return frequencies


LENGTH_FREQUENCIES = _length_frequencies()
_LOW = 16
_SIGN, _LENGTH = Uniform(2), coder_model(LENGTH_FREQUENCIES)
_DIGITS = {bits: Uniform(1 << bits) for bits in range(1, _LOW + 1)}

Run = tuple[np.ndarray, object]
"""Table symbols (int32) and the coder's model that all of them share."""


class StreamError(InputError):
    """A stream that cannot be decoded, or symbols that cannot be written."""


class Groups(NamedTuple):
    """Which symbols of a call belong to which table.

    Attributes:
        order: a stable order that sorts the symbols by table, int64 (n,); None where they are sorted.
        sizes: symbols of each table, int64 (tables,).
    """
    order: np.ndarray | None
    sizes: np.ndarray

    @classmethod
    def of_scales(cls, index: np.ndarray, tables: TableSet, name: str) -> "Groups":
        """By what the distribution says, uint8 (n,).

        Raises:
            StreamError: a scale is NaN.
        """
        sizes = np.bincount(index, minlength=len(tables.models))
        if len(sizes) > NO_SCALE:
            raise StreamError(f"{name}: a scale of the probability model is NaN; the weights or the stream are "
                              "damaged, use other weights or a fresh copy of the stream")
        return cls(np.argsort(index, kind="stable"), sizes)

    @classmethod
    def of_channels(cls, count: int, size: tuple[int, int]) -> "Groups":
        """Of a hyper latent in raster order: each channel has its table."""
        return cls(None, np.full(count, size[0] * size[1]))

    def spread(self, values: np.ndarray) -> np.ndarray:
        """A value per table as one per sorted symbol, int32 (n,)."""
        return np.repeat(values.astype(np.int32), self.sizes)


def _checksum(symbols: np.ndarray, start: int) -> int:
    return zlib.crc32(symbols.astype("<i4", copy=False), start)


class _Call(NamedTuple):
    """What the encoder has to code: `index` is None for a hyper latent, `groups` for a latent with scales."""
    name: str
    tables: TableSet
    symbols: Tensor
    index: Tensor | None
    groups: Groups | None


class StreamEncoder:
    """Rounds and writes. Returns what `Estimator` returns.

    Args:
        tables: of all latents. A distribution that those of its latent were not made from is an `InputError`.

    Attributes:
        checksum: CRC-32 of all symbols in coding order, as little-endian int32; known after `payload`.
        runs: name and runs of each call, in decoding order; likewise.
        bits: of the payload, by name; likewise.
    """

    def __init__(self, tables: Tables):
        self.tables = tables
        self.checksum = 0
        self.runs: list[tuple[str, list[Run]]] = []
        self.bits: dict[str, int] = {}
        self._calls: list[_Call] = []
        self._download = Download()

    def code(self, residual: Tensor, scale: Tensor, distribution: Conditional, name: str) -> Tensor:
        assert scale.ndim == 2 and scale.shape[0] == 1, "streams hold one sample"
        with record_function("entropy"):
            symbols = residual.round() + 0.0                        # no -0.0, which a decoder could not know
            tables = self.tables.of_latent(name, distribution)
            index = self._download.start(distribution.index(scale[0]))
            self._keep(name, tables, symbols, index, None)
        return symbols

    def code_z(self, z: Tensor, prior: Factorized, size: tuple[int, int], name: str) -> Tensor:
        assert z.shape == (1, prior.channels, *size), "streams hold one sample"
        with record_function("entropy"):
            symbols = (z.round() + 0.0).contiguous()
            tables = self.tables.of_latent(name, prior)
            self._keep(name, tables, symbols, None, Groups.of_channels(prior.channels, size))
        return symbols

    def _keep(self, name: str, tables: TableSet, symbols: Tensor, index: Tensor | None, groups: Groups | None) -> None:
        wide = symbols.flatten().to(torch.promote_types(symbols.dtype, torch.float32))
        integers = torch.where(wide.abs() <= MAX_SYMBOL, wide, NO_SYMBOL).to(torch.int32)       # NaN fails too
        self._calls.append(_Call(name, tables, self._download.start(integers), index, groups))

    def payload(self) -> bytes:
        """The bytes of all symbols: to be called once, after the last one, on whatever thread.

        Raises:
            StreamError: a symbol cannot be coded.
        """
        with record_function("transfer"):
            self._download.wait()
        with record_function("entropy"):
            for call in self._calls:
                self._add_runs(call)
            self._calls.clear()
            data, sizes = _pack([runs for _, runs in self.runs])
            self.bits = dict.fromkeys((name for name, _ in self.runs), 0)
            for (name, _), size in zip(self.runs, sizes, strict=True):
                self.bits[name] += size
            return data

    def _add_runs(self, call: _Call) -> None:
        tables, values = call.tables, call.symbols.numpy()
        if values.min(initial=0) == NO_SYMBOL:
            raise StreamError(f"{call.name}: a latent value is not finite or beyond +-{MAX_SYMBOL} and cannot be "
                              "coded; the weights do not suit this video, use other weights")
        self.checksum = _checksum(values, self.checksum)
        groups = call.groups or Groups.of_scales(call.index.numpy(), tables, call.name)
        if groups.order is not None:
            values = values.take(groups.order)
        inside = values - groups.spread(tables.first - 1)           # 1..count in the table
        count = groups.spread(tables.count)
        escaped = np.flatnonzero((inside - 1).view(np.uint32) >= count.view(np.uint32))
        beyond, limit = inside[escaped].astype(np.int64), count[escaped]
        inside[escaped] = 0
        runs, ends = [], groups.sizes.cumsum()
        self.runs.append((call.name, runs))
        for table in groups.sizes.nonzero()[0].tolist():
            runs.append((inside[ends[table] - groups.sizes[table]:ends[table]], tables.models[table]))
        if len(escaped):
            runs += _escape_runs(np.where(beyond < 1, -beyond, beyond - limit - 1), beyond < 1)


def _pack(calls: list[list[Run]]) -> tuple[bytes, list[int]]:
    """The code of all calls, and the bits of each."""
    coder, sizes = Ans(), []
    for runs in reversed(calls):                                    # ANS is a stack: last in, first out
        before = coder.num_valid_bits()
        for symbols, model in reversed(runs):
            coder.encode_reverse(symbols, model)
        sizes.append(coder.num_valid_bits() - before)
    return coder.get_compressed().astype("<u4").tobytes().rstrip(b"\0"), sizes[::-1]


def _escape_runs(excess: np.ndarray, negative: np.ndarray) -> list[Run]:
    """The runs of escaped values: signs, lengths, then low and high digits of those that have them."""
    lengths = np.frexp((excess + 1).astype(np.float64))[1] - 1      # exact: integers below 2^53
    digits = excess + 1 - (np.int64(1) << lengths)
    runs = [(negative.astype(np.int32), _SIGN), (lengths.astype(np.int32), _LENGTH)]
    low, high = digits & ((1 << _LOW) - 1), digits >> _LOW
    for part, sizes in ((low, np.minimum(lengths, _LOW)), (high, lengths - _LOW)):
        for bits in np.unique(sizes[sizes > 0]).tolist():
            runs.append((part[sizes == bits].astype(np.int32), _DIGITS[bits]))
    return runs


class StreamDecoder:
    """Reads what a `StreamEncoder` wrote; the residual is ignored.

    Args:
        tables: of all latents; a distribution that those of its latent were not made from is an `InputError`.
        payload: of a frame. Any bytes decode to some symbols, at most 2^31 in size, in time and memory that follow
            from the shapes asked for; `finish` and `checksum` tell whether they are right.

    Attributes:
        checksum: CRC-32 of the symbols so far, as little-endian int32.
        bits: of the payload, by name, so far.
    """

    def __init__(self, tables: Tables, payload: bytes):
        self.tables = tables
        self.checksum = 0
        self.bits: dict[str, int] = {}
        self._coder = _open(payload)

    def code(self, residual: None, scale: Tensor, distribution: Conditional, name: str) -> Tensor:
        assert scale.ndim == 2 and scale.shape[0] == 1, "streams hold one sample"
        with record_function("entropy"):
            tables = self.tables.of_latent(name, distribution)
            index = distribution.index(scale[0])
        with record_function("transfer"):
            index = index.cpu().numpy()
        with record_function("entropy"):
            values = self._read(name, tables, Groups.of_scales(index, tables, name))
        with record_function("transfer"):
            return upload(values, scale).view_as(scale)

    def code_z(self, z: None, prior: Factorized, size: tuple[int, int], name: str) -> Tensor:
        with record_function("entropy"):
            tables = self.tables.of_latent(name, prior)
            values = self._read(name, tables, Groups.of_channels(prior.channels, size))
        with record_function("transfer"):
            return upload(values, prior.f1.h).view(1, prior.channels, *size)

    def finish(self) -> None:
        """After the last symbol nothing may be left.

        Raises:
            StreamError: there is.
        """
        if not self._coder.is_empty():
            raise StreamError("its code holds more than its symbols")

    def _read(self, name: str, tables: TableSet, groups: Groups) -> np.ndarray:
        """int32 (n,), in the order of the call."""
        coder, sizes = self._coder, groups.sizes
        before = coder.num_valid_bits()
        inside = [coder.decode(tables.models[table], sizes[table]) for table in sizes.nonzero()[0].tolist()]
        inside = np.concatenate([np.empty(0, np.int32), *inside])
        escaped = np.flatnonzero(inside == 0)
        inside += groups.spread(tables.first - 1)
        if len(escaped):
            excess, negative = _read_escapes(coder, len(escaped))
            start, count = inside[escaped].astype(np.int64), groups.spread(tables.count)[escaped]
            inside[escaped] = np.where(negative, start - excess, start + count + 1 + excess)
        if groups.order is None:
            values = inside
        else:
            values = np.empty_like(inside)
            values[groups.order] = inside
        self.bits[name] = self.bits.get(name, 0) + before - coder.num_valid_bits()
        self.checksum = _checksum(values, self.checksum)
        return values


def _open(payload: bytes) -> Ans:
    payload = payload.rstrip(b"\0")
    return Ans(np.frombuffer(payload + bytes(-len(payload) % 4), "<u4").astype(np.uint32))


def _read_escapes(coder: Ans, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Excesses and whether they are negative."""
    negative = coder.decode(_SIGN, count).astype(bool)
    lengths = coder.decode(_LENGTH, count).astype(np.int64)
    digits = np.int64(1) << lengths
    for shift, sizes in ((0, np.minimum(lengths, _LOW)), (_LOW, lengths - _LOW)):
        for bits in np.unique(sizes[sizes > 0]).tolist():
            where = sizes == bits
            digits[where] += coder.decode(_DIGITS[bits], int(where.sum())).astype(np.int64) << shift
    return digits - 1, negative
