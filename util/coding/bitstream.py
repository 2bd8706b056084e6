"""The container of a stream, version 3 (docs/bitstream.md): headers, packets, checksums; reader.py reads it.

    stream = stream header, frame packets, end marker

The fields of both headers are declared here, once; fields.py writes and reads them.
"""
import binascii
import struct
import zlib
from dataclasses import dataclass
from fractions import Fraction

from models.codec import FrameHeader
from util.coding.fields import Bytes, Choice, Field, Flag, Malformed, Number, Ratio, Signed, Text, Word, pack, varint
from util.errors import InputError
from util.video import RGB, UNSPECIFIED, ColorTags, VideoFacts

MAGIC = b"HyT"
VERSION = 3
SYNC = b"\xf5\x9c"
END_FLAG = 0x80
ARITHMETICS = {"float32": 1, "float64": 2, "bfloat16": 3, "float16": 4}
"""Number formats of the networks."""
DEVICES = {"other": 0, "cpu": 1, "cuda": 2}
MAX_SIDE = 1 << 20
MAX_ALIGN = 4096
FINGERPRINT_BYTES = 8
NAME = Text(64)

HEADER_FIELDS = (
    Field("codec", NAME, "kind of the networks, as in `--list_models`"),
    Field("model", NAME, "what `--model` selected", optional=True, default=""),
    Field("weights", NAME, "name of the weight file, where it is not the model's own", optional=True, default=""),
    Field("width", Number(1, MAX_SIDE), "of the frames, in pixels"),
    Field("height", Number(1, MAX_SIDE), "likewise"),
    Field("align", Number(1, MAX_ALIGN), "frames are padded right and bottom to multiples of it"),
    Field("arithmetic", Choice(ARITHMETICS), "number format of the networks"),
    Field("device", Choice(DEVICES), "of the encoder"),
    Field("threads", Number(1, 4096), "CPU threads of the encoder", optional=True),
    Field("processor", NAME, "instruction set of the encoder's CPU, or name of its GPU", optional=True, default=""),
    Field("gop", Number(1), "frames from one I-frame to the next, for the record"),
    Field("qp", Number(0, 255), "rate index of P-frames that have none of their own"),
    Field("intra_qp", Number(0, 255), "rate index of I-frames that have none of their own"),
    Field("rate", Ratio(), "frames per second", optional=True),
    Field("time_base", Ratio(), "seconds per unit of time stamps", optional=True),
    Field("start", Signed(), "time stamp of frame 0", optional=True, default=0),
    Field("matrix", Number(0, 255), "colour matrix of the source (H.273, table 4); 0: RGB", optional=True, default=RGB),
    Field("range", Choice({"limited": 1, "full": 2}), "of the source", optional=True, default="full"),
    Field("primaries", Number(0, 255), "of the source (H.273, table 2)", optional=True, default=UNSPECIFIED),
    Field("transfer", Number(0, 255), "of the source (H.273, table 3)", optional=True, default=UNSPECIFIED),
    Field("assumed", Flag(), "the source did not tell its colours", optional=True, default=False),
    Field("pixel_aspect", Ratio(), "width over height of a pixel", optional=True),
    Field("fingerprint", Bytes(FINGERPRINT_BYTES), "of the weights, by their released names"),
    Field("tables", Word(4), "checksum of the probability tables"),
)
"""Of the stream header, between the version and its checksum."""

INTRA, FRAME_TYPE, REFRESH, OWN_QP, OWN_STAMP = 1, 6, 8, 16, 32
"""Bits of a frame's flags: I-frame, type of a P-frame, forgets (`FrameHeader.refresh`), QP and time stamp follow."""
FRAME_QP, FRAME_NUMBER, FRAME_STAMP = Number(0, 255), Number(), Signed()
CHECK = Word(2)
"""Of a frame's checksums."""


