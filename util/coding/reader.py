"""Reading a container (bitstream.py), in order, from anything that has `read`.

Memory never exceeds what the declared frame size allows and the stream really holds.
"""
import struct
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import BinaryIO

from models.entropy.stream import StreamError
from util.coding.bitstream import (
    ALIGN_UNIT,
    ARITHMETICS,
    DEVICES,
    END_FLAG,
    FINGERPRINT_BYTES,
    MAGIC,
    MAX_COLOR,
    SYNC,
    VERSION,
    Packet,
    StreamHeader,
    crc_bytes,
)
from util.errors import InputError

MAX_ATTEMPTS = 1000
"""Damaged places after which even a tolerant reader gives up."""

_CHUNK, _SCAN = 1 << 20, 1 << 12

Bounds = Callable[[bool], Mapping[str, tuple[int, int]]]
"""Whether intra -> by section name, in coding order, the least and the most bytes it can have."""


class Damaged(StreamError):
    """Something that is no packet stands where one should; `StreamReader.resync` finds the next."""


class Truncated(StreamError):
    """The stream ends too early."""


def _name_of(numbers: Mapping[str, int], number: int) -> str | None:
    return next((name for name, n in numbers.items() if n == number), None)


class _Input:
    """Sequential reading that can go back to a mark, on files that cannot."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._ahead = memoryview(b"")
        self._taken = bytearray()

    def mark(self) -> None:
        self._taken = bytearray()

    def taken(self) -> bytes:
        """Everything read since the mark."""
        return bytes(self._taken)

    def skip_to(self, pattern: bytes) -> None:
        """Go to the first place, at least one byte after the mark, where the pattern starts."""
        window = bytes(self._taken[1:]) + bytes(self._ahead)
        self.mark()
        while (at := window.find(pattern)) < 0:
            part = self._file.read(_SCAN)
            if not part:
                raise Truncated("the stream ends too early")
            window = window[1 - len(pattern):] + part
        self._ahead = memoryview(window[at:])

    def read(self, count: int) -> bytes:
        """Exactly so many bytes; memory grows with what is there, not with what is asked for."""
        start = len(self._taken)
        while (missing := count - (len(self._taken) - start)) > 0:
            if self._ahead:
                part, self._ahead = self._ahead[:missing], self._ahead[missing:]
            else:
                part = self._file.read(min(missing, _CHUNK))
            if not part:
                raise Truncated("the stream ends too early")
            self._taken += part
        return bytes(self._taken[start:])

    def byte(self) -> int:
        return self.read(1)[0]

    def varint(self) -> int:
        value = 0
        for shift in range(0, 35, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >= 1 << 32 or (shift and not byte):
                    break
                return value
        raise Damaged("a number in the stream is malformed")

    def crc(self) -> None:
        """The checksum of everything since the mark."""
        if crc_bytes(self.taken()) != self.read(4):
            raise Damaged("the checksum of the stream's bytes is wrong")


class StreamReader:
    """Reads the header at once, and packets when asked.

    Attributes:
        header: of the stream.

    Raises:
        StreamError: this is no stream of this version, or its header is damaged.
    """

    def __init__(self, file: BinaryIO):
        self._input = _Input(file)
        self._attempts = 0
        try:
            self.header = self._read_header()
        except Truncated:
            raise Truncated("the stream ends within its header; get the whole file") from None

    def _read_header(self) -> StreamHeader:
        given = self._input
        start = given.read(len(MAGIC))
        if start != MAGIC:
            raise StreamError(f"this is no HyTIP stream: it starts with {start!r}, not {MAGIC!r}; give a file that "
                              "--compress wrote")
        version = given.byte()
        if version != VERSION:
            raise StreamError(f"stream version {version} is not {VERSION}, the one this program reads; "
                              "use the program version that wrote it")
        mode = given.byte()
        width, height, align = given.varint(), given.varint(), given.byte() * ALIGN_UNIT
        numerator = given.varint()
        denominator = given.varint() if numerator else 1
        gop, qp, intra_qp = given.varint(), given.byte(), given.byte()
        color = given.read(min(given.byte(), MAX_COLOR + 1)).decode("ascii", "replace")
        fingerprint, tables = given.read(FINGERPRINT_BYTES), struct.unpack("<I", given.read(4))[0]
        try:
            given.crc()
        except Damaged:
            raise StreamError("the header of the stream is damaged (wrong checksum); get a fresh copy") from None
        arithmetic, device = _name_of(ARITHMETICS, mode & 15), _name_of(DEVICES, mode >> 4)
        if arithmetic is None:
            raise StreamError(f"arithmetic mode {mode & 15} is unknown to this program (it knows "
                              f"{', '.join(ARITHMETICS)}); use the program version that wrote the stream")
        if not denominator:
            raise StreamError("the frame rate in the header of the stream has denominator 0; get a fresh copy")
        rate = Fraction(numerator, denominator) if numerator else None
        try:
            return StreamHeader(width=width, height=height, align=align, arithmetic=arithmetic,
                                device=device or "other", rate=rate, color=color, gop=gop, qp=qp, intra_qp=intra_qp,
                                fingerprint=fingerprint, tables=tables)
        except InputError as error:
            raise StreamError(f"the header of the stream cannot be right: {error}") from None

    def next_packet(self, bounds: Bounds) -> Packet | int:
        """The next packet, or the number of frames from the end marker.

        Raises:
            Truncated: the stream ends first.
            Damaged: what follows is no packet, or does not fit the checksum of its bytes.
        """
        given = self._input
        given.mark()
        if given.read(len(SYNC)) != SYNC:
            raise Damaged("no frame starts where one should")
        flags = given.byte()
        if flags == END_FLAG:
            count = given.varint()
            given.crc()
            return count
        if flags >> 4 or flags & 6 == 6 or (flags & 1 and flags != 1):
            raise Damaged(f"frame flags {flags:#04x} are not allowed")
        return self._read_packet(bool(flags & 1), flags >> 1 & 3, bool(flags >> 3), bounds)

    def _read_packet(self, intra: bool, frame_type: int, refresh: bool, bounds: Bounds) -> Packet:
        given = self._input
        qp, number = given.byte(), given.varint()
        allowed = bounds(intra)
        lengths = {name: given.varint() for name in allowed}
        for name, length in lengths.items():
            least, most = allowed[name]
            if not least <= length <= most:
                raise Damaged(f"section {name} of {length} bytes is outside {least}..{most}, "
                                  "what a frame of this size can have")
        symbols, pixels = struct.unpack("<II", given.read(8))
        sections = {name: given.read(length) for name, length in lengths.items()}
        given.crc()
        return Packet(number=number, intra=intra, qp=qp, frame_type=frame_type, refresh=refresh,
                      sections=sections, symbols=symbols, pixels=pixels)

    def resync(self) -> None:
        """After a failed `next_packet`: go to the next place where a packet may start.

        Raises:
            Truncated: there is none.
            StreamError: too many were tried.
        """
        self._attempts += 1
        if self._attempts > MAX_ATTEMPTS:
            raise Truncated(f"the stream is damaged in more than {MAX_ATTEMPTS} places; get a fresh copy")
        self._input.skip_to(SYNC)
