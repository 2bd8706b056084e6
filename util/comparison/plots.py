"""One rate-distortion plot per data set (matplotlib, no display needed)."""
from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from util.comparison.bd_rate import MIN_OVERLAP, Refused, bd_rate
from util.comparison.curves import Codec, Point, mean_curve
from util.errors import InputError
from util.files import atomic_path

UNITS = {"PSNR": "PSNR (dB)", "PSNR-YUV": "PSNR, Y:U:V 6:1:1 (dB)"}
MARKERS = "osD^v*Px"


def plot_dataset(path: Path, dataset: str, codecs: Sequence[Codec], sequences: Sequence[str],
                 min_overlap: float = MIN_OVERLAP) -> None:
    """Mean curves of a data set, to a PNG, PDF or SVG file (by its ending).

    The title says how many sequences and frames, and the GOP; the legend has the BD-rate of each codec against the
    first, where there is one.

    Raises:
        InputError: a codec without a common set of rate points, or the file cannot be written.
    """
    curves = [(codec, mean_curve(codec, list(sequences))) for codec in codecs]
    if not curves:
        raise InputError(f"there is no curve of {dataset}; give at least one codec")
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for n, (_, points) in enumerate(curves):
        axes.plot([point.rate for point in points], [point.quality for point in points],
                  marker=MARKERS[n % len(MARKERS)], label=_label(curves, n, min_overlap))
    metric = curves[0][0].metric
    axes.set(title=_title(dataset, len(sequences), curves[0][1][0]), xlabel="rate (bits per pixel)",
             ylabel=f"{UNITS.get(metric, metric)}" + ("" if metric in UNITS and metric != "PSNR" else " in RGB"))
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=150)


def _title(dataset: str, sequences: int, point: Point) -> str:
    """What the curves are means of. Points of data sets count the frames and GOPs of all sequences."""
    many = f" ({sequences} sequences)" if sequences > 1 else ""
    gop = -(-point.frames // point.gops)
    return f"{dataset}{many}: {point.frames // sequences} frames, GOP {gop}"


def _label(curves: Sequence[tuple[Codec, list[Point]]], n: int, min_overlap: float) -> str:
    """The codec's name, and its BD-rate against the first."""
    codec, points = curves[n]
    if n == 0:
        return codec.name
    anchor, anchor_points = curves[0]
    try:
        return f"{codec.name} (BD-rate {bd_rate(anchor_points, points, min_overlap=min_overlap):+.1f} %)"
    except Refused:
        return codec.name
