"""`python -m util.anchors x265 --QP 22 27 32 37 --input VIDEO ...`: measure an anchor. docs/anchors.md explains."""
import argparse
import sys
from functools import partial
from pathlib import Path

from dataloader.open import open_source, video_options
from dataloader.prepare import raw_source
from dataloader.sequences import Sequence, select
from dataloader.source import CenterCrop, FrameSource
from util.anchors import Anchor
from util.anchors.libraries import SETTINGS, LibraryEncoder
from util.anchors.measure import Item, measure
from util.anchors.reference import CONFIGS, ReferenceSoftware
from util.choices import MATRICES, METRIC_NAMES, RANGES
from util.cli.flags import add_groups
from util.cli.groups import video_group
from util.color import Color
from util.errors import InputError
from util.evaluation.yuv import metric_of
from util.program import Parser, exit_status


def parser() -> argparse.ArgumentParser:
    """The flags; those that HyTIP.py has as well mean the same."""
    flags = Parser(prog="python -m util.anchors", description=__doc__)
    flags.add_argument("anchor", choices=[*SETTINGS, *CONFIGS])
    flags.add_argument("--QP", type=int, nargs="+", required=True)
    flags.add_argument("--color_transform", choices=MATRICES, required=True,
                       help="matrix of the YUV that is coded; data sets are read in it as well")
    flags.add_argument("--coded_range", choices=RANGES, default="limited", help="range of the YUV that is coded")
    flags.add_argument("--input", help="a video, raw file or folder of PNGs instead of data sets")
    flags.add_argument("-data", "--data", type=Path, help="root of {dataset}/{sequence}/frame_{n}.png")
    flags.add_argument("--raw", type=Path, help="instead of --data: folder of the raw sequences, read directly")
    flags.add_argument("--rgb_planes", choices=("rgb", "gbr"), help="with --raw: plane order of the HEVC-RGB files")
    flags.add_argument("--test_dataset", nargs="+", default=[])
    flags.add_argument("--test_seqs", nargs="+")
    flags.add_argument("--test_seq_len", type=int, default=96, help="frames per sequence")
    flags.add_argument("--full_seq", action="store_true", help="all frames")
    flags.add_argument("--gop", type=int, default=32, help="intra period")
    flags.add_argument("--test_crop", action="store_true")
    flags.add_argument("--crop_factor", type=int, default=64)
    flags.add_argument("--metrics", nargs="+", choices=METRIC_NAMES, default=["PSNR", "MS-SSIM"])
    flags.add_argument("--save_dir", type=Path, default=Path("results"), help="gets a folder per anchor, metric and QP")
    flags.add_argument("--encoder", type=Path, help="HM's or VTM's encoder program")
    flags.add_argument("--config", type=Path, help="its configuration file")
    add_groups(flags, [video_group()])
    return flags


def anchor_of(args: argparse.Namespace) -> Anchor:
    """The codec that the flags name."""
    color = Color(args.color_transform, args.coded_range)
    if args.anchor in SETTINGS:
        return LibraryEncoder(args.anchor, color, args.gop)
    return ReferenceSoftware(args.anchor, args.encoder, args.config, color, args.gop)


def items_of(args: argparse.Namespace) -> list[Item]:
    """The sequences that the flags name."""
    length = None if args.full_seq else args.test_seq_len
    if args.input:
        if args.input == "-":
            raise InputError("anchors read their input once per QP, so it cannot be a pipe; give a file")
        open_input = partial(open_source, args.input, video_options(args, length))
        name = open_input().name
        return [Item(name, name, partial(_cropped, open_input, args))]
    if not args.test_dataset or not (args.data or args.raw):
        raise InputError("nothing to measure; give --input, or --test_dataset with --data or --raw")
    return [Item(sequence.report_name(args.color_transform), sequence.dataset,
                 partial(_cropped, partial(_sequence_source, sequence, args, length), args))
            for sequence in select(args.test_dataset, args.test_seqs)]


def _sequence_source(sequence: Sequence, args: argparse.Namespace, length: int | None) -> FrameSource:
    if args.raw:
        return raw_source(sequence, args.raw, args.color_transform, length=length, range_=args.color_range or "limited",
                          rgb_planes=args.rgb_planes)
    return sequence.source(args.data, args.color_transform, length)


def _cropped(open_it: partial, args: argparse.Namespace) -> FrameSource:
    source = open_it()
    return CenterCrop(source, args.crop_factor) if args.test_crop else source


def run(argv: list[str] | None) -> None:
    """Measure what the flags ask for."""
    args = parser().parse_args(argv)
    suffix = "_BT709" if args.color_transform == "BT709" and not args.input else ""
    metrics = {name: metric_of(name, args.color_transform) for name in args.metrics}
    measure(anchor_of(args), items_of(args), args.QP, metrics, args.gop, args.save_dir, suffix,
            "_FullSeq" if args.full_seq else "")


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0, or 2 for bad input."""
    return exit_status("anchors", lambda: run(argv))


if __name__ == "__main__":
    sys.exit(main())
