"""`python -m util.comparison --curve NAME FOLDER... --curve NAME FOLDER... --anchor NAME --out DIR`: compare codecs."""
import argparse
import math
import sys
from pathlib import Path

from util.comparison.bd_rate import METHODS, MIN_OVERLAP
from util.comparison.curves import Codec, Point, datasets, read_codec
from util.comparison.plots import plot_dataset
from util.comparison.published import TOLERANCE, lookup, published, verdict
from util.comparison.tables import Comparison, compare, latex, markdown, verdict_table
from util.errors import InputError
from util.files import atomic_path
from util.program import Parser, exit_status


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = Parser(prog="python -m util.comparison", description=__doc__)
    flags.add_argument("--curve", nargs="+", action="append", required=True, metavar=("NAME", "FOLDER"),
                       help="a codec and its result folders, one per rate; several times")
    flags.add_argument("--anchor", required=True, metavar="NAME", help="the --curve that the others are compared with")
    flags.add_argument("--out", type=Path, required=True, help="folder for tables and plots")
    flags.add_argument("--gop", type=int, default=32, help="frames per GOP: figures are means over GOPs (default: 32)")
    flags.add_argument("--min_overlap", type=float, default=MIN_OVERLAP,
                       help=f"least overlap of the curves' ranges of quality, 0 to 1 (default: {MIN_OVERLAP})")
    flags.add_argument("--ms_ssim_db", action="store_true", help="MS-SSIM as -10 log10(1 - x) before interpolating")
    flags.add_argument("--published", metavar="METHOD", help="put the verdict on this row of the paper's tables beside "
                       f"the figures: {', '.join(dict.fromkeys(row.method for row in published()))}")
    flags.add_argument("--color_transform", choices=("BT601", "BT709"), default="BT709", help="of the published row")
    flags.add_argument("--tolerance", type=float, default=TOLERANCE, help="percentage points that count as agreement")
    flags.add_argument("--plot_format", choices=("png", "pdf", "svg"), default="png")
    return flags


def read_codecs(args: argparse.Namespace) -> list[Codec]:
    """All codecs, the anchor first.

    Raises:
        InputError: names that are missing, double or unknown, or bad folders.
    """
    names = [name for name, *_ in args.curve]
    if len(set(names)) < len(names) or any(len(curve) < 2 for curve in args.curve):
        raise InputError("each --curve needs a name of its own and at least one folder")
    if args.anchor not in names:
        raise InputError(f"--anchor {args.anchor} is no --curve; choose from {', '.join(names)}")
    if args.gop < 1 or not 0 <= args.min_overlap <= 1:
        raise InputError(f"--gop {args.gop} must be at least 1, and --min_overlap {args.min_overlap} in 0..1")
    codecs = [read_codec(name, map(Path, folders), args.gop) for name, *folders in args.curve]
    if args.ms_ssim_db:
        codecs = [to_db(codec) for codec in codecs]
    return sorted(codecs, key=lambda codec: codec.name != args.anchor)


def to_db(codec: Codec) -> Codec:
    """MS-SSIM x as -10 log10(1 - x); other metrics as they are."""
    if codec.metric != "MS-SSIM":
        return codec

    def point(p: Point) -> Point:
        return p._replace(quality=-10 * math.log10(1 - p.quality) if p.quality < 1 else math.inf)

    return Codec(codec.name, "MS-SSIM (dB)", {sequence: [point(p) for p in points]
                                              for sequence, points in codec.curves.items()})


def write(path: Path, text: str) -> None:
    """A text file that is there completely or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def published_text(comparison: Comparison, args: argparse.Namespace) -> str:
    """Verdicts on the class curves.

    Raises:
        InputError: no such row was published.
    """
    metric = "MS-SSIM" if comparison.metric.startswith("MS-SSIM") else comparison.metric
    paper = lookup(metric, args.color_transform, args.published)
    if not paper:
        known = sorted({(row.method, row.metric, row.color) for row in published()})
        raise InputError(f"--published {args.published} has no row for {metric}, {args.color_transform}; choose from "
                         f"{'; '.join(' '.join(row) for row in known)}")
    curves = [(row.label, row.values[METHODS[0]]) for row in comparison.rows if row.kind == "curve"]
    known = [value for _, value in curves if value is not None]
    if known and {name for name, _ in curves} >= set(paper) - {"Average"}:
        curves.append(("Average", sum(known) / len(known) if len(known) == len(curves) else None))
    return (f"{comparison.test} against {comparison.anchor} beside {args.published} as published against VTM 17.0 "
            f"({metric}, {args.color_transform}; BD-rate % of the mean curve, {METHODS[0]}; agreement within "
            f"{args.tolerance} points)\n\n" + verdict_table(curves, paper, lambda a, b: verdict(a, b, args.tolerance)))


def run(args: argparse.Namespace) -> None:
    """Tables, verdicts and plots."""
    anchor, *tests = read_codecs(args)
    conventions = f"Means over GOPs of {args.gop}; overlap of at least {100 * args.min_overlap:.0f} %."
    for test in tests:
        comparison = compare(anchor, test, args.min_overlap)
        text = markdown(comparison, conventions)
        stem = f"{test.name}_vs_{anchor.name}_{anchor.metric}".replace(" ", "_").replace("/", "_")
        if args.published:
            text += "\n" + published_text(comparison, args)
        write(args.out / f"{stem}.md", text)
        write(args.out / f"{stem}.tex", latex(comparison, conventions))
        print(text)
    for dataset, sequences in datasets([anchor, *tests]).items():
        name = f"{dataset}_{anchor.metric}".replace(" ", "_").replace("/", "_")
        plot_dataset(args.out / f"{name}.{args.plot_format}", dataset, [anchor, *tests], sequences,
                     args.min_overlap)


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0, or 2 for bad input."""
    return exit_status("comparison", lambda: run(parser().parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
