"""The codec from Python: frames to bytes and back, one at a time.

    codec = Codec.load("small")
    with open("clip.hyt", "wb") as file:
        file.writelines(codec.compress(frames, CodingPlan(qp=42, intra_qp=42)))
    with open("clip.hyt", "rb") as file:
        for frame in codec.decompress(file):
            ...

Frames are uint8 RGB (3, H, W). `encode` and `decode` tell more about each frame, for reports.
"""
import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from models.catalogue import DEFAULT, build_codec, find_model
from models.codec import VideoCodec
from models.entropy.stream import Span, StreamError
from models.entropy.tables import Tables
from util.arithmetic import Arithmetic, choose_arithmetic
from util.checkpoint import fingerprint, load_model
from util.choices import MAX_PIXELS
from util.coding.bitstream import DEVICES, FINGERPRINT_BYTES, StreamHeader, pack_end
from util.coding.decoding import DecodedStream, warn
from util.coding.gop import CodingPlan
from util.coding.overlap import in_order
from util.coding.reader import StreamReader
from util.coding.session import EncodedPart, Session
from util.errors import InputError


def _describe(config: Any) -> str:
    """What a configuration says beyond its defaults, so that a new field with a default changes no fingerprint."""
    if not dataclasses.is_dataclass(config):
        return repr(config)
    values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)
              if getattr(config, f.name) != f.default}
    return f"({', '.join(f'{name}={_describe(value)}' for name, value in values.items())})"


