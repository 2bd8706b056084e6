"""Conventional codecs to compare with, measured as ours are (docs/anchors.md): x264, x265, HM 16.25, VTM 17.0.

    libraries.py   x264 and x265 through PyAV, nothing to install
    reference.py   HM and VTM, when their encoders are given
    measure.py     bits and RGB quality per frame, in the report format
    __main__.py    `python -m util.anchors`
"""
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from torch import Tensor

from dataloader.source import FrameSource


class AnchorFrame(NamedTuple):
    """One coded frame.

    Attributes:
        bits: all of them, headers included.
        original: uint8 (3, H, W).
        decoded: float64 (3, H, W) in [0, 1], the decoded YUV as RGB without rounding, as ours is measured.
    """
    bits: int
    original: Tensor
    decoded: Tensor


class Anchor(Protocol):
    """A conventional codec in one setting. `name` is that of its result folders, `qps` what it takes."""
    name: str
    qps: range

    def code(self, source: FrameSource, qp: int) -> Iterator[AnchorFrame]:
        """Code all frames, in order."""
