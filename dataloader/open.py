"""One door for frames in and one for frames out: the kind is told from the path.

    in:   a folder (frame_1.png, ...)    .yuv .rgb .raw    any other file (PyAV)    - (PyAV; raw when a size is given)
    out:  a folder (frame_1.png, ...)    .yuv .rgb .raw    .y4m    .mp4    .mkv     - (y4m)
"""
import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from torch import Tensor

from dataloader.raw import RawVideo, parse_name
from dataloader.source import FrameSource, PngFolder
from dataloader.video import STDIN, VideoFile, say_on_stderr
from dataloader.video_out import ENCODERS, Write, encoded_file, png_folder, raw_file, y4m_file
from util.color import Color, PixelFormat
from util.errors import InputError

RAW_SUFFIXES = (".yuv", ".rgb", ".raw")


@dataclass(frozen=True)
class VideoOptions:
    """What the flags say about a video; None where they are silent.

    Attributes:
        size: (width, height) of raw video.
        chroma: of raw video in, or of any video out; a member of util.choices.RAW_FORMATS.
        depth: likewise, bits per sample.
        matrix, range: "BT601" or "BT709", "limited" or "full".
        rate: frames per second.
        frames: use at most so many, from the first.
    """
    size: tuple[int, int] | None = None
    chroma: str | None = None
    depth: int | None = None
    matrix: str | None = None
    range: str | None = None
    rate: Fraction | None = None
    frames: int | None = None

    def color(self, name: str) -> Color:
        """The colour, which must have been given.

        Raises:
            InputError: it was not.
        """
        if not self.matrix or not self.range:
            raise InputError(f"the colours of {name} are not told; give --color_matrix BT601 or BT709 and "
                             "--color_range limited or full")
        return Color(self.matrix, self.range)


def video_options(args: argparse.Namespace, frames: int | None = None) -> VideoOptions:
    """From parsed arguments."""
    return VideoOptions(args.video_size, args.pixel_format, args.bit_depth, args.color_matrix, args.color_range,
                        args.frame_rate, frames)


def open_source(path: str | Path, options: VideoOptions = VideoOptions(),
                say: Callable[[str], None] = say_on_stderr) -> FrameSource:
    """Frames of whatever `path` is. `say` takes remarks, such as that audio is dropped.

    Raises:
        InputError: see PngFolder, RawVideo and VideoFile.
    """
    if Path(path).is_dir():
        source = PngFolder(path, rate=options.rate)
    elif Path(path).suffix.lower() in RAW_SUFFIXES or (str(path) == STDIN and options.size):
        source = _raw(path, options)
    else:
        source = VideoFile(path, matrix=options.matrix, range=options.range, rate=options.rate, say=say)
    return source if options.frames is None else FirstFrames(source, options.frames)


def _raw(path: str | Path, options: VideoOptions) -> RawVideo:
    """Flags go before the file's name. Names that say neither format nor depth mean 8-bit 4:2:0, by custom."""
    named = parse_name(Path(path).stem)
    width, height = options.size or (named.width, named.height)
    if not width:
        raise InputError(f"the size of raw video {path} is unknown; give --video_size WIDTHxHEIGHT or name it like "
                         "Beauty_1920x1080_120.yuv")
    chroma = options.chroma or named.chroma or "420"
    if chroma == "420" and Path(path).suffix.lower() == ".rgb":
        raise InputError(f"{path} does not tell its plane order; give --pixel_format rgb or gbr")
    color = None if chroma in ("rgb", "gbr") else options.color(str(path))
    return RawVideo(path, width=width, height=height, chroma=chroma, depth=options.depth or named.depth or 8,
                    color=color, rate=options.rate or named.rate)


class FirstFrames:
    """The first frames of a source: `frames` of them, or all if it has fewer."""

    def __init__(self, source: FrameSource, frames: int):
        if frames < 1:
            raise InputError(f"{frames} frames of {source.name} are asked for; ask for 1 or more")
        self.source, self.frames = source, frames
        self.name, self.height, self.width = source.name, source.height, source.width
        self.rate, self.color = source.rate, source.color
        self.length = None if source.length is None else min(frames, source.length)

    def __iter__(self) -> Iterator[Tensor]:
        frames = iter(self.source)
        for _, frame in zip(range(self.frames), frames):
            yield frame


@contextmanager
def open_sink(path: str | Path, height: int, width: int, options: VideoOptions = VideoOptions(),
              rate: Fraction | None = None) -> Iterator[Write]:
    """A context that yields `write(frame)` for tensors (3, H, W), uint8 or float in [0, 1] (video_out.py).

    Args:
        path: see the head of this file; without an ending it is a folder of PNGs.
        rate: frames per second where the options do not tell.

    Raises:
        InputError: unknown ending, colours not told, a format the kind cannot hold, or the place cannot be written.
    """
    kind = ".y4m" if str(path) == STDIN else Path(path).suffix.lower()
    chroma = options.chroma or ("rgb" if kind == ".rgb" else "444")
    if chroma == "400":
        raise InputError(f"--pixel_format 400 would leave {path} without colour; choose another format")
    pixels = PixelFormat("rgb" if chroma == "gbr" else chroma, options.depth or 8)
    rate = options.rate or rate
    if kind == "" or Path(path).is_dir():
        sink = png_folder(path)
    elif kind not in (*RAW_SUFFIXES, ".y4m", *ENCODERS):
        raise InputError(f"{path} has an unknown ending; choose from {', '.join(RAW_SUFFIXES)}, .y4m, "
                         f"{', '.join(ENCODERS)}, or a folder")
    else:
        color = None if pixels.chroma == "rgb" else options.color(str(path))
        if kind in RAW_SUFFIXES:
            sink = raw_file(path, pixels, color, (1, 2, 0) if chroma == "gbr" else (0, 1, 2))
        elif kind == ".y4m":
            sink = y4m_file(path, pixels, color, height, width, rate)
        else:
            sink = encoded_file(path, pixels, color, height, width, rate)
    with sink as write:
        yield write
