"""What a video is besides its pixels: rate, time stamps, colour tags. From a source, through a stream, to a file."""
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import NamedTuple

from torch import Tensor

from util.color import Color

MATRICES = {1: "BT709", 5: "BT601", 6: "BT601"}
"""Matrix coefficients (H.273, table 4) that are known here; 0 is RGB, 2 is "unspecified"."""
STANDARDS = {"BT709": 1, "BT601": 6}
"""The number of a matrix in H.273, which is also that of its primaries and transfer (tables 2 and 3)."""
RGB, UNSPECIFIED = 0, 2
HD_LINES = 720
"""From so many lines on, players take untagged video for BT.709; below, for BT.601."""


@dataclass(frozen=True)
class ColorTags:
    """How samples stand for light, in the numbers of H.273, where 2 is "unspecified".

    Attributes:
        matrix: 0 for RGB.
        range: "limited" or "full".
        primaries, transfer: as in the file; nothing is computed with them.
        assumed: the file told neither matrix or not the range, which were taken as players take them.
    """
    matrix: int
    range: str
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    assumed: bool = False

    @classmethod
    def of(cls, color: Color) -> "ColorTags":
        """The tags of a standard: one number serves matrix, primaries and transfer."""
        number = STANDARDS[color.matrix]
        return cls(number, color.range, number, number)

    @property
    def color(self) -> Color | None:
        """What `util.color` computes with; None for RGB."""
        return None if self.matrix == RGB else Color(MATRICES[self.matrix], self.range)

    @property
    def name(self) -> str:
        return "RGB" if self.matrix == RGB else MATRICES[self.matrix]


PLAIN_RGB = ColorTags(RGB, "full")


def usual_matrix(height: int) -> str:
    """What players take a video for that does not tell."""
    return "BT709" if height >= HD_LINES else "BT601"


def assume(color: ColorTags, name: str, height: int, say: Callable[[str], None]) -> ColorTags:
    """The tags with what they do not tell (matrix 2, range "") taken as players take it, which is said in one line."""
    missing = [*(["matrix"] if color.matrix == UNSPECIFIED else []), *([] if color.range else ["range"])]
    if not missing:
        return color
    matrix = STANDARDS[usual_matrix(height)] if color.matrix == UNSPECIFIED else color.matrix
    color = replace(color, matrix=matrix, range=color.range or "limited", assumed=True)
    say(f"{name} has no colour {' and no '.join(missing)} tag; it is taken for {color.name}, {color.range} range, as "
        "players do (--color_matrix and --color_range say otherwise)")
    return color


@dataclass(frozen=True)
class VideoFacts:
    """What holds for a whole video.

    Attributes:
        rate: frames per second, or None when unknown.
        color: how its samples stood for RGB.
        time_base: seconds per unit of its time stamps; None where frame n comes at n / rate.
        start: time stamp of the first frame.
        pixel_aspect: width over height of a pixel, or None: square or unknown.
    """
    rate: Fraction | None = None
    color: ColorTags = PLAIN_RGB
    time_base: Fraction | None = None
    start: int = 0
    pixel_aspect: Fraction | None = None

    def expected(self, number: int) -> int:
        """The time stamp of frame `number` (from 0) at a constant rate, in units of `time_base`."""
        if self.rate is None or self.time_base is None:
            return self.start
        return self.start + int(number / (self.rate * self.time_base) + Fraction(1, 2))

    def seconds(self, number: int, stamp: int | None) -> Fraction | None:
        """When frame `number` is shown; None where nothing tells."""
        if stamp is not None and self.time_base is not None:
            return stamp * self.time_base
        return number / self.rate if self.rate else None

    def with_rate(self, rate: Fraction | None) -> "VideoFacts":
        """At another constant rate; None changes nothing."""
        return self if rate is None else replace(self, rate=rate, time_base=None, start=0)

    def describe(self) -> dict:
        """For the record of a run."""
        color = self.color
        told = {"range": color.range, "assumed": color.assumed} if color.matrix != RGB else {}
        return {"color": color.name, **told, "rate": None if self.rate is None else str(self.rate)}


NOTHING_KNOWN = VideoFacts()


class Timed(NamedTuple):
    """A frame and when it is shown.

    Attributes:
        pixels: uint8 (3, H, W).
        stamp: in units of the video's time base; None where it has none.
    """
    pixels: Tensor
    stamp: int | None = None
