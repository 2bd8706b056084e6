"""Reports and summaries in the layout of the released system (docs/fidelity.md).

A sequence has a CSV with a row per frame; a run has a text summary with a row per sequence and per data set. Rates
are bits per pixel of the original frame.
"""
import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from util.files import atomic_path


class FrameResult(NamedTuple):
    """One row of a report.

    Attributes:
        number: from 1.
        quality: PSNR in dB or MS-SSIM of the decoded frame; None without a source.
        rate: bits per pixel.
        parts: None for an I-frame.
    """
    number: int
    quality: float | None
    rate: float
    parts: "PFrameParts | None" = None


class PFrameParts(NamedTuple):
    """What a report says of a P-frame besides.

    Attributes:
        mc, warped: quality of the motion-compensated frame and of the warped reference; None without a source, or
            where the codec has no such thing.
        my, mz, ry, rz: bits per pixel of motion and residual latents and their hyper latents; None likewise.
    """
    mc: float | None
    warped: float | None
    my: float | None
    mz: float | None
    ry: float | None
    rz: float | None

    @property
    def motion(self) -> float | None:
        """Bits per pixel of motion."""
        return None if self.my is None else self.my + self.mz

    @property
    def residual(self) -> float | None:
        return None if self.ry is None else self.ry + self.rz


class Averages(NamedTuple):
    """One row of a summary; nan where nothing was measured."""
    quality: float
    rate: float
    motion_rate: float
    mc: float
    warped: float
    motion_ratio: float
    residual_ratio: float
    file_rate: float | None = None


def average_gop(rows: Sequence[FrameResult]) -> Averages:
    """Quality and rate over all frames, the rest over the P-frames alone."""
    parts = [(row.parts, row.rate) for row in rows if row.parts]
    return Averages(
        quality=_mean(row.quality for row in rows),
        rate=_mean(row.rate for row in rows),
        motion_rate=_mean(p.motion for p, _ in parts),
        mc=_mean(p.mc for p, _ in parts),
        warped=_mean(p.warped for p, _ in parts),
        motion_ratio=_mean(p.motion / rate for p, rate in parts if p.motion is not None),
        residual_ratio=_mean(p.residual / rate for p, rate in parts if p.residual is not None))


def average(gops: Iterable[Averages], file_rate: float | None = None) -> Averages:
    """The mean over GOPs: of one sequence, or of all sequences of a data set.

    A GOP without P-frames (the short last one may have a single frame) does not enter their columns.
    """
    columns = list(zip(*(gop[:7] for gop in gops)))
    return Averages(*(_mean(column) for column in columns), file_rate)


def _mean(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None and not math.isnan(value)]
    return fmean(known) if known else math.nan


def write_report(path: Path, metric: str, rows: Iterable[FrameResult]) -> None:
    """The CSV of one sequence: CRLF line ends, full-precision floats, zeros for the parts of an I-frame."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["frame", metric, "Rate", f"MC-{metric}", f"Warped-{metric}", "my", "mz", "ry", "rz"])
        for row in rows:
            table.writerow([f"frame_{row.number}", row.quality, row.rate, *(row.parts or [0] * 6)])


def write_summary(path: Path, metric: str, sequences: Sequence[tuple[str, Averages]],
                  datasets: Sequence[tuple[str, Averages]]) -> None:
    """The summary of one run: sequences (names cut to 11 characters), a rule, data sets."""
    labels = [metric, "Rate", "Mo_Rate", f"MC-{metric}", f"Warped-{metric}", "Mo_Ratio", "Res_Ratio"]
    if any(row.file_rate is not None for _, row in sequences):
        labels.append("rate_bin")
    lines = [f"{'Sequence_Name':>16} " + "".join(f"{label:>12}" for label in labels)]
    lines += [_summary_line(name[:11], row) for name, row in sequences]
    lines.append("=" * 48)
    lines += [_summary_line(name, row) for name, row in datasets]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def _summary_line(name: str, row: Averages) -> str:
    return f"{name:>16} " + "".join(f"{value:12.4f}" for value in row if value is not None)
