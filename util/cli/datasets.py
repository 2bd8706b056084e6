"""What `--test`, `--compress` and `--decompress` share: sequences and their frames, names of files, summaries."""
import argparse
import sys
from pathlib import Path

from dataloader.open import open_source, video_options
from dataloader.prepare import raw_source
from dataloader.sequences import Sequence, select
from dataloader.source import CenterCrop, FrameSource
from models.codec import VideoCodec
from util.arithmetic import Arithmetic
from util.cli.setup import weight_files
from util.cli.words import count
from util.evaluation.metrics import check_size
from util.evaluation.record import write_record
from util.evaluation.report import Averages, average, write_summary

Item = tuple[Sequence, FrameSource | None]


def say(message: str) -> None:
    """A remark that does not end the run."""
    print(f"HyTIP: warning: {message}", file=sys.stderr)


def say_unless_of_audio(message: str) -> None:
    """`say`, but for what only matters where a video is made."""
    if "audio" not in message:
        say(message)


def tell_if_short(arguments: argparse.Namespace, frames: int) -> None:
    """A remark where `--input` had fewer frames than `--frames` asks for; only the end tells how many a pipe has."""
    if arguments.input is not None and arguments.frames is not None and frames < arguments.frames:
        say(f"{arguments.input} has {count(frames, 'frame')}; --frames {arguments.frames} asks for more")


def metric_names(arguments: argparse.Namespace) -> list[str]:
    """What quality is measured in: `--ssim` chooses the first, `--metrics` adds others."""
    first = "MS-SSIM" if arguments.ssim else "PSNR"
    return [first, *(name for name in arguments.metrics or () if name != first)]


def open_sequences(arguments: argparse.Namespace) -> list[tuple[Sequence, FrameSource]]:
    """What the flags want evaluated: sequences of data sets, or the video of `--input`.

    Raises:
        InputError: something is missing, a crop leaves nothing, or MS-SSIM needs larger frames.
    """
    if arguments.input is not None:
        source = open_source(arguments.input, video_options(arguments, arguments.frames), say_unless_of_audio)
        return [(Sequence.of_video(source), _cropped(arguments, source))]
    return [(sequence, open_sequence(arguments, sequence))
            for sequence in select(arguments.test_dataset, arguments.test_seqs)]


def open_sequence(arguments: argparse.Namespace, sequence: Sequence) -> FrameSource:
    """The frames of a sequence as the flags want them: length, colour, crop; from PNGs or the raw file.

    Raises:
        InputError: as `open_sequences`.
    """
    length = None if arguments.full_seq else arguments.test_seq_len
    if arguments.raw is not None:
        source = raw_source(sequence, arguments.raw, arguments.color_transform, length=length,
                            range_=arguments.color_range or "limited", rgb_planes=arguments.rgb_planes)
    else:
        source = sequence.source(arguments.data, arguments.color_transform, length)
    if arguments.full_seq and source.length != sequence.frames:
        say(f"{sequence.name} has {source.length} frames on disk, {sequence.frames} in the original sequence")
    return _cropped(arguments, source)


def _cropped(arguments: argparse.Namespace, source: FrameSource) -> FrameSource:
    if arguments.test_crop:
        source = CenterCrop(source, arguments.crop_factor)
    for metric in metric_names(arguments):
        check_size(metric, source.name, source.height, source.width)
    return source


def report_path(arguments: argparse.Namespace, folder: Path, sequence: Sequence, kind: str = "") -> Path:
    """The CSV of a sequence; `kind` is "", "_enc" or "_dec"."""
    name = sequence.report_name(arguments.color_transform)
    return folder / "report" / f"{name}{kind}{_full(arguments)}.csv"


def stream_path(arguments: argparse.Namespace, folder: Path, sequence: Sequence) -> Path:
    """The compressed file of a sequence."""
    return folder / "bin" / f"{sequence.name}_{arguments.color_transform}.bin"


def _full(arguments: argparse.Namespace) -> str:
    return "_FullSeq" if arguments.full_seq else ""


def summarise(arguments: argparse.Namespace, rate_point: int, folder: Path, items: list[Item],
              gops: list[list[Averages]], arithmetic: Arithmetic, model: VideoCodec, metric: str, kind: str = "",
              file_rates: list[float] | None = None) -> None:
    """Write summary and record of one rate point. A data set averages over all GOPs of its sequences.

    Args:
        gops: per sequence, the averages of its GOPs.
        file_rates: bits per pixel of each sequence's file; a data set's is their mean.
    """
    sequences = [sequence for sequence, _ in items]
    rates = file_rates or [None] * len(sequences)
    per_sequence = [(sequence.name, average(own, rate)) for sequence, own, rate in zip(sequences, gops, rates)]
    per_dataset = []
    datasets = list(dict.fromkeys(sequence.dataset for sequence in sequences))
    for dataset in datasets:
        mine = [i for i, sequence in enumerate(sequences) if sequence.dataset == dataset]
        rate = sum(rates[i] for i in mine) / len(mine) if file_rates else None
        per_dataset.append((dataset, average((gop for i in mine for gop in gops[i]), rate)))
    color = "_BT709" if arguments.color_transform == "BT709" else ""
    stem = f"brief_summary_{'&'.join(datasets)}{color}{kind}{_full(arguments)}"
    write_summary(folder / f"{stem}.txt", metric, per_sequence, per_dataset)
    write_record(folder / f"{stem}.json", arguments, arithmetic, model, weight_files(arguments), items, rate_point,
                 metric, "actual" if kind else "estimated")


def metric_folder(folder: Path, metric: str, names: list[str]) -> Path:
    """The first metric's reports lie in the folder itself, another's beside it: `HyTIP-42_PSNR-YUV`."""
    return folder if metric == names[0] else folder.with_name(f"{folder.name}_{metric}")
