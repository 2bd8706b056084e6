"""The container of a stream, version 2 (docs/bitstream.md): headers, packets, checksums; reader.py reads it.

    stream = stream header, frame packets, end marker

All integers are little-endian; `varint` is LEB128, at most 5 bytes.
"""
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from models.codec import FrameHeader
from util.errors import InputError

MAGIC = b"HyT"
VERSION = 2
SYNC = b"\xf5\x9c\xa6"
END_FLAG = 0x80
ARITHMETICS = {"float32": 1, "float64": 2, "bfloat16": 3, "float16": 4}
"""Number formats of the networks."""
DEVICES = {"other": 0, "cpu": 1, "cuda": 2}
ALIGN_UNIT = 16
MAX_SIDE = 1 << 20
MAX_COLOR = 32
FINGERPRINT_BYTES = 8


@dataclass(frozen=True, kw_only=True)
class StreamHeader:
    """What holds for the whole stream.

    Attributes:
        width, height: of the frames, before any padding.
        align: frames are padded to multiples of it; a multiple of 16.
        arithmetic: number format of the networks; float64 streams are portable.
        device: kind of device of the encoder, for the record.
        rate: frames per second, or None when unknown.
        color: how the RGB came about ("BT709", ...), at most 32 ASCII characters, for the record.
        gop, qp, intra_qp: of the plan, for the record; each packet has its own type and QP.
        fingerprint: of weights and configuration.
        tables: checksum of the probability tables.

    Raises:
        InputError: a value that the format cannot hold.
    """
    width: int
    height: int
    align: int = ALIGN_UNIT
    arithmetic: str = "float32"
    device: str = "other"
    rate: Fraction | None = None
    color: str = ""
    gop: int
    qp: int
    intra_qp: int
    fingerprint: bytes
    tables: int

    def __post_init__(self):
        for name, value in (("width", self.width), ("height", self.height)):
            if not 1 <= value <= MAX_SIDE:
                raise InputError(f"frame {name} {value} is outside 1..{MAX_SIDE}; give frames of another size")
        if not 1 <= self.align <= 255 * ALIGN_UNIT or self.align % ALIGN_UNIT:
            raise InputError(f"--align_factor {self.align} must be a multiple of {ALIGN_UNIT}, at most "
                             f"{255 * ALIGN_UNIT}")
        if self.rate is not None and not (self.rate > 0 and max(self.rate.as_integer_ratio()) < 1 << 32):
            raise InputError(f"frame rate {self.rate} must be positive, with terms below 2^32; give a simpler fraction")
        if len(self.color) > MAX_COLOR or not self.color.isascii():
            raise InputError(f"color {self.color!r} must be at most {MAX_COLOR} ASCII characters")

    @property
    def aligned(self) -> tuple[int, int]:
        """Height and width of the padded frame."""
        return self.height + -self.height % self.align, self.width + -self.width % self.align

    @property
    def portable(self) -> bool:
        return self.arithmetic == "float64"

    def pack(self) -> bytes:
        color = self.color.encode("ascii")
        rate = (self.rate.numerator, self.rate.denominator) if self.rate else (0,)
        data = b"".join((
            MAGIC, bytes((VERSION, ARITHMETICS[self.arithmetic] | DEVICES[self.device] << 4)),
            varint(self.width), varint(self.height), bytes((self.align // ALIGN_UNIT,)), *map(varint, rate),
            varint(self.gop), bytes((self.qp, self.intra_qp, len(color))), color,
            self.fingerprint, struct.pack("<I", self.tables)))
        return data + crc_bytes(data)


@dataclass(frozen=True, kw_only=True)
class Packet:
    """One coded frame.

    Attributes:
        number: of the frame, from 0.
        intra, qp, frame_type, refresh: as in `FrameHeader`.
        sections: bytes by name, in coding order.
        symbols: checksum of the decoded symbols.
        pixels: checksum of the decoded frame, rounded to 8 bits (checksum.py).
    """
    number: int
    intra: bool
    qp: int
    frame_type: int = 0
    refresh: bool = False
    sections: Mapping[str, bytes]
    symbols: int
    pixels: int

    def header(self, size: tuple[int, int]) -> FrameHeader:
        return FrameHeader(self.intra, self.qp, size, self.frame_type, self.refresh)

    def size(self) -> int:
        """Bytes of the whole packet."""
        return len(SYNC) + 2 + len(varint(self.number)) + 12 + sum(self.section_sizes().values())

    def section_sizes(self) -> dict[str, int]:
        """Bytes of each section with its length field."""
        return {name: len(data) + len(varint(len(data))) for name, data in self.sections.items()}

    def pack(self) -> bytes:
        flags = self.intra | self.frame_type << 1 | self.refresh << 3
        data = b"".join((SYNC, bytes((flags, self.qp)), varint(self.number),
                         *(varint(len(section)) for section in self.sections.values()),
                         struct.pack("<II", self.symbols, self.pixels),
                         *self.sections.values()))
        return data + crc_bytes(data)


def pack_end(frames: int) -> bytes:
    """The end marker of a stream of so many frames."""
    data = SYNC + bytes((END_FLAG,)) + varint(frames)
    return data + crc_bytes(data)


def varint(value: int) -> bytes:
    """LEB128: seven bits per byte, the lowest first."""
    assert 0 <= value < 1 << 32
    result = bytearray()
    while value >= 0x80:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*result, value))


def crc_bytes(data: bytes) -> bytes:
    """CRC-32, four bytes."""
    return struct.pack("<I", zlib.crc32(data))
