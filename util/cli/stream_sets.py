"""`--compress` and `--decompress` of data sets: a stream per sequence, with reports of the actual bytes."""
import argparse
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from dataloader.open import VideoOptions, open_sink
from dataloader.sequences import Sequence, select
from dataloader.source import FrameSource
from models.codec import Memory
from util.cli.datasets import (
    Item,
    metric_folder,
    metric_names,
    open_sequence,
    open_sequences,
    report_path,
    say,
    stream_path,
    summarise,
)
from util.cli.setup import coding_plans, save_dirs
from util.cli.streams import Originals, open_stream, write_stream
from util.coding.codec import Codec
from util.coding.gop import CodingPlan
from util.coding.session import DecodedFrame, EncodedPart
from util.errors import InputError
from util.evaluation.evaluate import gop_averages, measure
from util.evaluation.report import FrameResult, write_report
from util.evaluation.yuv import metric_of

Rows = list[list[FrameResult]]
"""Of one sequence: per metric, per frame."""


def compress_sets(arguments: argparse.Namespace, build: Callable[[argparse.Namespace], Codec]) -> None:
    """Every chosen sequence at every QP to a stream, with the codec that `build` gives.

    Raises:
        InputError: bad flags or data, before weights are read; bad weights.
    """
    items = open_sequences(arguments)
    plans = [coding_plans(arguments, sequence.scene_cuts) for sequence, _ in items]
    codec = build(arguments)
    rates_of_intra = codec.network("float32").rates(intra=True)
    plans = [[plan.for_intra_rates(rates_of_intra) for plan in own] for own in plans]
    for i, folder in enumerate(save_dirs(arguments)):
        rows, rates = [], []
        for (sequence, source), own in zip(items, plans):
            path = stream_path(arguments, folder, sequence)
            rows.append(_compress_sequence(codec, arguments, sequence, source, own[i], path))
            rates.append(_file_rate(path, source.height, source.width, len(rows[-1][0])))
        _write(arguments, i, folder, items, rows, [own[i].gop for own in plans], codec, rates, "_enc")
        print(f"streams in {folder / 'bin'}, reports in {folder}")


def _write(arguments: argparse.Namespace, rate_point: int, folder: Path, items: list[Item], rows: list[Rows],
           gops: list[int], codec: Codec, rates: list[float], kind: str) -> None:
    """Reports and summaries of one rate point, in every metric; those of all but the first lie beside.

    Args:
        rows: of each sequence.
        gops: frames of its GOPs.
        rates: bits per pixel of its file.
        kind: "_enc" or "_dec".
    """
    names = metric_names(arguments)
    for m, metric in enumerate(names):
        place = metric_folder(folder, metric, names)
        for (sequence, _), own in zip(items, rows):
            write_report(report_path(arguments, place, sequence, kind), metric, own[m])
        summarise(arguments, rate_point, place, items, [gop_averages(own[m], gop) for own, gop in zip(rows, gops)],
                  codec.arithmetic, codec.network("float32"), metric, kind, rates)


def _compress_sequence(codec: Codec, arguments: argparse.Namespace, sequence: Sequence, source: FrameSource,
                       plan: CodingPlan, path: Path) -> Rows:
    """Write the stream; the rows measure the encoder's own reconstruction."""
    originals, memory, rows = Originals(source.timed()), None, [[] for _ in metric_names(arguments)]
    with _outputs(arguments, path.parent.parent, sequence, source.height, source.width) as write:
        for part in write_stream(codec, arguments, originals, source, plan, path):
            _add_row(codec, arguments, part, memory, originals.take(), rows)
            memory = part.coded.memory
            write(part.frame[0])
    return rows


@torch.inference_mode()
def _add_row(codec: Codec, arguments: argparse.Namespace, part: EncodedPart | DecodedFrame, memory: Memory | None,
             original: Tensor | None, rows: Rows) -> None:
    """Bytes as they are in the file; quality in float32, as in `--test`."""
    source = None if original is None else codec.arithmetic.frame(original).to(part.frame.dtype)
    for name, column in zip(metric_names(arguments), rows, strict=True):
        column.append(measure(part.number, part.header, source, memory, part.coded, part.bits,
                              metric_of(name, arguments.color_transform), size=tuple(part.frame.shape[-2:])))


def _file_rate(path: Path, height: int, width: int, frames: int) -> float:
    """Bits per pixel of the whole file."""
    return 8 * path.stat().st_size / (height * width * frames)


def decompress_sets(arguments: argparse.Namespace, build: Callable[[argparse.Namespace], Codec]) -> None:
    """The stream of every chosen sequence at every QP, measured where the original is there.

    Raises:
        InputError: a stream is missing, before weights are read; it is damaged.
    """
    sequences = select(arguments.test_dataset, arguments.test_seqs)
    folders = save_dirs(arguments)
    for folder in folders:
        for sequence in sequences:
            path = stream_path(arguments, folder, sequence)
            if not path.is_file():
                raise InputError(f"stream {path} is missing; make it with --compress and the same flags")
    items = [(sequence, _source_if_any(arguments, sequence)) for sequence in sequences]
    codec = build(arguments)
    for i, folder in enumerate(folders):
        rows, gops, rates = [], [], []
        for sequence, source in items:
            path = stream_path(arguments, folder, sequence)
            own, gop, size = _decompress_sequence(codec, arguments, sequence, source, path, folder)
            rows.append(own)
            gops.append(gop)
            rates.append(_file_rate(path, *size, len(own[0])))
        _write(arguments, i, folder, items, rows, gops, codec, rates, "_dec")
        print(f"reports in {folder}")


def _source_if_any(arguments: argparse.Namespace, sequence: Sequence) -> FrameSource | None:
    """The original, to measure against; a decoder has no need of it."""
    folder = arguments.data / sequence.dataset / sequence.report_name(arguments.color_transform)
    return open_sequence(arguments, sequence) if arguments.raw is not None or folder.is_dir() else None


def _decompress_sequence(codec: Codec, arguments: argparse.Namespace, sequence: Sequence, source: FrameSource | None,
                         path: Path, folder: Path) -> tuple[Rows, int, tuple[int, int]]:
    """Decode a stream. Returns rows, GOP and frame size."""
    rows, memory = [[] for _ in metric_names(arguments)], None
    with open_stream(path) as file:
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
                _add_row(codec, arguments, frame, memory, original, rows)
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
