"""The codec from Python: frames to bytes and back, one at a time.

    codec = Codec.load("small")
    codec.encode_file("clip.mp4", "clip.hyt", 42)
    codec.decode_file("clip.hyt", "decoded.mp4")
    for frame in codec.decompress("clip.hyt"):
        ...

Frames go in as tensors or arrays, uint8 RGB, (3, H, W) or (H, W, 3), and come out as uint8 tensors (3, H, W). `encode`
and `decode` tell more about each frame, for reports.
"""
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from dataloader.open import open_sink, open_source
from models.catalogue import DEFAULT, build_codec, codec_name, find_model
from models.codec import VideoCodec
from models.entropy.stream import StreamError
from models.entropy.tables import Tables
from util.arithmetic import Arithmetic, choose_arithmetic
from util.checkpoint import fingerprint, load_model
from util.choices import MAX_PIXELS
from util.coding.bitstream import FINGERPRINT_BYTES, StreamHeader, pack_end
from util.coding.decoding import DecodedStream, warn
from util.coding.frames import frames_of, opened
from util.coding.gop import CodingPlan
from util.coding.machine import Machine
from util.coding.overlap import in_order
from util.coding.rate_control.controller import Constant, Controller
from util.coding.reader import StreamReader
from util.coding.session import EncodedPart, Session
from util.errors import InputError
from util.files import atomic_path
from util.video import NOTHING_KNOWN, Timed, VideoFacts


