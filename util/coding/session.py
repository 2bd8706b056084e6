"""Coding one sequence frame by frame: source pixels to packets, packets to frames, each with its checks."""
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.profiler import record_function

from models.codec import CodedFrame, FrameHeader, Memory, VideoCodec
from models.entropy.distributions import Factorized
from models.entropy.stream import StreamDecoder, StreamEncoder, StreamError
from models.entropy.tables import Tables
from models.entropy.transfer import Download, to_device
from models.layers.functional import crop
from util.arithmetic import Arithmetic
from util.coding.bitstream import Packet, StreamHeader, short
from util.coding.checksum import PixelChecksum
from util.coding.fields import varint
from util.coding.machine import Machine, followed_threads, using_threads
from util.errors import InputError

MOST_BYTES_PER_SYMBOL = 8
"""An escaped symbol takes at most 13 + 1 + 17 + 30 bits, any other less."""


@dataclass(frozen=True)
class EncodedPart:
    """A piece of a stream. The stream header and the end marker are parts of their own, without a frame.

    Attributes:
        data: bytes to write.
        number: of the frame, from 0; None without a frame, as is what follows.
        header: what was decided about it.
        frame: what a decoder will see, 1 3 H W in [0, 1], without padding.
        coded: the same at the padded size, with views and memory.
        bits: of its payload with the length field, by name of the latent.
    """
    data: bytes
    number: int | None = None
    header: FrameHeader | None = None
    frame: Tensor | None = None
    coded: CodedFrame | None = None
    bits: Mapping[str, int] | None = None


@dataclass(frozen=True)
class DecodedFrame:
    """A frame out of a stream. Attributes as in `EncodedPart`, and:

    Attributes:
        rounded: the frame at 8 bits, uint8 (3, H, W), on its device.
        stamp: when it is shown, in units of the stream's time base; None without one.
        size: bytes of the frame in the stream, all told.
        matches: whether it equals the encoder's frame at 8 bits; always True for portable streams.
    """
    number: int
    header: FrameHeader
    frame: Tensor
    coded: CodedFrame
    rounded: Tensor
    stamp: int | None
    bits: Mapping[str, int]
    size: int
    matches: bool

    @property
    def pixels(self) -> Tensor:
        """uint8 (3, H, W), on the CPU."""
        return self.rounded.cpu()


def to_pixels(frame: Tensor) -> Tensor:
    """A frame (1, 3, H, W) in [0, 1] rounded to uint8 (3, H, W), on its device."""
    return (frame[0] * 255).round_().to(torch.uint8)


def _checksum_of(examined: Tensor) -> int:
    """The checksum of a frame that is finite."""
    checksum, broken = examined.tolist()
    if broken:
        raise StreamError("the decoded frame is not finite")
    return checksum


