"""`--ladder`: several streams of one video, each in one pass at a bit rate of its own, in one reading."""
import argparse
import itertools
import time
from pathlib import Path

from dataloader.source import FrameSource
from util.cli.amounts import said
from util.cli.datasets import tell_if_short
from util.cli.streams import PIPE, MeanPsnr, Originals, write_stream
from util.cli.targets import one_pass
from util.cli.words import Coded, outcome
from util.coding.codec import Codec
from util.coding.gop import CodingPlan
from util.errors import InputError


def ladder_path(output: Path, bitrate: float) -> Path:
    """`x.hyt` -> `x_300k.hyt`."""
    return output.with_stem(f"{output.stem}_{said(bitrate)}")


def compress_ladder(arguments: argparse.Namespace, codec: Codec, source: FrameSource, plan: CodingPlan) -> None:
    """Code each mini-GOP at every rate before the next is read.

    Raises:
        InputError: as `util.cli.targets.control`; the output is a pipe.
    """
    if arguments.output == PIPE:
        raise InputError("--ladder writes several files, which a pipe cannot hold; give --output a file name")
    steps = [one_pass(arguments, codec, source, plan, bitrate) for bitrate in arguments.ladder]
    paths = [ladder_path(arguments.output, bitrate) for bitrate in arguments.ladder]
    started = time.monotonic()
    feeds = [Originals(feed) for feed in itertools.tee(source.timed(), len(steps))]      # tee: some may be ahead
    writers = [write_stream(codec, arguments, feed, source, step.controller, path)
               for step, feed, path in zip(steps, feeds, paths)]
    qualities = [MeanPsnr(codec) for _ in steps]
    try:
        for parts in zip(*writers, strict=True):
            for step, part, feed, quality in zip(steps, parts, feeds, qualities):
                quality.add(part, feed.take())
                step.see(part)
    finally:
        for writer in writers:                                      # where one failed, none leaves half a file
            writer.close()
    seconds = time.monotonic() - started
    tell_if_short(arguments, qualities[0].frames)
    for step, path, quality in zip(steps, paths, qualities):
        size = path.stat().st_size
        coded = Coded(quality.frames, source.width, source.height, 8 * size, source.rate)
        print(f"{outcome([coded], {'PSNR': quality.value()}, seconds)}; stream in {path}"
              + (", verified" if arguments.verify else "") + step.told(size) + step.plot(source, path))
