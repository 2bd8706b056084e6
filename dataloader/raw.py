"""Headerless planar YUV or RGB files (and pipes), described by arguments or by the file's name.

Samples are 8 bits, or 16 bits little endian for deeper ones; planes follow each other, frame after frame. Names are
read like `Beauty_1920x1080_120`, `Beauty_1920x1080_120fps_420_8bit_YUV` or `EBURainFruits_1920x1080_50_10bit_444`.
"""
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from dataloader.source import FrameSource
from util.color import PixelFormat, yuv_to_rgb
from util.errors import InputError
from util.video import PLAIN_RGB, ColorTags, Timed, VideoFacts

PLANE_ORDERS = {"rgb": (0, 1, 2), "gbr": (2, 0, 1)}      # where R, G and B lie


@dataclass(frozen=True)
class RawLayout:
    """What a file's name tells; None where it is silent."""
    width: int | None = None
    height: int | None = None
    rate: Fraction | None = None
    chroma: str | None = None
    depth: int | None = None


def parse_name(stem: str) -> RawLayout:
    """The layout in a file name: `{title}_{W}x{H}[_{rate}[fps|Hz]][_{n}bit][_{chroma}]`."""
    size = re.search(r"(?:^|_)(\d+)x(\d+)(?=_|$)", stem)
    if not size:
        return RawLayout()
    rate = chroma = depth = None
    for token in stem[size.end():].lower().split("_"):
        if match := re.fullmatch(r"(\d+)bits?", token):
            depth = int(match[1])
        elif match := re.fullmatch(r"(?:p|yuv|yuv_)?(400|420|422|444)p?(?:(\d+)le)?", token):
            chroma, depth = match[1], int(match[2]) if match[2] else depth
        elif token in PLANE_ORDERS:
            chroma = token
        elif rate is None and (match := re.fullmatch(r"(\d+(?:\.\d+)?)(fps|hz)?", token)):
            rate = Fraction(match[1])
    return RawLayout(int(size[1]), int(size[2]), rate, chroma, depth)


class RawVideo(FrameSource):
    """A raw file, or standard input.

    Args:
        path: the file, or "-".
        width, height: in pixels.
        chroma: a key of CHROMA; "gbr" is RGB whose planes are stored in that order.
        depth: bits per sample.
        color: None for RGB; with `assumed` where nobody told.
        length: how many frames to use, from the first; None uses all.

    Raises:
        InputError: no such file, not a whole number of frames, too few, or a sample that needs more bits.
    """

    def __init__(self, path: str | Path, *, width: int, height: int, chroma: str, depth: int,
                 color: ColorTags | None, rate: Fraction | None = None, length: int | None = None):
        self.path = path
        self.piped = str(path) == "-"
        self.name = "stdin" if self.piped else Path(path).stem
        self.order = PLANE_ORDERS.get(chroma, (0, 1, 2))
        self.pixels = PixelFormat("rgb" if chroma == "gbr" else chroma, depth)
        if min(width, height) < 1:
            raise InputError(f"size {width}x{height} of {self.name} is not positive; give it as WIDTHxHEIGHT")
        if self.pixels.chroma != "rgb" and color is None:
            raise InputError(f"raw video {self.name} says nothing of its colours; "
                             "give --color_matrix BT601 or BT709 and --color_range limited or full")
        self.width, self.height = width, height
        self.facts = VideoFacts(rate, PLAIN_RGB if self.pixels.chroma == "rgb" else color)
        self.shapes = self.pixels.plane_shapes(height, width)
        self.frame_bytes = sum(rows * columns for rows, columns in self.shapes) * self.pixels.dtype.itemsize
        self._used = False
        self.length = length if self.piped else self._count(length)

    def _count(self, wanted: int | None) -> int:
        if not Path(self.path).is_file():
            raise InputError(f"raw video {self.path} does not exist; give a file")
        size = Path(self.path).stat().st_size
        frames, rest = divmod(size, self.frame_bytes)
        if rest or not frames:
            raise InputError(f"{self.path} has {size} bytes, no whole number of frames of {self.frame_bytes} bytes "
                             f"({self._layout()}); give the right size and format, or the whole file")
        if wanted is not None and frames < wanted:
            raise InputError(f"{self.path} has {frames} frames, but {wanted} are needed; give the whole file")
        return frames if wanted is None else wanted

    def _layout(self) -> str:
        return f"{self.width}x{self.height}, {self.pixels.chroma}, {self.pixels.depth} bits"

    def planes(self) -> Iterator[list[np.ndarray]]:
        """The integer planes of every frame (RGB in that order)."""
        if self.piped:
            if self._used:
                raise InputError("standard input can be read only once; give a file")
            self._used = True
            yield from self._read(sys.stdin.buffer)
            return
        try:
            with open(self.path, "rb") as file:
                yield from self._read(file)
        except OSError as error:
            raise InputError(f"{self.path} cannot be read ({error.strerror}); give another file") from None

    def _read(self, file: BinaryIO) -> Iterator[list[np.ndarray]]:
        n = 0
        while self.length is None or n < self.length:
            data = file.read(self.frame_bytes)
            if not data and self.length is None and n:
                return
            n += 1
            if len(data) < self.frame_bytes:
                raise InputError(f"{self.name} ends within frame {n} ({len(data)} of {self.frame_bytes} bytes, "
                                 f"{self._layout()}); give the right layout or the whole video")
            yield self._split(np.frombuffer(data, dtype=self.pixels.dtype), n)

    def _split(self, samples: np.ndarray, n: int) -> list[np.ndarray]:
        if self.pixels.depth not in (8, 16) and samples.max() >> self.pixels.depth:
            raise InputError(f"frame {n} of {self.name} has a sample of {samples.max()}, above {self.pixels.depth} "
                             "bits; give the right --bit_depth and --pixel_format (16-bit little endian, low bits)")
        ends = np.cumsum([rows * columns for rows, columns in self.shapes])
        planes = [part.reshape(shape) for part, shape in zip(np.split(samples, ends[:-1]), self.shapes)]
        return [planes[i] for i in self.order[:len(planes)]]

    def timed(self) -> Iterator[Timed]:
        for planes in self.planes():
            yield Timed(torch.from_numpy(yuv_to_rgb(planes, self.pixels, self.facts.color.color)))


