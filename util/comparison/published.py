"""The paper's figures as data, and how a run compares with them.

published.tsv: BD-rates against VTM 17.0 (HyTIP, Tables A4 and A5, and the released weights' BT.601 row);
published_complexity.tsv: the complexity chart. Tables A1 to A3 stand in studies/.
"""
import csv
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent
TOLERANCE = 1.0


class Published(NamedTuple):
    """One BD-rate (percent, anchor VTM 17.0 low delay B, intra period 32, 96 frames)."""
    metric: str
    color: str
    method: str
    dataset: str
    bd_rate: float


def published() -> list[Published]:
    """All published BD-rates."""
    with (FOLDER / "published.tsv").open(encoding="utf-8", newline="") as file:
        return [Published(row["metric"], row["color"], row["method"], row["dataset"], float(row["bd_rate"]))
                for row in csv.DictReader(file, delimiter="\t")]


def lookup(metric: str, color: str, method: str) -> dict[str, float]:
    """BD-rate by data set ("Average" too); empty if nothing was published."""
    return {row.dataset: row.bd_rate for row in published() if row[:3] == (metric, color, method)}


def verdict(measured: float, paper: float, tolerance: float = TOLERANCE) -> str:
    """In words: equal within the tolerance (percentage points), better, or worse."""
    difference = measured - paper
    if abs(difference) <= tolerance:
        return f"agrees ({difference:+.2f})"
    return f"{'better' if difference < 0 else 'worse'} ({difference:+.2f})"
