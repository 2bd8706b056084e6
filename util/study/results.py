"""What the reports of a study say: BD-rates against the anchor, chance, and how the order compares with the paper's.

The figure of a data set is the BD-rate of its mean curve by pchip, as where other tables are compared with published
ones (docs/comparison.md); a row's figure is the mean over the data sets.
"""
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from scipy.stats import spearmanr

from util.comparison.bd_rate import METHODS
from util.comparison.curves import Codec, datasets, read_codec
from util.comparison.tables import compare
from util.study.file import AVERAGE, Row, Study


class RowResult(NamedTuple):
    """Attributes:
        rates: BD-rate in % by data set and AVERAGE; None where refused.
        refusals: why.
    """
    rates: Mapping[str, float | None]
    refusals: Sequence[str] = ()

    @property
    def average(self) -> float | None:
        return self.rates[AVERAGE]


class Order(NamedTuple):
    """How many pairs of rows are ordered as in the paper, the other way, or too near to each other to tell."""
    same: int
    other: int
    within_chance: int


class Results(NamedTuple):
    """Attributes:
        rows: of all rows that were measured, the anchor with 0.
        codecs: their curves, the anchor's first.
        chance: by row, how far its repetition with another seed is from it, in percentage points.
    """
    rows: dict[str, RowResult]
    codecs: list[Codec]
    chance: dict[str, float]

    @property
    def yardstick(self) -> float | None:
        """The largest difference that chance was seen to make."""
        return max(self.chance.values(), default=None)


def results_of(study: Study, folders: Mapping[str, Sequence[Path]]) -> Results:
    """Compare rows with the anchor.

    Args:
        folders: of the rows that were measured, the anchor among them: the reports of each rate.

    Raises:
        InputError: reports that cannot be used, or of different sequences.
    """
    codecs = {name: read_codec(name, own, study.test.gop) for name, own in folders.items()}
    anchor = codecs.pop(study.anchor)
    names = list(datasets([anchor, *codecs.values()]))
    rows = {study.anchor: RowResult({**dict.fromkeys(names, 0.0), AVERAGE: 0.0})}
    for name, codec in codecs.items():
        comparison = compare(anchor, codec)
        rates = {row.label: row.values[METHODS[0]] for row in comparison.rows if row.kind == "curve"}
        known = [rate for rate in rates.values() if rate is not None]
        rates[AVERAGE] = fmean(known) if len(known) == len(rates) else None
        rows[name] = RowResult(rates, comparison.refusals)
    return Results(rows, [anchor, *codecs.values()], _chance(study, rows))


def _chance(study: Study, rows: Mapping[str, RowResult]) -> dict[str, float]:
    found = {}
    for name, result in rows.items():
        original = rows.get(study.rows[name].repeats or "")
        if original is not None and None not in (original.average, result.average):
            found[name] = abs(result.average - original.average)
    return found


def published_pairs(study: Study, results: Results) -> list[tuple[Row, float, float]]:
    """Rows with both figures: published and measured averages."""
    pairs = []
    for name, result in results.rows.items():
        row = study.rows[name]
        if result.average is not None and AVERAGE in row.published:
            pairs.append((row, row.published[AVERAGE], result.average))
    return pairs


def rank_correlation(pairs: Sequence[tuple[Row, float, float]]) -> float | None:
    """Spearman's, of published and measured averages; None for fewer than three rows or where all are equal."""
    published, measured = [pair[1] for pair in pairs], [pair[2] for pair in pairs]
    if len(pairs) < 3 or len(set(published)) == 1 or len(set(measured)) == 1:
        return None
    return float(spearmanr(published, measured).statistic)


def order(pairs: Sequence[tuple[Row, float, float]], yardstick: float) -> Order:
    """Compare the order of all pairs of rows that the paper tells apart; differences up to the yardstick are chance."""
    same = other = within = 0
    for (_, paper_a, own_a), (_, paper_b, own_b) in combinations(pairs, 2):
        if paper_a == paper_b:
            continue
        if abs(own_a - own_b) <= yardstick:
            within += 1
        elif (own_a < own_b) == (paper_a < paper_b):
            same += 1
        else:
            other += 1
    return Order(same, other, within)
