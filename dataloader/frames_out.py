"""Frames to plain files: PNG folder, raw YUV or RGB, y4m (also to standard output). Containers: video_out.py.

Every writer is a context that yields `write(frame, stamp=None)`: a tensor (3, H, W), uint8 or float in [0, 1], and when
it is shown, in units of the video's time base (mp4 and mkv keep it; elsewhere frames come at a constant rate). Files
and folders appear under their final name when the block ends well, and not at all otherwise.
"""
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image
from torch import Tensor

from util.color import Color, PixelFormat, rgb_to_yuv
from util.errors import InputError
from util.files import atomic_path
from util.video import VideoFacts

Write = Callable[..., None]
"""(frame, stamp=None)"""

DEFAULT_RATE = Fraction(25)                 # y4m and containers want one
CONTAINERS = (".mp4", ".mkv")
"""Endings of containers, which keep time stamps and hold sound (video_out.py)."""


@contextmanager
def png_folder(path: str | Path) -> Iterator[Write]:
    """frame_1.png, frame_2.png, ...; a folder that holds nothing else is replaced.

    Raises:
        InputError: the place holds other files or cannot be written.
    """
    path = Path(path)
    if path.exists() and not (path.is_dir() and all(re.fullmatch(r"frame_\d+\.png", p.name) for p in path.iterdir())):
        raise InputError(f"{path} holds more than frames; choose another folder")
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        number = 0

        def write(frame: Tensor, stamp: int | None = None) -> None:
            nonlocal number
            number += 1
            Image.fromarray(to_pixels(frame)).save(temporary / f"frame_{number}.png")

        yield write
        temporary.chmod(0o755)
        if path.exists():
            shutil.rmtree(path)
        temporary.rename(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror or error}); choose another place") from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def to_pixels(frame: Tensor) -> np.ndarray:
    """uint8 (H, W, 3). A float frame is rounded as decoders round theirs (util/coding/session.py): half to even."""
    rgb = to_array(frame)
    if rgb.dtype != np.uint8:
        rgb = np.clip(np.rint(rgb * 255), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(rgb.transpose(1, 2, 0))


def to_array(frame: Tensor) -> np.ndarray:
    return frame.detach().cpu().numpy()


@contextmanager
def raw_file(path: str | Path, pixels: PixelFormat, color: Color | None, order: tuple[int, ...] = (0, 1, 2)
             ) -> Iterator[Write]:
    """Planes one after the other. `order`: how to store them, by index."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        def write(frame: Tensor, stamp: int | None = None) -> None:
            planes = rgb_to_yuv(to_array(frame), pixels, color)
            file.writelines(planes[i].tobytes() for i in order[:len(planes)])

        yield write


@contextmanager
def y4m_file(path: str | Path, pixels: PixelFormat, height: int, width: int, facts: VideoFacts,
             say: Callable[[str], None]) -> Iterator[Write]:
    """YUV4MPEG2, to standard output if the path is "-". The format can tell the range, but not the matrix.

    Raises:
        InputError: RGB, or the place cannot be written (the reader of the pipe went away, the disk is full).
    """
    if pixels.chroma == "rgb":
        raise InputError("y4m cannot hold RGB; use --pixel_format 444, or an mkv file")
    if str(path) != "-":
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            yield _y4m_writer(file, path, pixels, height, width, facts, say)
        return
    try:
        yield _y4m_writer(sys.stdout.buffer, path, pixels, height, width, facts, say)
        sys.stdout.buffer.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())      # or the exit would try to flush again
        raise InputError(f"standard output cannot be written ({error.strerror}); keep its reader running") from None


def _y4m_writer(file: BinaryIO, path: str | Path, pixels: PixelFormat, height: int, width: int, facts: VideoFacts,
                say: Callable[[str], None]) -> Write:
    rate, aspect, color = facts.rate or DEFAULT_RATE, facts.pixel_aspect or Fraction(1), facts.color.color
    chroma = {"400": "mono", "420": "420mpeg2" if pixels.depth == 8 else "420"}.get(pixels.chroma, pixels.chroma)
    chroma += "" if pixels.depth == 8 else f"{'' if pixels.chroma == '400' else 'p'}{pixels.depth}"
    header = (f"YUV4MPEG2 W{width} H{height} F{rate.numerator}:{rate.denominator} Ip "
              f"A{aspect.numerator}:{aspect.denominator} C{chroma} XCOLORRANGE={color.range.upper()}\n")
    number, constant = 0, True

    def write(frame: Tensor, stamp: int | None = None) -> None:
        nonlocal header, number, constant
        if constant and stamp is not None and stamp != facts.expected(number):
            constant = False
            say(f"the rate of the source varies, which y4m cannot tell: {path} gets {float(rate):g} frames per second; "
                "mp4 and mkv keep time stamps")
        planes = rgb_to_yuv(to_array(frame), pixels, color)
        file.writelines([header.encode(), b"FRAME\n", *(plane.tobytes() for plane in planes)])
        header, number = "", number + 1

    return write
