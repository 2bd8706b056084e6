"""Loss over updates of the steps of a recipe, from their records: a plot (matplotlib, no display needed).

    python -m util.training.curves --out curve.png results/small_intra results/small_flow ...

docs/small_model.md shows one. Steps have losses of their own; within each, training and validation compare.
"""
import csv
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from util.errors import InputError
from util.files import atomic_path
from util.program import Parser, exit_status


class Curve(NamedTuple):
    """Points (updates, loss) of one step, updates counted from its start.

    Attributes:
        training: mean loss of each epoch, at its end.
        validation: mean over sequences and rates, of the epochs that were validated.
        updates: of the whole step.
    """
    name: str
    training: list[tuple[int, float]]
    validation: list[tuple[int, float]]
    updates: int


def read_curve(folder: Path) -> Curve:
    """The records of one experiment (util/training/records.py).

    Raises:
        InputError: there are none.
    """
    epochs = {row["epoch"]: row for row in _rows(folder / "training.csv")}
    if not epochs:
        raise InputError(f"{folder}: training.csv has no epoch; name folders of experiments, as in results/, that have "
                         "finished one")
    training = [(int(row["updates"]), float(row["loss"])) for row in epochs.values()]
    losses = defaultdict(list)
    if (folder / "validation.csv").is_file():
        for row in _rows(folder / "validation.csv"):
            losses[row["epoch"]].append(float(row["loss"]))
    validation = [(int(epochs[epoch]["updates"]), sum(found) / len(found)) for epoch, found in losses.items()]
    return Curve(folder.name, training, validation, training[-1][0])


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except OSError:
        raise InputError(f"{path} cannot be read; name folders of experiments, as in results/") from None


def plot_curves(path: Path, curves: Sequence[Curve]) -> None:
    """Write a PNG: one step after the other.

    Raises:
        InputError: it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to load
    from matplotlib.figure import Figure
    figure = Figure(figsize=(8, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes, start = figure.subplots(), 0
    for curve in curves:
        for points, style in ((curve.training, "o:"), (curve.validation, "s-")):
            axes.plot([start + at for at, _ in points], [loss for _, loss in points], style, markersize=3,
                      color="tab:gray" if points is curve.training else "tab:blue")
        axes.axvline(start, color="black", linewidth=0.5)
        axes.annotate(curve.name, (start, 1), xycoords=("data", "axes fraction"), xytext=(3, -10),
                      textcoords="offset points", fontsize="small")
        start += curve.updates
    axes.plot([], [], "o:", color="tab:gray", label="training, mean of an epoch")
    axes.plot([], [], "s-", color="tab:blue", label="validation")
    axes.set(xlabel="updates", ylabel="loss", yscale="log", xlim=(0, start))
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3, which="both")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def main(argv: list[str] | None = None) -> int:
    """The program. Returns its exit status."""
    parser = Parser(prog="python -m util.training.curves", description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="experiments, in order")
    parser.add_argument("--out", type=Path, default=Path("curve.png"), metavar="PNG", help="the file to write")

    def run() -> None:
        given = parser.parse_args(argv)
        plot_curves(given.out, [read_curve(folder) for folder in given.folders])
    return exit_status(parser.prog, run)


if __name__ == "__main__":
    sys.exit(main())
