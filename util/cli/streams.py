"""`--compress` and `--decompress`, of data sets and of single files."""
import argparse
import hashlib
import itertools
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor
from tqdm import tqdm

from dataloader.open import VideoOptions, open_sink, open_source, video_options
from dataloader.sequences import Sequence, select
from dataloader.source import CenterCrop, FrameSource
from models.codec import Memory
from models.entropy.stream import StreamError
from util.cli.datasets import (
    metric_names,
    open_sequence,
    open_sequences,
    report_path,
    say,
    stream_path,
    summarise,
)
from util.cli.setup import build_model, coding_plans, save_dirs, settle_arithmetic
from util.coding.codec import Codec
from util.coding.gop import CodingPlan
from util.coding.overlap import in_order
from util.coding.session import DecodedFrame, EncodedPart
from util.errors import InputError
from util.evaluation.evaluate import gop_averages, measure
from util.evaluation.metrics import METRICS
from util.evaluation.report import FrameResult, write_report
from util.files import atomic_path
from util.stopwatch import each

PIPE = Path("-")


def build_codec(arguments: argparse.Namespace) -> Codec:
    """Model, weights and tables."""
    arithmetic = settle_arithmetic(arguments)
    return Codec(build_model(arguments), arithmetic)


def run_compress(arguments: argparse.Namespace) -> None:
    """Write streams of a data set, or of `--input`."""
    if arguments.input is None:
        _compress_datasets(arguments)
    else:
        compress_file(arguments, build_codec)


def run_decompress(arguments: argparse.Namespace) -> None:
    """Read streams of a data set, or `--input`."""
    if arguments.input is None:
        _decompress_datasets(arguments)
    else:
        decompress_file(arguments, build_codec)


class _Tap:
    """Passes frames on and keeps them until the part that was made of them has come."""

    def __init__(self, frames: Iterable[Tensor]):
        self._frames, self._passed = frames, deque()

    def __iter__(self) -> Iterator[Tensor]:
        for frame in self._frames:
            self._passed.append(frame)
            yield frame

    def take(self) -> Tensor:
        """The source of the part that comes next."""
        return self._passed.popleft()


def _digest(part: EncodedPart | DecodedFrame) -> bytes:
    """Of the exact decoded frame."""
    return hashlib.sha256(part.frame.contiguous().cpu().numpy().tobytes()).digest()


def _encode(codec: Codec, arguments: argparse.Namespace, frames: Iterable[Tensor], source: FrameSource,
            plan: CodingPlan, path: Path) -> Iterator[EncodedPart]:
    """Write a stream to `path` (complete or not at all; `-` is standard output), yielding the coded frames."""
    digests = []
    with ExitStack() as stack:
        if path == PIPE:
            file, temporary = sys.stdout.buffer, None
        else:
            temporary = stack.enter_context(atomic_path(path))
            file = stack.enter_context(temporary.open("wb"))
        bar = stack.enter_context(tqdm(total=source.length, desc=source.name, unit="frame", disable=None))
        for part in codec.encode(each(frames, codec.span, "io"), plan, portable=arguments.portable, rate=source.rate,
                                 color=source.color, align=arguments.align_factor):
            with codec.span("io"):
                file.write(part.data)
            if part.number is not None:
                if arguments.verify:
                    digests.append(_digest(part))
                bar.update()
                yield part
        file.flush()
        if arguments.verify:
            _verify(codec, temporary, path, digests)


def _verify(codec: Codec, written: Path, path: Path, digests: list[bytes]) -> None:
    """Decode what was just written and demand the very frames that the encoder saw."""
    with written.open("rb") as file:
        for n, (frame, digest) in enumerate(zip(codec.decode(file, max_pixels=None), digests, strict=True), start=1):
            if _digest(frame) != digest:
                raise StreamError(f"--verify: frame {n} of {path} decodes differently; nothing was written; "
                                  "report this, with the command")


# Single files