class Session:
    """The networks of a stream's arithmetic, and the memory from frame to frame.

    Args:
        network: placed on the device, in the number format of the header.
        tables: probability tables of its priors.
        header: of the stream.
        device: where to compute.
        threads: CPU threads to decode with; None takes those of the encoder, where they can matter.

    Attributes:
        memory: from the last frame; None before the first. It may be put back, to code what followed it again.
    """

    def __init__(self, network: VideoCodec, tables: Tables, header: StreamHeader, device: torch.device,
                 threads: int | None = None):
        self._network, self._tables, self._header = network, tables, header
        self._arithmetic = Arithmetic(device, getattr(torch, header.arithmetic))
        self._threads = threads or followed_threads(header, device)
        self.memory: Memory | None = None
        self._bounds = {intra: self._payload_bounds(intra) for intra in (True, False)}

    def bounds(self, intra: bool) -> tuple[int, int]:
        """The least and the most bytes of the payload of an I- or a P-frame."""
        return self._bounds[intra]

    def has_reference(self) -> bool:
        return self.memory is not None

    def forget(self) -> None:
        """The next frame must be intra."""
        self.memory = None

    def encode(self, pixels: Tensor, number: int, header: FrameHeader, stamp: int | None = None) -> EncodedPart:
        """Code one frame. Arguments and errors as in `start` and in what it returns."""
        return self.start(pixels, number, header, stamp)()

    @torch.inference_mode()
    def start(self, pixels: Tensor, number: int, header: FrameHeader, stamp: int | None = None
              ) -> Callable[[], EncodedPart]:
        """Run the networks on one frame, without waiting for the device.

        Args:
            pixels: uint8 (3, H, W).
            number: of the frame, from 0.
            stamp: when it is shown, in units of the stream's time base.

        Returns:
            The rest, on the host: codes the symbols; to be called once, on whatever thread, also when the next frame
            has been started. It raises a StreamError if the networks gave something that cannot be coded.

        Raises:
            InputError: the model lacks the QP.
        """
        header = self._understood(header)
        coder, download = StreamEncoder(self._tables), Download()
        with record_function("transfer"):
            pixels = to_device(pixels, self._arithmetic.device)
        source = self._network.grid.pad(self._arithmetic.frame(pixels), self._header.align)
        coded = self._network.code_frame(coder, source, self.memory, header)
        frame = self._crop(coded.frame)
        with record_function("checksum"):
            check = download.start(self._examine(frame, to_pixels(frame)))
        self.memory = coded.memory

        def finish() -> EncodedPart:
            # The code may be shorter than its bound by the slack of the coder; zeros at its end mean nothing.
            payload = coder.payload().ljust(self._bounds[header.intra][0], b"\0")
            download.wait()
            packet = Packet(number=number, intra=header.intra, qp=header.qp, frame_type=header.frame_type,
                            refresh=header.refresh, delay=self._delay(number, stamp), payload=payload,
                            symbols=short(coder.checksum), pixels=_checksum_of(check))
            return EncodedPart(packet.pack(self._header), number, header, frame, coded,
                               _whole_bytes(coder.bits, payload))
        return finish

    @torch.inference_mode()
    def decode(self, packet: Packet) -> DecodedFrame:
        """Decode one frame. It must be intra where `has_reference` says no.

        Raises:
            StreamError: anything is wrong; nothing is remembered of the frame then.
        """
        with using_threads(self._threads):
            return self._decode(packet)

    def _decode(self, packet: Packet) -> DecodedFrame:
        header = self._understood(packet.header(self._header.aligned))
        coder = StreamDecoder(self._tables, packet.payload)
        try:
            coded = self._network.code_frame(coder, None, self.memory, header)
            if short(coder.checksum) != packet.symbols:
                raise StreamError("the decoded symbols are not those of the encoder")
            coder.finish()
            frame = self._crop(coded.frame)
            with record_function("checksum"):
                rounded = to_pixels(frame)
                matches = _checksum_of(self._examine(frame, rounded)) == packet.pixels
            if self._header.portable and not matches:
                raise StreamError("the decoded frame is not that of the encoder")
        except StreamError as error:
            raise StreamError(f"{error}; {self.cause()}") from None
        self.memory, facts = coded.memory, self._header.facts
        stamp = None if facts.time_base is None else facts.expected(packet.number) + packet.delay
        return DecodedFrame(packet.number, header, frame, coded, rounded, stamp,
                            _whole_bytes(coder.bits, packet.payload), len(packet.pack(self._header)), matches)

    def _delay(self, number: int, stamp: int | None) -> int:
        """What a time stamp has beyond the one of a constant rate."""
        facts = self._header.facts
        return 0 if stamp is None or facts.time_base is None else stamp - facts.expected(number)

    @cached_property
    def _checksum(self) -> PixelChecksum:
        return PixelChecksum((self._header.height, self._header.width), self._arithmetic.device)

    def _examine(self, frame: Tensor, rounded: Tensor) -> Tensor:
        """The checksum and whether the frame has a NaN, which is all that is not finite in [0, 1]: int64 (2,)."""
        return torch.stack((self._checksum(rounded), frame.amax().isnan().long()))

    def _crop(self, frame: Tensor) -> Tensor:
        return crop(frame, (self._header.height, self._header.width))

    def cause(self) -> str:
        """Why symbols or frames may differ from the encoder's, and what to do."""
        if self._header.portable:
            return "the stream is damaged or was not made by this program; get a fresh copy"
        with using_threads(self._threads):
            differences = Machine.here(self._arithmetic.device).differences(Machine.of(self._header))
        if not differences:
            return ("it was encoded on such a machine as this, with as many threads: the stream is damaged, or another "
                    "version of PyTorch computes differently; decode where it was encoded, or encode with --portable")
        return (f"{' and '.join(differences)}: {self._header.arithmetic} can then come out differently; decode where "
                "it was encoded, or encode with --portable")

    def _understood(self, header: FrameHeader) -> FrameHeader:
        try:
            return self._network.understood(header)
        except ValueError as error:
            raise InputError(str(error)) from None

    def _payload_bounds(self, intra: bool) -> tuple[int, int]:
        least, symbols = 0, 0
        for latent in self._network.latents(intra):
            channels, height, width = latent.shape(self._header.aligned)
            symbols += channels * height * width
            if isinstance(latent.distribution, Factorized):
                # Even if each symbol of z is the likeliest one, a file holds this much, with a little slack.
                least += int(0.9 * height * width * self._tables[latent.name].least_bits().sum() / 8)
        return least, MOST_BYTES_PER_SYMBOL * (symbols + 1)


def _whole_bytes(bits: Mapping[str, int], payload: bytes) -> dict[str, int]:
    """The bits of each latent, such that they add up to the bytes of the payload and its length field."""
    first, rest = next(iter(bits)), 8 * (len(payload) + len(varint(len(payload)))) - sum(bits.values())
    return {**bits, first: bits[first] + rest}
