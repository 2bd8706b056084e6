"""One rate-distortion plot per data set (matplotlib, no display needed)."""
from collections.abc import Iterable, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from util.comparison.curves import Codec, Point, mean_curve
from util.errors import InputError
from util.files import atomic_path

UNITS = {"PSNR": "PSNR (dB)", "PSNR-YUV": "PSNR, Y:U:V 6:1:1 (dB)"}
MARKERS = "osD^v*Px"


def plot_dataset(path: Path, dataset: str, codecs: Iterable[Codec], sequences: Sequence[str]) -> None:
    """Mean curves of a data set, to a PNG, PDF or SVG file (by its ending).

    Raises:
        InputError: a codec without a common set of rate points, or the file cannot be written.
    """
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    metric = ""
    for n, codec in enumerate(codecs):
        points: list[Point] = mean_curve(codec, list(sequences))
        axes.plot([point.rate for point in points], [point.quality for point in points],
                  marker=MARKERS[n % len(MARKERS)], label=codec.name)
        metric = codec.metric
    if not axes.lines:
        raise InputError(f"there is no curve of {dataset}; give at least one codec")
    axes.set(title=dataset, xlabel="rate (bits per pixel)", ylabel=f"{UNITS.get(metric, metric)}"
             + ("" if metric in UNITS and metric != "PSNR" else " in RGB"))
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=150)
