"""Video files and pipes as frames, through PyAV (FFmpeg's libraries): mp4, mkv, y4m and whatever else they demux.

Pictures are taken from the decoder as they are, plane by plane, and made RGB by util/color.py: FFmpeg converts nothing.
The colour matrix and range come from the flags, else from the stream's tags; where both are silent, they are taken as
players do, and a remark says so.
"""
import itertools
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

from dataloader.container import Container, count_pictures
from dataloader.picture import Orientation, frame_planes, has_alpha, pixel_format, planar_name
from dataloader.source import STDIN, FrameSource, say_on_stderr
from util.color import yuv_to_rgb
from util.errors import InputError
from util.video import MATRICES, PLAIN_RGB, STANDARDS, UNSPECIFIED, ColorTags, Timed, VideoFacts, assume, usual_matrix

RANGES = {1: "limited", 2: "full"}                      # FFmpeg's AVColorRange; 0 is "unspecified"
BT2020 = {9: "BT.2020", 10: "BT.2020", 14: "ICtCp"}     # matrices and (9) primaries of H.273
HDR = {16: "PQ", 18: "HLG"}                             # transfers of H.273
TO_BT709 = ("-vf zscale=t=linear:npl=100,tonemap=hable,zscale=p=bt709:t=bt709:m=bt709:r=limited,format=yuv420p "
            "out.mkv")
"""What makes BT.709 of HDR, in ffmpeg's words."""


