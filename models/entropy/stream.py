"""Coder objects that write symbols to bytes and read them back (interface: models/entropy/coder.py).

Every name (iy, iz, my, mz, ry, rz) of a frame has a section of its own, an ANS code over the integer tables. Within
one call, symbols are grouped by table, in stable order; then come the values that escaped their tables, as

    sign (1 bit), number of bits n (5 bits), the lowest n bits of the excess + 1

where the excess counts from the table's end outwards. A section is little-endian 32-bit words without the zero
bytes at its end. One frame of one sample (B = 1) is coded per object.
"""
import zlib
from collections.abc import Mapping

import constriction
import numpy as np
import torch
from torch import Tensor

from models.entropy.likelihood import FactorizedPrior, GaussianModel, NormalModel
from models.entropy.tables import Tables, TableSet
from util.errors import InputError

Ans = constriction.stream.stack.AnsCoder
Uniform = constriction.stream.model.Uniform

MAX_SYMBOL = 1 << 30
"""Largest absolute value that can be coded."""

ESCAPE_BITS = 31
"""An excess + 1 lies below 2^ESCAPE_BITS."""
_LOW = 16
_SIGN, _LENGTH = Uniform(2), Uniform(32)
_DIGITS = {bits: Uniform(1 << bits) for bits in range(1, _LOW + 1)}

Run = tuple[np.ndarray, object]
"""Table symbols (int32) and the coder's model that all of them share."""


class StreamError(InputError):
    """A stream that cannot be decoded, or symbols that cannot be written."""


def _in_groups(groups: np.ndarray) -> tuple[np.ndarray, list[tuple[int, slice]]]:
    """A stable order that sorts the groups, and where each group present lies in it."""
    order = np.argsort(groups, kind="stable")
    ends = np.cumsum(np.bincount(groups))
    starts = np.concatenate(([0], ends[:-1]))
    return order, [(g, slice(starts[g], ends[g])) for g in np.flatnonzero(ends > starts).tolist()]


def _channels(count: int, size: tuple[int, int]) -> np.ndarray:
    """The table of each symbol of z, in raster order."""
    return np.repeat(np.arange(count, dtype=np.uint16), size[0] * size[1])


class _Checked:
    """What writer and reader have in common: the tables, and a checksum over symbols in coding order."""

    def __init__(self, tables: Tables):
        self.tables = tables
        self.checksum = 0
        """CRC-32 of the symbols so far, as little-endian int32."""

    def _scale_groups(self, scale: Tensor, name: str) -> np.ndarray:
        assert scale.ndim == 2 and scale.shape[0] == 1, "streams hold one sample"
        try:
            return self.tables.scale_index(scale[0]).to(torch.uint8).cpu().numpy()
        except InputError as error:
            raise StreamError(f"{name}: {error}") from None

    def _check(self, symbols: np.ndarray) -> None:
        self.checksum = zlib.crc32(symbols.astype("<i4").tobytes(), self.checksum)


class StreamEncoder(_Checked):
    """Rounds and writes. Returns what `Estimator` returns.

    Attributes:
        runs: by name, what has been coded, in decoding order.
    """

    def __init__(self, tables: Tables):
        super().__init__(tables)
        self.runs: dict[str, list[Run]] = {}

    def code(self, residual: Tensor, scale: Tensor, model: GaussianModel | NormalModel, name: str) -> Tensor:
        symbols = residual.round() + 0.0                            # no -0.0, which a decoder could not know
        self._write(name, self.tables.y, self._scale_groups(scale, name), symbols)
        return symbols

    def code_z(self, z: Tensor, prior: FactorizedPrior, size: tuple[int, int], name: str) -> Tensor:
        assert z.shape == (1, prior.channels, *size), "streams hold one sample"
        symbols = (z.round() + 0.0).contiguous()
        self._write(name, self.tables.z[name], _channels(prior.channels, size), symbols)
        return symbols

    def sections(self) -> dict[str, bytes]:
        """The bytes of each name, after the last symbol."""
        result = {}
        for name, runs in self.runs.items():
            coder = Ans()
            for symbols, model in reversed(runs):                   # ANS is a stack: last in, first out
                coder.encode_reverse(symbols, model)
            result[name] = coder.get_compressed().astype("<u4").tobytes().rstrip(b"\0")
        return result

    def _write(self, name: str, tables: TableSet, groups: np.ndarray, symbols: Tensor) -> None:
        if not bool((symbols.abs() <= MAX_SYMBOL).all()):           # NaN fails too
            raise StreamError(f"{name}: a latent value is not finite or beyond +-{MAX_SYMBOL} and cannot be coded; "
                              "the weights do not suit this video, use other weights")
        values = symbols.flatten().cpu().numpy().astype(np.int32)
        self._check(values)
        order, slices = _in_groups(groups)
        values, escapes = values[order], []
        runs = self.runs.setdefault(name, [])
        for group, where in slices:
            count = int(tables.count[group])
            inside = values[where] - np.int32(tables.first[group] - 1)              # 1..count in the table
            escaped = (inside < 1) | (inside > count)
            if escaped.any():
                beyond = inside[escaped].astype(np.int64)
                escapes.append((np.where(beyond < 1, -beyond, beyond - count - 1), beyond < 1))
                inside[escaped] = 0
            runs.append((inside, tables.models[group]))
        if escapes:
            runs += _escape_runs(*map(np.concatenate, zip(*escapes)))


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