@dataclass(frozen=True, kw_only=True)
class StreamHeader:
    """What holds for the whole stream: HEADER_FIELDS say what each attribute means.

    Raises:
        InputError: a value that the format cannot hold.
    """
    codec: str
    model: str = ""
    weights: str = ""
    width: int
    height: int
    align: int = 16
    arithmetic: str = "float32"
    device: str = "other"
    threads: int | None = None
    processor: str = ""
    gop: int
    qp: int
    intra_qp: int
    rate: Fraction | None = None
    time_base: Fraction | None = None
    start: int = 0
    matrix: int = RGB
    range: str = "full"
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    assumed: bool = False
    pixel_aspect: Fraction | None = None
    fingerprint: bytes
    tables: int

    def __post_init__(self):
        try:
            pack(HEADER_FIELDS, self)
        except Malformed as error:
            raise InputError(f"a stream cannot hold this: {error}") from None

    @property
    def aligned(self) -> tuple[int, int]:
        """Height and width of the padded frame."""
        return self.height + -self.height % self.align, self.width + -self.width % self.align

    @property
    def portable(self) -> bool:
        return self.arithmetic == "float64"

    @property
    def facts(self) -> VideoFacts:
        """What the source was besides its pixels."""
        color = ColorTags(self.matrix, self.range, self.primaries, self.transfer, self.assumed)
        return VideoFacts(self.rate, color, self.time_base, self.start, self.pixel_aspect)

    @staticmethod
    def of_facts(facts: VideoFacts) -> dict:
        """The attributes that hold them."""
        return {"rate": facts.rate, "time_base": facts.time_base, "start": facts.start,
                "pixel_aspect": facts.pixel_aspect, "matrix": facts.color.matrix, "range": facts.color.range,
                "primaries": facts.color.primaries, "transfer": facts.color.transfer, "assumed": facts.color.assumed}

    def usual_qp(self, intra: bool) -> int:
        """Of frames that have none of their own."""
        return self.intra_qp if intra else self.qp

    def pack(self) -> bytes:
        data = MAGIC + bytes((VERSION,)) + pack(HEADER_FIELDS, self)
        return data + struct.pack("<I", zlib.crc32(data))


@dataclass(frozen=True, kw_only=True)
class Packet:
    """One coded frame.

    Attributes:
        number: of the frame, from 0.
        intra, qp, frame_type, refresh: as in `FrameHeader`.
        delay: its time stamp beyond what the constant rate would make it (`VideoFacts.expected`).
        payload: the code of all its latents.
        symbols: checksum of the decoded symbols, 16 bits.
        pixels: checksum of the decoded frame, rounded to 8 bits (checksum.py), 16 bits.
    """
    number: int
    intra: bool
    qp: int
    frame_type: int = 0
    refresh: bool = False
    delay: int = 0
    payload: bytes
    symbols: int
    pixels: int

    def header(self, size: tuple[int, int]) -> FrameHeader:
        return FrameHeader(self.intra, self.qp, size, self.frame_type, self.refresh)

    def pack(self, stream: StreamHeader) -> bytes:
        """Its bytes in a stream."""
        own_qp = self.qp != stream.usual_qp(self.intra)
        flags = (INTRA * self.intra | self.frame_type << 1 | REFRESH * self.refresh | OWN_QP * own_qp
                 | OWN_STAMP * (self.delay != 0))
        data = b"".join((SYNC, bytes((flags,)), FRAME_NUMBER.pack(self.number),
                         FRAME_QP.pack(self.qp) if own_qp else b"", FRAME_STAMP.pack(self.delay) if self.delay else b"",
                         varint(len(self.payload)), CHECK.pack(self.symbols), CHECK.pack(self.pixels), self.payload))
        return data + check_bytes(data)


def pack_end(frames: int) -> bytes:
    """The end marker of a stream of so many frames."""
    data = SYNC + bytes((END_FLAG,)) + varint(frames)
    return data + check_bytes(data)


def check_bytes(data: bytes) -> bytes:
    """CRC-16 (CCITT, as `binascii.crc_hqx`): what a packet ends with."""
    return CHECK.pack(binascii.crc_hqx(data, 0xFFFF))


def short(checksum: int) -> int:
    """A CRC-32 folded to 16 bits."""
    return checksum >> 16 ^ checksum & 0xFFFF