def compress_file(arguments: argparse.Namespace, build: Callable[[argparse.Namespace], Codec]) -> None:
    """`--input`, a video or a folder, to `--output`, a stream, with the codec that `build` gives."""
    if arguments.output is None:
        raise InputError("--compress --input needs --output FILE")
    if len(arguments.QP) > 1:
        raise InputError("--compress --input takes one --QP; run it once per rate")
    if arguments.verify and arguments.output == PIPE:
        raise InputError("--verify cannot read back what went to a pipe; give --output a file name")
    source = open_source(arguments.input, video_options(arguments, arguments.frames), say)
    if arguments.test_crop:
        source = CenterCrop(source, arguments.crop_factor)
    codec = build(arguments)
    plan, = coding_plans(arguments, codec.network("float32"), ())
    frames = sum(1 for _ in _encode(codec, arguments, source, source, plan, arguments.output))
    print(f"{frames} frames of {source.width}x{source.height} in {arguments.output}"
          + (", verified" if arguments.verify else ""), file=sys.stderr if arguments.output == PIPE else sys.stdout)


@contextmanager
def _stream(path: Path) -> Iterator[BinaryIO]:
    """A stream to read; `-` is standard input."""
    if path == PIPE:
        yield sys.stdin.buffer
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"stream {path} cannot be read ({error.strerror}); give a file that --compress wrote"
                         ) from None
    with file:
        yield file


def decompress_file(arguments: argparse.Namespace, build: Callable[[argparse.Namespace], Codec]) -> None:
    """`--input`, a stream, to `--output`, a folder or video, with the codec that `build` gives.

    A damaged stream still gives the frames before the damage, and then the error.
    """
    if arguments.output is None:
        raise InputError("--decompress --input needs --output, a folder for PNG frames or a video file")
    codec = build(arguments)
    count, failure = 0, None
    with _stream(arguments.input) as file:
        stream = codec.decode(file, keep_going=arguments.keep_going, max_pixels=arguments.max_pixels, report=say)
        frames, header = iter(stream), stream.header
        first = next(frames, None)
        if first is None:
            raise StreamError(f"stream {arguments.input} gives no frame; get a fresh copy")
        options = video_options(arguments)
        with open_sink(arguments.output, header.height, header.width, options, header.rate) as write, \
                tqdm(desc=arguments.output.name, unit="frame", disable=None) as bar:
            writes = (_writing(codec, write, frame) for frame in itertools.chain((first,), frames))
            try:
                for _ in in_order(writes, codec.behind):
                    count += 1
                    bar.update()
            except StreamError as error:
                failure = error
    if failure:
        raise StreamError(f"{failure} ({count} frames were written to {arguments.output})")
    print(f"{count} frames of {header.width}x{header.height} in {arguments.output}",
          file=sys.stderr if arguments.output == PIPE else sys.stdout)


def _writing(codec: Codec, write: Callable[[Tensor], None], frame: DecodedFrame) -> Callable[[], None]:
    """What is left to do with a frame once its pixels are on the host."""
    with codec.span("transfer"):
        pixels = frame.pixels

    def finish() -> None:
        with codec.span("io"):
            write(pixels)
    return finish


# Data sets

def _compress_datasets(arguments: argparse.Namespace) -> None:
    items = open_sequences(arguments)
    coding_plans(arguments, None, ())
    codec = build_codec(arguments)
    model = codec.network("float32")
    for i, folder in enumerate(save_dirs(arguments)):
        gops, rates = [], []
        for sequence, source in items:
            plan = coding_plans(arguments, model, sequence.scene_cuts)[i]
            path = stream_path(arguments, folder, sequence)
            rows = _compress_sequence(codec, arguments, sequence, source, plan, path)
            write_report(report_path(arguments, folder, sequence, "_enc"), metric_names(arguments)[0], rows)
            gops.append(gop_averages(rows, plan.gop))
            rates.append(_file_rate(path, source.height, source.width, len(rows)))
        summarise(arguments, i, folder, items, gops, codec.arithmetic, model, metric_names(arguments)[0], "_enc",
                  rates)
        print(f"streams in {folder / 'bin'}, reports in {folder}")


def _compress_sequence(codec: Codec, arguments: argparse.Namespace, sequence: Sequence, source: FrameSource,
                       plan: CodingPlan, path: Path) -> list[FrameResult]:
    """Write the stream; the rows measure the encoder's own reconstruction."""
    tap, rows, memory = _Tap(source), [], None
    with _outputs(arguments, path.parent.parent, sequence, source.height, source.width) as write:
        for part in _encode(codec, arguments, tap, source, plan, path):
            rows.append(_row(codec, arguments, part, memory, tap.take()))
            memory = part.coded.memory
            write(part.frame[0])
    return rows


