"""`--compare A B`: quality of one video beside another, frame by frame."""
import argparse
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from statistics import fmean

import av
import numpy as np
import torch
from tqdm import tqdm

from dataloader.open import open_source, video_options
from dataloader.source import FrameSource
from util.choices import METRIC_NAMES
from util.cli.datasets import say_unless_of_audio
from util.cli.words import count
from util.errors import InputError
from util.evaluation.metrics import MS_SSIM_SIDE
from util.evaluation.yuv import metric_of
from util.video import RGB, usual_matrix

VMAF = "libvmaf"
"""FFmpeg's filter, where PyAV's libraries have it."""


def run_compare(arguments: argparse.Namespace) -> None:
    """Print the means of PSNR, PSNR-YUV, MS-SSIM and VMAF over all frames of two videos, the first being the reference.

    Raises:
        InputError: a video cannot be read, or they differ in size or number of frames.
    """
    reference, other = (open_source(path, video_options(arguments, arguments.frames), say_unless_of_audio)
                        for path in arguments.compare)
    if (reference.width, reference.height) != (other.width, other.height):
        raise InputError(f"--compare: {arguments.compare[0]} is {reference.width}x{reference.height}, "
                         f"{arguments.compare[1]} {other.width}x{other.height}; compare videos of one size")
    values, frames = _measure(arguments, reference, other)
    for name, column in values.items():
        unit = "" if name == "MS-SSIM" else " dB"
        print(f"{name:<9}{fmean(column):.4f}{unit}")
    if min(reference.height, reference.width) <= MS_SSIM_SIDE:
        print(f"MS-SSIM  none: both sides must exceed {MS_SSIM_SIDE}")
    print(f"VMAF     {_vmaf(arguments, reference)}")
    print(f"{count(frames, 'frame')} of {reference.width}x{reference.height}, means over frames; RGB of 8 bits, "
          f"PSNR-YUV (6:1:1) in {_matrix(reference)}")


def _matrix(source: FrameSource) -> str:
    return usual_matrix(source.height) if source.facts.color.matrix == RGB else source.color


def _measure(arguments: argparse.Namespace, reference: FrameSource, other: FrameSource
             ) -> tuple[dict[str, list[float]], int]:
    """Per metric that the size allows, its value in each frame; and the number of frames."""
    small = min(reference.height, reference.width) <= MS_SSIM_SIDE
    metrics = {name: metric_of(name, _matrix(reference)) for name in METRIC_NAMES if not (small and name == "MS-SSIM")}
    values: dict[str, list[float]] = {name: [] for name in metrics}
    frames, one, two = 0, iter(reference), iter(other)
    with tqdm(total=reference.length, desc="compare", unit="frame", disable=None) as bar, torch.inference_mode():
        while True:
            a, b = next(one, None), next(two, None)
            if a is None or b is None:
                break
            a, b = (x.unsqueeze(0).to(torch.float32) / 255 for x in (a, b))
            for name, metric in metrics.items():
                values[name].append(metric(b, a))
            frames += 1
            bar.update()
    if (a is None) != (b is None) and (arguments.frames is None or frames < arguments.frames):
        longer = arguments.compare[0 if b is None else 1]
        raise InputError(f"--compare: {longer} has more than the {count(frames, 'frame')} of the other; give --frames "
                         f"{frames} to compare the first ones")
    return values, frames


def _vmaf(arguments: argparse.Namespace, reference: FrameSource) -> str:
    """The mean of VMAF as FFmpeg's filter computes it on 4:2:0 of 8 bits, or why there is none."""
    if VMAF not in av.filter.filters_available:
        return "none: this PyAV has no libvmaf"
    graph = av.filter.Graph()
    inputs = [graph.add_buffer(width=reference.width, height=reference.height, format=av.VideoFormat("yuv420p"),
                               time_base=Fraction(1, 25)) for _ in range(2)]
    log = Path(arguments.compare[1]).with_suffix(".vmaf.csv")
    judge, sink = graph.add(VMAF, f"log_fmt=csv:log_path={log}"), graph.add("buffersink")
    inputs[1].link_to(judge, 0, 0)                                  # the distorted one comes first
    inputs[0].link_to(judge, 0, 1)
    judge.link_to(sink)
    graph.configure()
    try:
        for n, pictures in enumerate(zip(*(_pictures(arguments, path) for path in arguments.compare))):
            for entry, picture in zip(inputs, pictures):
                picture.pts, picture.time_base = n, Fraction(1, 25)
                entry.push(picture)
            sink.pull()
        for entry in inputs:
            entry.push(None)
        del sink, judge, graph
        rows = np.genfromtxt(log, delimiter=",", names=True)
        return f"{np.atleast_1d(rows['vmaf']).mean():.4f}"
    except av.error.FFmpegError as error:
        return f"none: {error.strerror or error}"
    finally:
        log.unlink(missing_ok=True)


def _pictures(arguments: argparse.Namespace, path: Path) -> Iterator[av.VideoFrame]:
    for frame in open_source(path, video_options(arguments, arguments.frames), lambda line: None):
        rgb = np.ascontiguousarray(frame.permute(1, 2, 0).numpy())
        yield av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv420p", threads=1)