class Codec:
    """The model with what coding needs besides: probability tables, fingerprint, float64 networks.

    Args:
        model: with float32 weights; `arithmetic` places it.
        arithmetic: the device, and the number format of the streams that it makes unless told otherwise.

    Attributes:
        behind: how many frames the host may still be working on, on a thread, while the networks have gone on to the
            next; each part of a stream then comes so many frames later. 1 on a GPU; 0 on a CPU, whose cores the
            networks keep busy. The bytes are the same.
        span: around the host's work on "entropy", "transfer" and "checksum", for those who time it.
    """

    def __init__(self, model: VideoCodec, arithmetic: Arithmetic):
        self.arithmetic = arithmetic
        self.behind = int(arithmetic.device.type == "cuda")
        self.span: Span = nullcontext
        self.tables = Tables.of(model.distributions())
        identity = f"{fingerprint(model)} {_describe(model.config)}".encode()
        self.fingerprint = hashlib.sha256(identity).digest()[:FINGERPRINT_BYTES]
        self._networks = {"float32": Arithmetic(arithmetic.device).place(model)}

    @classmethod
    def load(cls, model: str | Path = DEFAULT, *, weights: Path | Sequence[Path] | None = None,
             parts: Mapping[str, Path] | None = None, device: str = "auto", threads: int | None = None,
             precision: str = "float32") -> "Codec":
        """A model with its weights.

        Args:
            model: of the catalogue (`small` has its weights in the repository), or the file of one, PATH.yml.
            weights: other weight files.
            parts: files that replace parts of the configuration, by name.
            precision: of the streams that it makes: float32, bfloat16 or float16.

        Raises:
            InputError: an unknown model; a file is missing, damaged, or does not fit the others.
        """
        found = find_model(model)
        network = build_codec(found, parts)
        load_model(network, weights or found.weight_files(), found.origin)
        return cls(network, choose_arithmetic(device, threads, precision))

    def network(self, arithmetic: str) -> VideoCodec:
        """The networks in `float32`, in the `float64` of portable streams, or in `bfloat16` or `float16`.

        Raises:
            InputError: the device cannot compute in this number format.
        """
        if arithmetic not in self._networks:
            place = Arithmetic(self.arithmetic.device, getattr(torch, arithmetic)).place
            self._networks[arithmetic] = place(self._networks["float32"])
        return self._networks[arithmetic]

    def session(self, header: StreamHeader) -> Session:
        return Session(self.network(header.arithmetic), self.tables, header, self.arithmetic.device, self.span)

    def compress(self, frames: Iterable[Tensor], plan: CodingPlan, **options) -> Iterator[bytes]:
        """The stream piece by piece, as the frames come. Arguments and errors as in `encode`."""
        return (part.data for part in self.encode(frames, plan, **options))

    def encode(self, frames: Iterable[Tensor], plan: CodingPlan, *, portable: bool = False,
               rate: Fraction | None = None, color: str = "", align: int | None = None) -> Iterator[EncodedPart]:
        """The parts of the stream, each as soon as its frame (and `behind` more) has come: header, frames, end marker.

        Args:
            frames: uint8 RGB (3, H, W), all of one size; at least one.
            plan: frame types, rates and resets.
            portable: code in float64, so that other devices and instruction sets can decode.
            rate, color: frames per second and origin of the RGB, for the record.
            align: frames are padded to multiples of it; a multiple of the codec's grid, which is the default.

        Raises:
            InputError: no frame, one of another shape, or an option out of bounds.
        """
        frames = iter(frames)
        first = next(frames, None)
        if first is None:
            raise InputError("there are no frames to compress; give at least one")
        device = self.arithmetic.device.type
        header = StreamHeader(width=first.shape[-1], height=first.shape[-2],
                              align=self._networks["float32"].grid.multiple(align),
                              arithmetic="float64" if portable else self.arithmetic.name,
                              device=device if device in DEVICES else "other", rate=rate, color=color,
                              gop=plan.gop, qp=plan.qp, intra_qp=plan.intra_qp,
                              fingerprint=self.fingerprint, tables=self.tables.checksum())
        session, count = self.session(header), 0

        def started() -> Iterator[Callable[[], EncodedPart]]:
            nonlocal count
            for number, pixels in enumerate(itertools.chain((first,), frames)):
                if pixels.dtype != torch.uint8 or tuple(pixels.shape) != (3, header.height, header.width):
                    raise InputError(f"frame {number + 1} is {pixels.dtype} {tuple(pixels.shape)}; all frames must be "
                                     f"uint8 (3, {header.height}, {header.width})")
                yield session.start(pixels, number, plan.header(number, header.aligned))
                count += 1

        yield EncodedPart(header.pack())
        yield from in_order(started(), self.behind)
        yield EncodedPart(pack_end(count))

    def decompress(self, file: BinaryIO, **options) -> Iterator[Tensor]:
        """The frames of a stream, uint8 (3, H, W), as the bytes come. Arguments and errors as in `decode`."""
        return (decoded.pixels for decoded in self.decode(file, **options))

    def decode(self, file: BinaryIO, *, keep_going: bool = False, max_pixels: int | None = MAX_PIXELS,
               report: Callable[[str], None] = warn) -> DecodedStream:
        """Read the header of a stream; iterate over the result for its frames.

        Args:
            file: read once, in order, and not beyond the end marker unless damaged.
            keep_going: after damage, go on at the next I-frame instead of raising an error.
            max_pixels: the largest frame to accept, padded to multiples of 64; None for streams that are trusted.
            report: is called with a line on each damage (`keep_going`) and each warning; by default they are
                `StreamWarning`s.

        Raises:
            StreamError: no stream, one of another version, of other weights or configuration, or too large.
        """
        reader = StreamReader(file)
        self._check(reader.header, max_pixels)
        return DecodedStream(reader, self.session(reader.header), keep_going, report)

    def _check(self, header: StreamHeader, max_pixels: int | None) -> None:
        if header.fingerprint != self.fingerprint:
            raise StreamError(f"the stream was coded with other weights or configurations (fingerprint "
                              f"{header.fingerprint.hex()}, here {self.fingerprint.hex()}); "
                              "give those it was coded with")
        if header.tables != self.tables.checksum():
            raise StreamError(f"the probability tables differ (checksum {header.tables:08x}, here "
                              f"{self.tables.checksum():08x}); use the program version that wrote the stream")
        model = self._networks["float32"]
        grid = max(latent.grid for intra in (True, False) for latent in model.latents(intra))
        height, width = (side + -side % grid for side in header.aligned)
        if max_pixels is not None and height * width > max_pixels:
            raise StreamError(f"the stream's frames of {header.width}x{header.height} take {height * width} pixels "
                              f"with padding, more than {max_pixels}; if you trust it, raise --max_pixels")