class Codec:
    """The model with what coding needs besides: probability tables, fingerprint, float64 networks.

    Args:
        model: with float32 weights; `arithmetic` places it.
        arithmetic: the device, and the number format of the streams that it makes unless told otherwise.
        name: what selects the model (`--model`), for whoever has its streams.
        weights: name of the weight file, where it is not the model's own, likewise.
        threads: CPU threads to decode with; None takes those that a stream was encoded with.

    Attributes:
        kind: the codec that the model is of.
        behind: how many frames the host may still be working on, on a thread, while the networks have gone on to the
            next; each part of a stream then comes so many frames later. 1 on a GPU; 0 on a CPU, whose cores the
            networks keep busy. The bytes are the same.
    """

    def __init__(self, model: VideoCodec, arithmetic: Arithmetic, name: str = "", weights: str = "",
                 threads: int | None = None):
        self.arithmetic = arithmetic
        self.kind, self.name, self.weights, self.threads = codec_name(model), name, weights, threads
        self.behind = int(arithmetic.device.type == "cuda")
        self.tables = Tables.of(model.distributions())
        self.fingerprint = bytes.fromhex(fingerprint(model))[:FINGERPRINT_BYTES]
        self._networks = {"float32": Arithmetic(arithmetic.device).place(model)}

    @classmethod
    def load(cls, model: str | Path = DEFAULT, *, weights: str | Path | Sequence[Path] | None = None,
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
        files = found.weight_files() if weights is None else weights
        files = [files] if isinstance(files, str | Path) else list(files)
        load_model(network, files, found.origin)
        arithmetic = choose_arithmetic(device, threads, precision)
        return cls(network, arithmetic, found.selector, found.foreign(files), threads)

    @property
    def model(self) -> VideoCodec:
        """The networks in float32, for whoever wants parameters or `code_frame`."""
        return self._networks["float32"]

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
        return Session(self.network(header.arithmetic), self.tables, header, self.arithmetic.device, self.threads)

    def compress(self, frames: Any, plan: CodingPlan | Controller | int, **options) -> Iterator[bytes]:
        """The stream piece by piece, as the frames come. Arguments and errors as in `encode`."""
        return (part.data for part in self.encode(frames, plan, **options))

    def encode(self, frames: Any, plan: CodingPlan | Controller | int, *, portable: bool = False,
               facts: VideoFacts | None = None, align: int | None = None) -> Iterator[EncodedPart]:
        """The parts of the stream, each as soon as its frame (and `behind` more) has come: header, frames, end marker.

        Args:
            frames: uint8 RGB, all of one size; at least one: any iterable of tensors or arrays, (3, H, W) or
                (H, W, 3), one array of them all, or the path of a video or folder.
            plan: frame types, rates and resets; a number is the QP of all frames; a controller decides them as it
                goes, and serves one stream. One with a lookahead lets frames out a mini-GOP at a time, without `coded`.
            portable: code in float64, so that other devices and instruction sets can decode.
            facts: rate, time stamps and colour, for whoever decodes; by default those of the source.
            align: frames are padded to multiples of it; a multiple of the codec's grid, which is the default.

        Raises:
            InputError: no frame, one of another type or shape, or an option out of bounds.
        """
        plan = CodingPlan(qp=plan) if isinstance(plan, int) else plan
        controller = Constant(plan) if isinstance(plan, CodingPlan) else plan
        frames, known = frames_of(frames)
        first = next(frames, None)
        if first is None:
            raise InputError("there are no frames to compress; give at least one")
        frames = _of_one_size(itertools.chain((first,), frames))
        ahead = list(itertools.islice(frames, max(controller.lookahead, 1)))
        size = tuple(first.pixels.shape[-2:])
        header = self.stream_header(size, controller.plan, portable=portable, facts=facts or known, align=align)
        if controller.lookahead:
            controller.start(lambda tried: self._sizes(header, ahead, tried))
            begun = controller.plan
            header = dataclasses.replace(header, qp=begun.qp, intra_qp=begun.intra_qp)
        session, count = self.session(header), 0

        def start(number: int, frame: Timed) -> Callable[[], EncodedPart]:
            return session.start(frame.pixels, number, controller.header(number, header.aligned), frame.stamp)

        yield EncodedPart(header.pack())
        for part in self._coded(session, enumerate(itertools.chain(ahead, frames)), controller, start):
            count += 1
            yield part
        yield EncodedPart(pack_end(count))

    def _coded(self, session: Session, frames: Iterator[tuple[int, Timed]], controller: Controller,
               start: Callable[[int, Timed], Callable[[], EncodedPart]]) -> Iterator[EncodedPart]:
        """Frame after frame; or, where the controller has a lookahead, group after group, each as often as it wants."""
        def once(some: Iterable[tuple[int, Timed]]) -> Iterator[EncodedPart]:
            for part in in_order((start(*frame) for frame in some), self.behind):
                controller.spent(part.number, len(part.data))
                yield part

        if not controller.lookahead:
            yield from once(frames)
            return
        number = 0
        while group := list(itertools.islice(frames, controller.together(number))):
            memory, parts = session.memory, _without_memory(once(group))
            while controller.again():
                session.memory = memory
                parts = _without_memory(once(group))
            yield from parts
            number += len(group)

    def stream_header(self, size: tuple[int, int], plan: CodingPlan, *, portable: bool = False,
                      facts: VideoFacts = NOTHING_KNOWN, align: int | None = None) -> StreamHeader:
        """What a stream of frames of H W begins with. Arguments and errors as in `encode`."""
        machine = Machine.here(self.arithmetic.device)
        return StreamHeader(codec=self.kind, model=self.name, weights=self.weights, width=size[1], height=size[0],
                            align=self._networks["float32"].grid.multiple(align),
                            arithmetic="float64" if portable else self.arithmetic.name, device=machine.device,
                            threads=machine.threads, processor=machine.processor, gop=plan.gop, qp=plan.qp,
                            intra_qp=plan.intra_qp, fingerprint=self.fingerprint, tables=self.tables.checksum(),
                            **StreamHeader.of_facts(facts))

    def _sizes(self, header: StreamHeader, frames: Sequence[Timed], plan: CodingPlan) -> list[int]:
        """Bytes of each of the first frames at a plan."""
        session = self.session(header)
        return [len(session.encode(frame.pixels, number, plan.header(number, header.aligned), frame.stamp).data)
                for number, frame in enumerate(frames)]

    def encode_file(self, source: Any, output: str | Path, plan: CodingPlan | Controller | int, *,
                    progress: Callable[[int, int | None], None] | None = None, **options) -> int:
        """A video to the file of a stream, which appears when it is complete. Returns the number of frames.

        Args:
            source: as `frames` of `encode`, as a rule a path.
            progress: is called with the frames that are done and, where it is known, their number.
            options: of `encode`.

        Raises:
            InputError: as `encode`; the source cannot be read or the file not written.
        """
        source = open_source(source) if isinstance(source, str | Path) else source
        count, total = 0, getattr(source, "length", None)
        with atomic_path(output) as temporary, temporary.open("wb") as file:
            for part in self.encode(source, plan, **options):
                file.write(part.data)
                if part.number is not None:
                    count += 1
                    if progress is not None:
                        progress(count, total)
        return count

    def decode_file(self, stream: BinaryIO | bytes | str | Path, output: str | Path, *, sound: str | Path | None = None,
                    progress: Callable[[int, int | None], None] | None = None, **options) -> int:
        """A stream to a video or a folder of PNGs, with the rate, time stamps and colour of its source. Returns the
        number of frames.

        Args:
            output: what `dataloader.open.open_sink` takes.
            sound: a file whose audio goes into the mp4 or mkv as it is.
            progress: as for `encode_file`; the number of frames is not known.
            options: of `decode`.

        Raises:
            InputError: as `decode` and `open_sink`.
        """
        decoding, count = self.decode(stream, **options), 0
        header = decoding.header
        with open_sink(output, header.height, header.width, facts=header.facts, sound=sound) as write:
            for frame in decoding:
                write(frame.pixels, frame.stamp)
                count += 1
                if progress is not None:
                    progress(count, None)
        return count

    def decompress(self, file: BinaryIO | bytes | str | Path, **options) -> Iterator[Tensor]:
        """The frames of a stream, uint8 (3, H, W), as the bytes come. Arguments and errors as in `decode`."""
        return (decoded.pixels for decoded in self.decode(file, **options))

    def decode(self, file: BinaryIO | bytes | str | Path, *, keep_going: bool = False,
               max_pixels: int | None = MAX_PIXELS, report: Callable[[str], None] = warn) -> DecodedStream:
        """Read the header of a stream; iterate over the result for its frames.

        Args:
            file: its bytes, its path, or a file: read once, in order, and not beyond the end marker unless damaged.
            keep_going: after damage, go on at the next I-frame instead of raising an error.
            max_pixels: the largest frame to accept, padded to multiples of 64; None for streams that are trusted.
            report: is called with a line on each damage (`keep_going`) and each warning; by default they are
                `StreamWarning`s.

        Raises:
            StreamError: no stream, one of another version, of other weights or configuration, or too large.
        """
        reader = StreamReader(opened(file))
        self._check(reader.header, max_pixels)
        return DecodedStream(reader, self.session(reader.header), keep_going, report)

    def _check(self, header: StreamHeader, max_pixels: int | None) -> None:
        if header.fingerprint != self.fingerprint:
            raise StreamError(self._other_model(header))
        if header.tables != self.tables.checksum():
            raise StreamError(f"the probability tables differ (checksum {header.tables:08x}, here "
                              f"{self.tables.checksum():08x}); use the program version that wrote the stream")
        model = self._networks["float32"]
        if header.align % model.grid.align:
            raise StreamError(f"the header of the stream cannot be right: it pads frames to multiples of "
                              f"{header.align}, and this codec's grid is {model.grid.align}; get a fresh copy")
        grid = max(latent.grid for intra in (True, False) for latent in model.latents(intra))
        height, width = (side + -side % grid for side in header.aligned)
        if max_pixels is not None and height * width > max_pixels:
            raise StreamError(f"the stream's frames of {header.width}x{header.height} take {height * width} pixels "
                              f"with padding, more than {max_pixels}; if you trust it, raise --max_pixels")

    def _other_model(self, header: StreamHeader) -> str:
        """Why a stream's fingerprint is another, and which flags select what it was made with."""
        def told(model: str, weights: str) -> str:
            return f"--model {model}" + (f" --weights {weights}" if weights else "")
        theirs, ours = told(header.model or header.codec, header.weights), told(self.name or self.kind, self.weights)
        if theirs == ours:
            return (f"the stream was coded with other weights or configurations of {theirs} (fingerprint "
                    f"{header.fingerprint.hex()}, here {self.fingerprint.hex()}); give those it was coded with")
        return f"the stream was coded with {theirs} (codec {header.codec}), and this is {ours}; give {theirs}"


def _without_memory(parts: Iterable[EncodedPart]) -> list[EncodedPart]:
    """Parts that wait, without what would hold much memory meanwhile."""
    return [dataclasses.replace(part, coded=None) for part in parts]


def _of_one_size(frames: Iterable[Timed]) -> Iterator[Timed]:
    """The frames as they are.

    Raises:
        InputError: one has another size than the first.
    """
    height = width = None
    for number, frame in enumerate(frames, start=1):
        size = tuple(frame.pixels.shape[-2:])
        if height is None:
            height, width = size
        if size != (height, width):
            raise InputError(f"frame {number} is {size[1]}x{size[0]}, but frame 1 is {width}x{height}; all frames of a "
                             "video have one size")
        yield frame