class StreamDecoder(_Checked):
    """Reads what a `StreamEncoder` wrote; the residual is ignored.

    Args:
        sections: bytes by name. Any bytes decode to some symbols, at most MAX_SYMBOL or so in size, in time and
            memory that follow from the shapes asked for; `finish` and `checksum` tell whether they are right.
    """

    def __init__(self, tables: Tables, sections: Mapping[str, bytes]):
        super().__init__(tables)
        self._coders = {name: _open(section) for name, section in sections.items()}

    def code(self, residual: None, scale: Tensor, model: GaussianModel | NormalModel, name: str) -> Tensor:
        values = self._read(name, self.tables.y, self._scale_groups(scale, name))
        return torch.from_numpy(values).to(scale.device, scale.dtype).view_as(scale)

    def code_z(self, z: None, prior: FactorizedPrior, size: tuple[int, int], name: str) -> Tensor:
        values = self._read(name, self.tables.z[name], _channels(prior.channels, size))
        like = prior.f1.h
        return torch.from_numpy(values).to(like.device, like.dtype).view(1, prior.channels, *size)

    def finish(self) -> None:
        """After the last symbol nothing may be left.

        Raises:
            StreamError: there is.
        """
        for name, coder in self._coders.items():
            if not coder.is_empty():
                raise StreamError(f"section {name} holds more than its symbols")

    def _read(self, name: str, tables: TableSet, groups: np.ndarray) -> np.ndarray:
        coder = self._coders[name]
        order, slices = _in_groups(groups)
        values, escapes = np.empty(len(order), np.int64), []
        for group, where in slices:
            inside = coder.decode(tables.models[group], where.stop - where.start)
            first, count = int(tables.first[group]), int(tables.count[group])
            values[where] = inside + np.int32(first - 1)
            escaped = np.flatnonzero(inside == 0)
            if len(escaped):
                escapes.append((escaped + where.start, np.full(len(escaped), first), np.full(len(escaped), count)))
        if escapes:
            where, first, count = map(np.concatenate, zip(*escapes))
            excess, negative = _read_escapes(coder, len(where))
            values[where] = np.where(negative, first - 1 - excess, first + count + excess)
        in_place = np.empty_like(values)
        in_place[order] = values
        self._check(in_place)
        return in_place


def _open(section: bytes) -> Ans:
    section = section.rstrip(b"\0")
    return Ans(np.frombuffer(section + bytes(-len(section) % 4), "<u4").astype(np.uint32))


def _read_escapes(coder: Ans, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Excesses and whether they are negative."""
    negative = coder.decode(_SIGN, count).astype(bool)
    lengths = np.minimum(coder.decode(_LENGTH, count).astype(np.int64), ESCAPE_BITS - 1)
    digits = np.int64(1) << lengths
    for shift, sizes in ((0, np.minimum(lengths, _LOW)), (_LOW, lengths - _LOW)):
        for bits in np.unique(sizes[sizes > 0]).tolist():
            where = sizes == bits
            digits[where] += coder.decode(_DIGITS[bits], int(where.sum())).astype(np.int64) << shift
    return digits - 1, negative
