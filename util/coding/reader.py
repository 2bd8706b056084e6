"""Reading a container (bitstream.py), in order, from anything that has `read`.

Memory never exceeds what the declared frame size allows and the stream really holds.
"""
import struct
import zlib
from collections.abc import Callable
from typing import BinaryIO

from models.entropy.stream import StreamError
from util.coding.bitstream import (
    CHECK,
    END_FLAG,
    FRAME_NUMBER,
    FRAME_QP,
    FRAME_STAMP,
    FRAME_TYPE,
    HEADER_FIELDS,
    INTRA,
    MAGIC,
    OWN_QP,
    OWN_STAMP,
    REFRESH,
    SYNC,
    VERSION,
    Packet,
    StreamHeader,
    check_bytes,
)
from util.coding.fields import LIMIT, Malformed, read

MAX_ATTEMPTS = 1000
"""Damaged places after which even a tolerant reader gives up."""

_CHUNK, _SCAN = 1 << 20, 1 << 12

Bounds = Callable[[bool], tuple[int, int]]
"""Whether intra -> the least and the most bytes that the payload of a frame can have."""


class Damaged(StreamError):
    """Something that is no packet stands where one should; `StreamReader.resync` finds the next."""


class Truncated(StreamError):
    """The stream ends too early."""


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
                if value >= LIMIT or (shift and not byte):
                    break
                return value
        raise Damaged("a number in the stream is malformed")

    def check(self) -> None:
        """The checksum of everything since the mark."""
        if check_bytes(self.taken()) != self.read(CHECK.count):
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
            raise StreamError(f"stream version {version} is not {VERSION}, the one that this program reads; "
                              + ("decode it with the program version that wrote it, or compress its source again"
                                 if version < VERSION else "use a newer program version"))
        try:
            values = read(HEADER_FIELDS, given)
            checksum = zlib.crc32(given.taken())
        except (Malformed, Damaged) as error:
            raise StreamError(f"the header of the stream cannot be read ({error}); it is damaged, get a fresh copy, or "
                              "of a newer program version") from None
        if struct.pack("<I", checksum) != given.read(4):
            raise StreamError("the header of the stream is damaged (wrong checksum); get a fresh copy")
        return StreamHeader(**values)

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
        try:
            if flags == END_FLAG:
                count = FRAME_NUMBER.read(given)
                given.check()
                return count
            intra, frame_type = bool(flags & INTRA), (flags & FRAME_TYPE) >> 1
            if flags >= OWN_STAMP << 1 or (intra and flags & (FRAME_TYPE | REFRESH)):
                raise Damaged(f"frame flags {flags:#04x} are not allowed")
            return self._read_packet(intra, frame_type, flags, bounds(intra))
        except Malformed as error:
            raise Damaged(f"a field of the frame {error}") from None

    def _read_packet(self, intra: bool, frame_type: int, flags: int, bounds: tuple[int, int]) -> Packet:
        given = self._input
        number = FRAME_NUMBER.read(given)
        qp = FRAME_QP.read(given) if flags & OWN_QP else self.header.usual_qp(intra)
        delay = FRAME_STAMP.read(given) if flags & OWN_STAMP else 0
        length = given.varint()
        least, most = bounds
        if not least <= length <= most:
            raise Damaged(f"a payload of {length} bytes is outside {least}..{most}, what a frame of this size can have")
        symbols, pixels = CHECK.read(given), CHECK.read(given)
        payload = given.read(length)
        given.check()
        return Packet(number=number, intra=intra, qp=qp, frame_type=frame_type, refresh=bool(flags & REFRESH),
                      delay=delay, payload=payload, symbols=symbols, pixels=pixels)

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
