"""Bjontegaard delta rate by the library `bjontegaard` (Herglotz et al., ICIP 2022), and when not to trust it.

BD-rate is the mean difference of log rate at equal quality over the range of quality that both curves share, as a
percentage; negative means that fewer bits are needed than the anchor needs. Curves for which that says nothing are
refused.
"""
import warnings
from collections.abc import Sequence

import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore")             # it imports pyplot, which may remark on its cache
    from bjontegaard import bd_rate as library_bd_rate

from util.comparison.curves import Point

METHODS = ("pchip", "akima")
MIN_POINTS = 4
MIN_OVERLAP = 0.5


class Refused(ValueError):
    """Two curves cannot be compared; the message says why."""


def check_curve(name: str, points: Sequence[Point]) -> None:
    """Refuse a curve that is too short, not finite, or not monotone.

    Raises:
        Refused: with the reason.
    """
    if len(points) < MIN_POINTS:
        raise Refused(f"{name} has {len(points)} rate points, {MIN_POINTS} are needed")
    if not all(np.isfinite([point.rate, point.quality]).all() and point.rate > 0 for point in points):
        raise Refused(f"{name} has a point without a finite quality and a positive rate")
    ordered = sorted(points)
    for low, high in zip(ordered, ordered[1:]):
        if high.rate <= low.rate or high.quality <= low.quality:
            raise Refused(f"{name} is not monotone: {low.quality:.4f} at {low.rate:.4f} bpp, {high.quality:.4f} at "
                          f"{high.rate:.4f} bpp")


def overlap(first: Sequence[Point], second: Sequence[Point]) -> float:
    """Shared range of quality over the range that both span together, in [0, 1] (as the library has it)."""
    ranges = [(min(p.quality for p in points), max(p.quality for p in points)) for points in (first, second)]
    (low_a, high_a), (low_b, high_b) = ranges
    return max(0.0, min(high_a, high_b) - max(low_a, low_b)) / (max(high_a, high_b) - min(low_a, low_b))


def bd_rate(anchor: Sequence[Point], test: Sequence[Point], method: str = "pchip", min_overlap: float = MIN_OVERLAP,
            names: tuple[str, str] = ("the anchor", "the test")) -> float:
    """BD-rate in percent of `test` against `anchor`.

    Args:
        method: "pchip" (piecewise cubic, used in standardisation) or "akima".
        min_overlap: the least overlap that is accepted.

    Raises:
        Refused: a curve of less than four points, not monotone, or with too little overlap.
    """
    for name, points in zip(names, (anchor, test)):
        check_curve(name, points)
    share = overlap(anchor, test)
    if share < min_overlap or share == 0:
        raise Refused(f"{names[1]} and {names[0]} overlap in {100 * share:.0f} % of their quality range, "
                      f"{100 * min_overlap:.0f} % are needed")
    columns = [[getattr(point, field) for point in sorted(points)]
               for points in (anchor, test) for field in ("rate", "quality")]
    return float(library_bd_rate(*columns, method=method, require_matching_points=False, min_overlap=0))
