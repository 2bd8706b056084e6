"""Report folders to rate-distortion curves.

A folder holds the reports of one codec at one rate (docs/comparison.md): `report/{sequence}[_enc|_dec][_FullSeq].csv`.
A sequence's figure is the mean over its GOPs of the mean over their frames, a data set's the mean over all GOPs of its
sequences.
"""
import csv
import math
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from dataloader.sequences import all_sequences
from util.errors import InputError

SUFFIX = re.compile(r"(_enc|_dec)?(_FullSeq)?$")


class Point(NamedTuple):
    """`rate` in bits per pixel, `quality` in the metric's unit, over `frames` frames in `gops` GOPs."""
    rate: float
    quality: float
    frames: int
    gops: int


@dataclass(frozen=True)
class Codec:
    """All that was measured of one codec in one metric.

    Attributes:
        name: for tables and plots.
        metric: as the reports call it.
        curves: points in order of rate, by sequence.
    """
    name: str
    metric: str
    curves: dict[str, list[Point]]


def read_report(path: Path, gop: int) -> tuple[str, Point]:
    """(metric, figure) of one sequence at one rate.

    Raises:
        InputError: no report, or one without quality.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        metric, rate = header[1], header.index("Rate")
        values = [(float(row[rate]), float(row[1])) for row in rows]
    except (OSError, ValueError, IndexError):
        raise InputError(f"{path} is no report with a quality and a rate per frame; make it anew") from None
    if not values:
        raise InputError(f"{path} has no frames; make it anew")
    gops = [values[start:start + gop] for start in range(0, len(values), gop)]
    rates, qualities = (fmean(fmean(frame[i] for frame in part) for part in gops) for i in (0, 1))
    return metric, Point(rates, qualities, len(values), len(gops))


def read_codec(name: str, folders: Iterable[Path], gop: int) -> Codec:
    """The curves of a codec from one folder per rate.

    Raises:
        InputError: a folder without reports, reports of different metrics, or of different lengths.
    """
    curves: dict[str, list[Point]] = defaultdict(list)
    metrics = {}
    for folder in folders:
        reports = sorted((folder / "report").glob("*.csv"))
        if not reports:
            raise InputError(f"{folder} holds no reports (report/*.csv); give the folders that runs wrote")
        for path in reports:
            metric, point = read_report(path, gop)
            metrics[metric] = path
            curves[SUFFIX.sub("", path.stem)].append(point)
    if len(metrics) > 1:
        found = ", ".join(f"{metric} in {path}" for metric, path in metrics.items())
        raise InputError(f"{name} mixes metrics: {found}; compare one at a time")
    for sequence, points in curves.items():
        if len({point.frames for point in points}) > 1:
            raise InputError(f"{name}, {sequence}: reports have {sorted(point.frames for point in points)} frames; "
                             "measure all rates over equal lengths")
    return Codec(name, next(iter(metrics)), {sequence: sorted(points) for sequence, points in curves.items()})


def dataset_of(sequence: str) -> str:
    """The data set of a report's sequence; a sequence outside the table is a data set of its own."""
    plain = sequence.removesuffix("_BT709")
    return next((known.dataset for known in all_sequences() if known.name == plain), sequence)


def datasets(codecs: Iterable[Codec]) -> dict[str, list[str]]:
    """Sequences of each data set which every codec has, in the order of the table."""
    shared = set.intersection(*(set(codec.curves) for codec in codecs))
    order = [known.name for known in all_sequences()]
    place = {name: n for n, name in enumerate(order)}
    groups: dict[str, list[str]] = defaultdict(list)
    for sequence in sorted(shared, key=lambda name: (place.get(name.removesuffix("_BT709"), len(order)), name)):
        groups[dataset_of(sequence)].append(sequence)
    return dict(groups)


def mean_curve(codec: Codec, sequences: list[str]) -> list[Point]:
    """A data set's curve: at each rate point the mean over all GOPs of its sequences.

    Raises:
        InputError: sequences with different numbers of rate points, or with different numbers of GOPs along a curve.
    """
    counts = {sequence: len(codec.curves[sequence]) for sequence in sequences}
    if len(set(counts.values())) > 1:
        raise InputError(f"{codec.name} has different numbers of rate points: "
                         f"{', '.join(f'{name} {count}' for name, count in counts.items())}; measure all at every rate")
    points = []
    for column in zip(*(codec.curves[sequence] for sequence in sequences)):
        gops = sum(point.gops for point in column)
        points.append(Point(math.fsum(point.rate * point.gops for point in column) / gops,
                            math.fsum(point.quality * point.gops for point in column) / gops,
                            sum(point.frames for point in column), gops))
    return points
