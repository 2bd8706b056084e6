"""One door for frames in and one for frames out: the kind is told from the path.

    in:   a folder (frame_1.png, ...)    .yuv .rgb .raw    any other file (PyAV)    - (PyAV; raw when a size is given)
    out:  a folder (frame_1.png, ...)    .yuv .rgb .raw    .y4m    .mp4    .mkv     - (y4m)
"""
import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from dataloader.frames_out import CONTAINERS, Write, png_folder, raw_file, y4m_file
from dataloader.raw import RawVideo, parse_name
from dataloader.source import STDIN, FrameSource, PngFolder, say_on_stderr
from util.color import PixelFormat
from util.errors import InputError
from util.video import (
    NOTHING_KNOWN,
    PLAIN_RGB,
    RGB,
    STANDARDS,
    UNSPECIFIED,
    ColorTags,
    Timed,
    VideoFacts,
    assume,
    usual_matrix,
)

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

    def tags(self) -> ColorTags:
        """The colour as far as the flags tell."""
        matrix = STANDARDS.get(self.matrix, UNSPECIFIED)
        return ColorTags(matrix, self.range or "", matrix, matrix)


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
        source = _raw(path, options, say)
    else:
        from dataloader.video import VideoFile  # loads FFmpeg
        source = VideoFile(path, matrix=options.matrix, range=options.range, rate=options.rate, say=say)
    return source if options.frames is None else FirstFrames(source, options.frames)


def _raw(path: str | Path, options: VideoOptions, say: Callable[[str], None]) -> RawVideo:
    """Flags go before the file's name. Names that say neither format nor depth mean 8-bit 4:2:0, by custom."""
    named = parse_name(Path(path).stem)
    width, height = options.size or (named.width, named.height)
    if not width:
        raise InputError(f"the size of raw video {path} is unknown; give --video_size WIDTHxHEIGHT or name it like "
                         "Beauty_1920x1080_120.yuv")
    chroma = options.chroma or named.chroma or "420"
    if chroma == "420" and Path(path).suffix.lower() == ".rgb":
        raise InputError(f"{path} does not tell its plane order; give --pixel_format rgb or gbr")
    remarks: list[str] = []
    color = None if chroma in ("rgb", "gbr") else assume(options.tags(), str(path), height, remarks.append)
    video = RawVideo(path, width=width, height=height, chroma=chroma, depth=options.depth or named.depth or 8,
                     color=color, rate=options.rate or named.rate)
    for remark in remarks:                                                  # of a file that can be read
        say(remark)
    return video


class FirstFrames(FrameSource):
    """The first frames of a source: `frames` of them, or all if it has fewer."""

    def __init__(self, source: FrameSource, frames: int):
        if frames < 1:
            raise InputError(f"{frames} frames of {source.name} are asked for; ask for 1 or more")
        self.source, self.frames = source, frames
        self.name, self.height, self.width, self.facts = source.name, source.height, source.width, source.facts
        self.length = None if source.length is None else min(frames, source.length)

    def timed(self) -> Iterator[Timed]:
        frames = self.source.timed()
        for _, frame in zip(range(self.frames), frames):
            yield frame


@contextmanager
def open_sink(path: str | Path, height: int, width: int, options: VideoOptions = VideoOptions(),
              facts: VideoFacts = NOTHING_KNOWN, *, sound: str | Path | None = None,
              say: Callable[[str], None] = say_on_stderr) -> Iterator[Write]:
    """A context that yields `write(frame, stamp=None)` for tensors (3, H, W), uint8 or float in [0, 1] (video_out.py).

    Args:
        path: see the head of this file; without an ending it is a folder of PNGs.
        facts: rate, time stamps and colour where the options do not tell; where neither does, colour is taken as
            players would take it.
        sound: a file whose audio goes into an mp4 or mkv as it is.
        say: takes remarks.

    Raises:
        InputError: unknown ending, a format the kind cannot hold, or the place cannot be written.
    """
    kind = ".y4m" if str(path) == STDIN else Path(path).suffix.lower()
    chroma = options.chroma or ("rgb" if kind == ".rgb" else "444")
    if chroma == "400":
        raise InputError(f"--pixel_format 400 would leave {path} without colour; choose another format")
    pixels = PixelFormat("rgb" if chroma == "gbr" else chroma, options.depth or 8)
    facts = facts.with_rate(options.rate)
    folder = kind == "" or Path(path).is_dir()
    if not folder and kind not in (*RAW_SUFFIXES, ".y4m", *CONTAINERS):
        raise InputError(f"{path} has an unknown ending; choose from {', '.join(RAW_SUFFIXES)}, .y4m, "
                         f"{', '.join(CONTAINERS)}, or a folder")
    if sound is not None and (folder or kind not in CONTAINERS):
        raise InputError(f"{path} cannot hold audio; --copy_audio needs an --output that ends in "
                         f"{' or '.join(CONTAINERS)}")
    if folder:
        sink = png_folder(path)
    else:
        facts = replace(facts, color=_color_out(path, height, pixels, options, facts, say))
        if kind in RAW_SUFFIXES:
            sink = raw_file(path, pixels, facts.color.color, (1, 2, 0) if chroma == "gbr" else (0, 1, 2))
        elif kind == ".y4m":
            sink = y4m_file(path, pixels, height, width, facts, say)
        else:
            if kind == ".mkv" and facts.pixel_aspect:
                say(f"the pixels of {path} will be square, those of the source are "
                    f"{facts.pixel_aspect.numerator}:{facts.pixel_aspect.denominator}; mp4 keeps their shape")
            from dataloader.video_out import encoded_file
            sink = encoded_file(path, pixels, height, width, facts, sound)
    with sink as write:
        yield write


def _color_out(path: str | Path, height: int, pixels: PixelFormat, options: VideoOptions, facts: VideoFacts,
               say: Callable[[str], None]) -> ColorTags:
    """By the flags, else as in the source, else as players will take it."""
    flags, color = options.tags(), facts.color
    if pixels.chroma == "rgb":
        return color if color.matrix == RGB else PLAIN_RGB
    if color.matrix == RGB:
        number = STANDARDS[options.matrix or usual_matrix(height)]
        color = ColorTags(number, "limited", number, number)
        if options.matrix is None:
            say(f"the source was RGB; {path} is made {color.name}, {options.range or color.range} range "
                "(--color_matrix and --color_range say otherwise)")
    elif options.matrix not in (None, color.name):
        color = replace(flags, range=color.range)
    return replace(color, range=options.range or color.range, assumed=False)
