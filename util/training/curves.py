"""Loss over updates of the steps of a recipe, from their records: a plot (matplotlib, no display needed).

    python -m util.training.curves --out curve.png results/small_intra results/small_flow ...

Steps have losses of their own; within each, training and validation compare.
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

Points = list[tuple[int, float]]
"""(updates, loss)."""


class Curve(NamedTuple):
    """The loss of one step.

    Attributes:
        start, end: updates.
        training: mean loss of each epoch, at its end.
        validation: mean over sequences and rates, of the epochs that were validated.
    """
    name: str
    start: int
    end: int
    training: Points
    validation: Points


def read_curves(folders: Sequence[Path]) -> list[Curve]:
    """The records of experiments (util/training/records.py), each starting where the one before ends.

    Raises:
        InputError: there are none, or they are no such records.
    """
    curves: list[Curve] = []
    for folder in folders:
        try:
            curves.append(_read(folder, curves[-1].end if curves else 0))
        except OSError as error:
            raise InputError(f"{error.filename} cannot be read; name folders of experiments, as in results/") from None
        except (KeyError, ValueError):
            raise InputError(f"{folder}: training.csv and validation.csv are not what a training run writes; name "
                             "folders of experiments, as in results/") from None
        if not curves[-1].training:
            raise InputError(f"{folder}: no epoch has ended yet; leave it out")
    return curves


def _read(folder: Path, start: int) -> Curve:
    ends, training = {}, []
    for row in _rows(folder / "training.csv"):
        ends[row["epoch"]] = start + int(row["updates"])
        training.append((ends[row["epoch"]], float(row["loss"])))
    losses = defaultdict(list)
    if (folder / "validation.csv").is_file():
        for row in _rows(folder / "validation.csv"):
            losses[row["epoch"]].append(float(row["loss"]))
    return Curve(folder.name, start, max(ends.values(), default=start), training,
                 [(ends[epoch], sum(found) / len(found)) for epoch, found in losses.items()])


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def plot_curves(path: Path, curves: Sequence[Curve]) -> None:
    """Write a PNG.

    Raises:
        InputError: it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to load
    from matplotlib.figure import Figure
    figure = Figure(figsize=(8, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for curve in curves:
        axes.plot(*zip(*curve.training), "o:", markersize=3, color="tab:gray")
        if curve.validation:
            axes.plot(*zip(*curve.validation), "s-", markersize=3, color="tab:blue")
        axes.axvline(curve.start, color="black", linewidth=0.5)
        axes.annotate(curve.name, (curve.start, 1), xycoords=("data", "axes fraction"), xytext=(3, -4),
                      textcoords="offset points", fontsize="small", rotation=90, va="top")
    axes.plot([], [], "o:", color="tab:gray", label="training, mean of an epoch")
    axes.plot([], [], "s-", color="tab:blue", label="validation")
    axes.set(xlabel="updates", ylabel="loss", yscale="log", xlim=(0, curves[-1].end))
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
        plot_curves(given.out, read_curves(given.folders))
    return exit_status(parser.prog, run)


if __name__ == "__main__":
    sys.exit(main())