class VideoFile(FrameSource):
    """The first video stream of a file, or of standard input.

    Args:
        path: the file, or "-" for standard input, which can be iterated over once.
        matrix, range: "BT601" or "BT709", "limited" or "full"; None takes the stream's tag.
        rate: frames per second; None takes the stream's, and its time stamps.
        say: takes remarks (colour is assumed, audio or alpha is dropped, a flag overrides a tag).

    Raises:
        InputError: no such file, no video in it, corrupt or cut off (also while iterating), a pixel format that cannot
            be read, BT.2020 or HDR.
    """

    def __init__(self, path: str | Path, *, matrix: str | None = None, range: str | None = None,
                 rate: Fraction | None = None, say: Callable[[str], None] = say_on_stderr):
        self.path = path
        self.piped = str(path) == STDIN
        self.name = "stdin" if self.piped else Path(path).stem
        reader = Container(path)
        self.length = None if self.piped else count_pictures(path)
        frames = reader.frames()
        self._remark_streams(reader, say)
        first = next(frames, None)
        if first is None:
            raise InputError(f"video {self.name} has no pictures; give another file")
        self._kind = _kind(first)
        self.pixels = pixel_format(planar_name(first.format, reader.name))
        self._orientation = Orientation(first, reader.name)
        self.height, self.width = first.height, first.width
        if self._orientation.transposed:
            self.height, self.width = self.width, self.height
        self._remark_picture(first, say)
        self.facts = self._facts(reader, first, self._choose_color(first, matrix, range, say)).with_rate(rate)
        self._color = self.facts.color.color
        self._waiting: Iterator[av.VideoFrame] | None = itertools.chain([first], frames) if self.piped else None
        if not self.piped:
            frames.close()

    def _facts(self, reader: Container, first: av.VideoFrame, color: ColorTags) -> VideoFacts:
        aspect = None if reader.pixel_aspect == 1 else reader.pixel_aspect
        if aspect and self._orientation.transposed:
            aspect = 1 / aspect
        stamped = first.pts is not None and first.time_base
        return VideoFacts(rate=reader.rate, color=color, pixel_aspect=aspect,
                          time_base=first.time_base if stamped else None, start=first.pts if stamped else 0)

    def _choose_color(self, frame: av.VideoFrame, matrix: str | None, range_: str | None,
                      say: Callable[[str], None]) -> ColorTags:
        """By the flags, else the tags, else as players do."""
        primaries, transfer = int(frame.color_primaries), int(frame.color_trc)
        if not matrix:
            self._refuse_wide(int(frame.colorspace), primaries, transfer)
        if self.pixels.chroma == "rgb":
            return ColorTags(PLAIN_RGB.matrix, PLAIN_RGB.range, primaries, transfer)
        tagged_range = "full" if frame.format.name.startswith("yuvj") else RANGES.get(int(frame.color_range))
        number = int(frame.colorspace)
        if self.pixels.chroma == "400":                                     # gray needs no matrix; its tag is kept
            number = number if number in MATRICES else STANDARDS[usual_matrix(self.height)]
        elif number not in (*MATRICES, UNSPECIFIED, 0, 3) and not matrix:
            raise InputError(f"video {self.name} has colour matrix tag {number}, and only BT601 and BT709 are known; "
                             "convert it, or say which to take it for with --color_matrix")
        tagged_matrix = MATRICES.get(number)
        for flag, tag in ((matrix, tagged_matrix), (range_, tagged_range)):
            if flag and tag and flag != tag:
                say(f"{self.name} is tagged {tag}, but is read as {flag}, as the flag says")
        if matrix and matrix != tagged_matrix:
            number = primaries = transfer = STANDARDS[matrix]
        number = number if number in MATRICES else UNSPECIFIED
        color = ColorTags(number, range_ or tagged_range or "", primaries, transfer)
        return assume(color, self.name, self.height, say)

    def _refuse_wide(self, matrix: int, primaries: int, transfer: int) -> None:
        what = [*dict.fromkeys(BT2020[tag] for tag in (matrix, primaries) if tag in BT2020),
                *(f"HDR ({HDR[tag]})" for tag in (transfer,) if tag in HDR)]
        if what:
            raise InputError(f"video {self.name} is {', '.join(what)}, and only BT601 and BT709 are known; convert it, "
                             f"for example with ffmpeg -i {self.path} {TO_BT709} (or, if its tags are wrong, say which "
                             "it is with --color_matrix)")

    def _remark_streams(self, reader: Container, say: Callable[[str], None]) -> None:
        if reader.container.streams.audio:
            say(f"{self.name} has audio, which is dropped (--copy_audio takes it into what is decoded)")
        if len(reader.videos) > 1:
            say(f"{self.name} has {len(reader.videos)} video streams; the first is used")

    def _remark_picture(self, frame: av.VideoFrame, say: Callable[[str], None]) -> None:
        if has_alpha(frame.format):
            say(f"{self.name} has an alpha channel, which is dropped")
        if frame.interlaced_frame:
            say(f"{self.name} is interlaced; both fields of a picture are coded as they are, in one frame")

    def planes(self) -> Iterator[list[np.ndarray]]:
        """The integer planes of every frame, as stored (RGB in that order), not turned."""
        return (frame_planes(frame, self.pixels) for frame in self._frames())

    def _frames(self) -> Iterator[av.VideoFrame]:
        frames = self._waiting if self.piped else Container(self.path).frames()
        if frames is None:
            raise InputError("standard input can be read only once; give a file")
        self._waiting = None
        n = 0
        for n, frame in enumerate(frames, start=1):
            if _kind(frame) != self._kind:
                raise InputError(f"video {self.name} changes its size or format at frame {n}; convert it to one")
            yield frame
        if self.length is not None and n != self.length:
            raise InputError(f"video {self.name} is corrupt: {n} of {self.length} frames can be decoded; "
                             "give an intact file")

    def timed(self) -> Iterator[Timed]:
        stamped = self.facts.time_base is not None
        for frame in self._frames():
            rgb = self._orientation.apply(yuv_to_rgb(frame_planes(frame, self.pixels), self.pixels, self._color))
            yield Timed(torch.from_numpy(rgb), frame.pts if stamped else None)


def _kind(frame: av.VideoFrame) -> tuple:
    """What must not change within a video."""
    return frame.width, frame.height, frame.format.name, int(frame.colorspace), int(frame.color_range)
