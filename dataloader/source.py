"""The one interface through which frames come in, and its PNG folder.

Frames are uint8 RGB tensors (3, H, W), read when they are asked for, so that memory does not grow with length.
"""
import re
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from util.color import Color
from util.errors import InputError
from util.video import PLAIN_RGB, ColorTags, Timed, VideoFacts

STDIN = "-"


def say_on_stderr(line: str) -> None:
    """Where remarks go unless the caller says otherwise: standard output may be a video."""
    print(f"note: {line}", file=sys.stderr)


class FrameSource:
    """Where frames come from.

    Attributes:
        name: for messages.
        height, width: of every frame, in pixels.
        length: number of frames, or None when it is not known beforehand (a pipe).
        facts: rate, time stamps and colour.
    """
    name: str
    height: int
    width: int
    length: int | None
    facts: VideoFacts

    def timed(self) -> Iterator[Timed]:
        """All frames in order, with their time stamps. May be called again where the source can be read again."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[Tensor]:
        """All frames in order, uint8 (3, H, W)."""
        return (frame.pixels for frame in self.timed())

    @property
    def rate(self) -> Fraction | None:
        """Frames per second, or None when unknown."""
        return self.facts.rate

    @property
    def color(self) -> str:
        """How the RGB came about, e.g. "BT601", "BT709" or "RGB"; for the record only."""
        return self.facts.color.name


class PngFolder(FrameSource):
    """`frame_1.png`, `frame_2.png`, ... of one folder.

    Args:
        folder: where the frames are.
        length: how many frames to use, from the first; None uses all.
        color: the matrix with which they were made of YUV, or "RGB"; for the record.

    Raises:
        InputError: no such folder, a frame is missing (the first one is named), no 8-bit image, or of another size.
    """

    def __init__(self, folder: str | Path, *, length: int | None = None, rate: Fraction | None = None,
                 color: str = "RGB"):
        self.folder = Path(folder)
        self.name = self.folder.name
        self.facts = VideoFacts(rate, PLAIN_RGB if color == "RGB" else ColorTags.of(Color(color, "limited")))
        if not self.folder.is_dir():
            raise InputError(f"folder {self.folder} does not exist; it must hold frame_1.png, frame_2.png, ...")
        on_disk = self._count(length)
        self.length = on_disk if length is None else length
        _, self.height, self.width = self._read(1).shape

    def _count(self, needed: int | None) -> int:
        """The number of consecutive frames; all numbers up to the needed or the last one must be there."""
        matches = (re.fullmatch(r"frame_(\d+)\.png", path.name) for path in self.folder.iterdir())
        numbers = {int(match[1]) for match in matches if match}
        last = max(needed or 1, max(numbers, default=0) if needed is None else needed)
        for n in range(1, last + 1):
            if n not in numbers:
                raise InputError(f"frame {self.folder / f'frame_{n}.png'} is missing; frames 1 to {last} are needed")
        return last

    def _read(self, n: int) -> Tensor:
        path = self.folder / f"frame_{n}.png"
        try:
            with Image.open(path) as image:
                if image.mode not in ("RGB", "L") or _bit_depth(path) > 8:
                    raise InputError(f"frame {path} is no 8-bit RGB image ({image.mode}, {_bit_depth(path)} bits); "
                                     "convert it to 8-bit RGB")
                pixels = np.array(image.convert("RGB"))
        except UnidentifiedImageError:
            raise InputError(f"frame {path} is no image; replace it") from None
        except OSError as error:
            raise InputError(f"frame {path} cannot be read ({error.strerror or 'truncated image'}); replace it"
                             ) from None
        except SyntaxError:                                        # how Pillow reports a broken PNG
            raise InputError(f"frame {path} cannot be read (broken PNG); replace it") from None
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def timed(self) -> Iterator[Timed]:
        for n in range(1, self.length + 1):
            frame = self._read(n)
            if frame.shape[1:] != (self.height, self.width):
                raise InputError(f"frame {self.folder / f'frame_{n}.png'} is {frame.shape[2]}x{frame.shape[1]}, but "
                                 f"frame_1.png is {self.width}x{self.height}; all frames of a sequence have one size")
            yield Timed(frame)


def _bit_depth(path: Path) -> int:
    """Bits per sample from the PNG header (Pillow silently reduces 16-bit RGB)."""
    with path.open("rb") as file:
        head = file.read(25)
    return head[24] if head[:8] == b"\x89PNG\r\n\x1a\n" and len(head) == 25 else 8


class CenterCrop(FrameSource):
    """A source cropped around its centre to multiples of `factor`, with torchvision's rounding.

    Raises:
        InputError: a side is smaller than the factor.
    """

    def __init__(self, source: FrameSource, factor: int):
        self.source = source
        self.name, self.facts, self.length = source.name, source.facts, source.length
        self.height = source.height - source.height % factor
        self.width = source.width - source.width % factor
        if not self.height or not self.width:
            raise InputError(f"--test_crop leaves nothing of {source.name}: {source.width}x{source.height} is smaller "
                             f"than --crop_factor {factor}; use a smaller --crop_factor")

    def timed(self) -> Iterator[Timed]:
        top = round((self.source.height - self.height) / 2)             # a half to the even number, as torchvision
        left = round((self.source.width - self.width) / 2)
        for pixels, stamp in self.source.timed():
            yield Timed(pixels[:, top:top + self.height, left:left + self.width], stamp)
