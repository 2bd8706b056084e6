"""Coding one sequence frame by frame: source pixels to packets, packets to frames, each with its checks."""
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from models.codec import CodedFrame, FrameHeader, Memory, VideoCodec
from models.entropy.distributions import Factorized
from models.entropy.stream import Span, StreamDecoder, StreamEncoder, StreamError
from models.entropy.tables import Tables
from models.entropy.transfer import Download, to_device
from models.layers.functional import crop
from util.arithmetic import Arithmetic
from util.coding.bitstream import Packet, StreamHeader
from util.coding.checksum import PixelChecksum
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
        sizes: bytes of each section with its length field, by name of the latent.
    """
    data: bytes
    number: int | None = None
    header: FrameHeader | None = None
    frame: Tensor | None = None
    coded: CodedFrame | None = None
    sizes: Mapping[str, int] | None = None


@dataclass(frozen=True)
class DecodedFrame:
    """A frame out of a stream. Attributes as in `EncodedPart`, and:

    Attributes:
        rounded: the frame at 8 bits, uint8 (3, H, W), on its device.
        size: bytes of the frame in the stream, all told.
        matches: whether it equals the encoder's frame at 8 bits; always True for portable streams.
    """
    number: int
    header: FrameHeader
    frame: Tensor
    coded: CodedFrame
    rounded: Tensor
    sizes: Mapping[str, int]
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
        span: around the work of "entropy", "transfer" and "checksum"; the rest is that of the networks.
    """

    def __init__(self, network: VideoCodec, tables: Tables, header: StreamHeader, device: torch.device,
                 span: Span = nullcontext):
        self._network, self._tables, self._header = network, tables, header
        self._arithmetic = Arithmetic(device, getattr(torch, header.arithmetic))
        self._span = span
        self._memory: Memory | None = None
        self._bounds = {intra: self._section_bounds(intra) for intra in (True, False)}

    def bounds(self, intra: bool) -> Mapping[str, tuple[int, int]]:
        """By name, the least and the most bytes of a section of an I- or a P-frame."""
        return self._bounds[intra]

    def has_reference(self) -> bool:
        return self._memory is not None

    def forget(self) -> None:
        """The next frame must be intra."""
        self._memory = None

    def encode(self, pixels: Tensor, number: int, header: FrameHeader) -> EncodedPart:
        """Code one frame. Arguments and errors as in `start` and in what it returns."""
        return self.start(pixels, number, header)()

    @torch.inference_mode()
    def start(self, pixels: Tensor, number: int, header: FrameHeader) -> Callable[[], EncodedPart]:
        """Run the networks on one frame, without waiting for the device.

        Args:
            pixels: uint8 (3, H, W).
            number: of the frame, from 0.

        Returns:
            The rest, on the host: codes the symbols; to be called once, on whatever thread, also when the next frame
            has been started. It raises a StreamError if the networks gave something that cannot be coded.

        Raises:
            InputError: the model lacks the QP.
        """
        header = self._understood(header)
        coder, download = StreamEncoder(self._tables, self._span), Download()
        with self._span("transfer"):
            pixels = to_device(pixels, self._arithmetic.device)
        source = self._network.grid.pad(self._arithmetic.frame(pixels), self._header.align)
        coded = self._network.code_frame(coder, source, self._memory, header)
        frame = self._crop(coded.frame)
        with self._span("checksum"):
            check = download.start(self._examine(frame, to_pixels(frame)))
        self._memory = coded.memory

        def finish() -> EncodedPart:
            # A section may be shorter than its bound by the slack of the coder; zeros at its end mean nothing.
            sections = {name: data.ljust(self._bounds[header.intra][name][0], b"\0")
                        for name, data in coder.sections().items()}
            download.wait()
            packet = Packet(number=number, intra=header.intra, qp=header.qp, frame_type=header.frame_type,
                            refresh=header.refresh, sections=sections, symbols=coder.checksum,
                            pixels=_checksum_of(check))
            return EncodedPart(packet.pack(), number, header, frame, coded, packet.section_sizes())
        return finish

    @torch.inference_mode()
    def decode(self, packet: Packet) -> DecodedFrame:
        """Decode one frame. It must be intra where `has_reference` says no.

        Raises:
            StreamError: anything is wrong; nothing is remembered of the frame then.
        """
        header = self._understood(packet.header(self._header.aligned))
        coder = StreamDecoder(self._tables, packet.sections, self._span)
        try:
            coded = self._network.code_frame(coder, None, self._memory, header)
            if coder.checksum != packet.symbols:
                raise StreamError("the decoded symbols are not those of the encoder")
            coder.finish()
            frame = self._crop(coded.frame)
            with self._span("checksum"):
                rounded = to_pixels(frame)
                matches = _checksum_of(self._examine(frame, rounded)) == packet.pixels
            if self._header.portable and not matches:
                raise StreamError("the decoded frame is not that of the encoder")
        except StreamError as error:
            raise StreamError(f"{error}; {self._cause()}") from None
        self._memory = coded.memory
        return DecodedFrame(packet.number, header, frame, coded, rounded, packet.section_sizes(), packet.size(),
                            matches)

    @cached_property
    def _checksum(self) -> PixelChecksum:
        return PixelChecksum((self._header.height, self._header.width), self._arithmetic.device)

    def _examine(self, frame: Tensor, rounded: Tensor) -> Tensor:
        """The checksum and whether the frame has a NaN, which is all that is not finite in [0, 1]: int64 (2,)."""
        return torch.stack((self._checksum(rounded), frame.amax().isnan().long()))

    def _crop(self, frame: Tensor) -> Tensor:
        return crop(frame, (self._header.height, self._header.width))

    def _cause(self) -> str:
        if self._header.portable:
            return "the stream is damaged or was not made by this program; get a fresh copy"
        return (f"it was coded in {self._header.arithmetic} on {self._header.device}, and other devices, "
                "instruction sets or numbers of threads compute differently; decode where it was encoded, or encode "
                "with --portable")

    def _understood(self, header: FrameHeader) -> FrameHeader:
        try:
            return self._network.understood(header)
        except ValueError as error:
            raise InputError(str(error)) from None

    def _section_bounds(self, intra: bool) -> dict[str, tuple[int, int]]:
        bounds = {}
        for latent in self._network.latents(intra):
            channels, height, width = latent.shape(self._header.aligned)
            least = 0
            if isinstance(latent.distribution, Factorized):
                # Even if each symbol of z is the likeliest one, a file holds this much, with a little slack.
                least = int(0.9 * height * width * self._tables[latent.name].least_bits().sum() / 8)
            bounds[latent.name] = least, MOST_BYTES_PER_SYMBOL * (channels * height * width + 1)
        return bounds
