"""The plot of a study: measured beside published BD-rates (matplotlib, no display needed)."""
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from util.files import atomic_path
from util.study.file import AVERAGE, Study
from util.study.results import Results


def plot_rows(path: Path, study: Study, results: Results) -> None:
    """A line per row, the first on top: published and measured average, and around the latter what chance does.

    Raises:
        InputError: the file cannot be written.
    """
    rows = [row for row in study.rows.values() if row.name in results.rows or row.published]
    figure = Figure(figsize=(7.2, 1.6 + 0.34 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    places = {row.name: -n for n, row in enumerate(rows)}
    published = [(row.published[AVERAGE], places[row.name]) for row in rows if AVERAGE in row.published]
    measured = [(results.rows[row.name].average, places[row.name]) for row in rows
                if row.name in results.rows and results.rows[row.name].average is not None]
    if published:
        axes.scatter(*zip(*published), marker="D", facecolors="none", edgecolors="C1", label="published", zorder=3)
    if measured:
        axes.errorbar(*zip(*measured), xerr=results.yardstick, fmt="o", color="C0", capsize=3,
                      label="measured" + ("" if results.yardstick is None else ", and what another seed does"))
    axes.axvline(0, color="0.6", linewidth=0.8)
    axes.set_yticks(list(places.values()), [row.label for row in rows])
    axes.set(title=study.title, xlabel=f"BD-rate against {study.rows[study.anchor].label} (%), {study.test.metric}")
    axes.grid(axis="x", alpha=0.3)
    axes.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=150)