@torch.inference_mode()
def _row(codec: Codec, arguments: argparse.Namespace, part: EncodedPart | DecodedFrame, memory: Memory | None,
         original: Tensor | None) -> FrameResult:
    """Bytes as they are in the file; quality in float32, as in `--test`."""
    source = None if original is None else codec.arithmetic.frame(original).to(part.frame.dtype)
    bits = {name: 8.0 * size for name, size in part.sizes.items()}
    return measure(part.number, part.header, source, memory, part.coded, bits, METRICS[metric_names(arguments)[0]],
                   size=tuple(part.frame.shape[-2:]))


def _file_rate(path: Path, height: int, width: int, frames: int) -> float:
    """Bits per pixel of the whole file."""
    return 8 * path.stat().st_size / (height * width * frames)


def _decompress_datasets(arguments: argparse.Namespace) -> None:
    sequences = select(arguments.test_dataset, arguments.test_seqs)
    folders = save_dirs(arguments)
    for folder in folders:
        for sequence in sequences:
            path = stream_path(arguments, folder, sequence)
            if not path.is_file():
                raise InputError(f"stream {path} is missing; make it with --compress and the same flags")
    items = [(sequence, _source_if_any(arguments, sequence)) for sequence in sequences]
    codec = build_codec(arguments)
    for i, folder in enumerate(folders):
        gops, rates = [], []
        for sequence, source in items:
            path = stream_path(arguments, folder, sequence)
            rows, gop, size = _decompress_sequence(codec, arguments, sequence, source, path, folder)
            write_report(report_path(arguments, folder, sequence, "_dec"), metric_names(arguments)[0], rows)
            gops.append(gop_averages(rows, gop))
            rates.append(_file_rate(path, *size, len(rows)))
        summarise(arguments, i, folder, items, gops, codec.arithmetic, codec.network("float32"),
                  metric_names(arguments)[0], "_dec", rates)
        print(f"reports in {folder}")


def _source_if_any(arguments: argparse.Namespace, sequence: Sequence) -> FrameSource | None:
    """The original, to measure against; a decoder has no need of it."""
    folder = arguments.data / sequence.dataset / sequence.report_name(arguments.color_transform)
    return open_sequence(arguments, sequence) if arguments.raw is not None or folder.is_dir() else None


def _decompress_sequence(codec: Codec, arguments: argparse.Namespace, sequence: Sequence, source: FrameSource | None,
                         path: Path, folder: Path) -> tuple[list[FrameResult], int, tuple[int, int]]:
    """Decode a stream. Returns rows, GOP and frame size."""
    rows, memory = [], None
    with _stream(path) as file:
        stream = codec.decode(file, keep_going=arguments.keep_going, max_pixels=arguments.max_pixels, report=say)
        header = stream.header
        if source is not None and (source.height, source.width) != (header.height, header.width):
            raise InputError(f"{sequence.name} is {source.width}x{source.height}, its stream {header.width}x"
                             f"{header.height}; give --test_crop and --crop_factor as they were for --compress")
        originals = iter(source) if source is not None else None
        position = 0
        with _outputs(arguments, folder, sequence, header.height, header.width) as write, \
                tqdm(desc=sequence.name, unit="frame", disable=None) as bar:
            for frame in stream:
                original = None
                while originals is not None and position <= frame.number:
                    original, position = next(originals, None), position + 1
                rows.append(_row(codec, arguments, frame, memory, original))
                memory = frame.coded.memory
                write(frame.frame[0])
                bar.update()
    return rows, header.gop, (header.height, header.width)


@contextmanager
def _outputs(arguments: argparse.Namespace, folder: Path, sequence: Sequence, height: int, width: int):
    """Yields a function that writes a decoded frame to what `--PNG_FILE` and `--YUV_FILE` ask for."""
    name = sequence.report_name(arguments.color_transform)
    yuv = VideoOptions(chroma="444", depth=8, matrix=arguments.color_transform, range="limited")
    yuv_name = f"{name}_{width}x{height}_{sequence.fps}_8bit_444.yuv"
    with (open_sink(folder / "png" / name, height, width) if arguments.PNG_FILE else nullcontext()) as png, \
            (open_sink(folder / "yuv" / yuv_name, height, width, yuv) if arguments.YUV_FILE else nullcontext()) as raw:
        yield lambda frame: [write(frame) for write in (png, raw) if write is not None]
