"""The flags of HyTIP.py. Names and defaults are those of the released command line where it has them."""
import argparse
import re
from fractions import Fraction
from pathlib import Path

from models.catalogue import DEFAULT, MODELS
from models.rates import RATES
from util.choices import MATRICES, MAX_PIXELS, METRIC_NAMES, PRECISIONS, RANGES, RAW_FORMATS
from util.chosen_model import PART_FLAGS
from util.errors import InputError
from util.program import Parser
from util.training.options import add_arguments as add_training_arguments

ROOT = Path(__file__).resolve().parents[2]


def build_parser() -> argparse.ArgumentParser:
    """All flags, in groups."""
    parser = Parser(prog="HyTIP.py", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    _add_commands(parser)
    _add_model(parser)
    _add_coding(parser)
    _add_data(parser)
    _add_streams(parser)
    add_video_arguments(parser)
    _add_machine(parser)
    add_training_arguments(parser)
    return parser


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse and check what can be checked without opening a file.

    Raises:
        InputError: an unknown flag or a value outside its bounds.
    """
    arguments = build_parser().parse_args(argv)
    _check(arguments)
    return arguments


def _add_commands(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to do")
    group.add_argument("--test", action="store_true", help="evaluate rate and quality with estimated bits")
    group.add_argument("--compress", action="store_true", help="write streams of a data set, or of --input")
    group.add_argument("--decompress", action="store_true", help="read streams of a data set, or --input")
    group.add_argument("--compute_macs", action="store_true", help="count multiply-adds of encoding a P-frame")
    group.add_argument("--compute_decode_macs", action="store_true", help="with --compute_macs: of decoding it")
    group.add_argument("--compute_model_size", action="store_true", help="count parameters and buffers")


def _add_model(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument("--model", default=DEFAULT, metavar="NAME",
                       help=f"configuration and weights: {', '.join(MODELS)}, or the file of a model, PATH.yml")
    for flag, part in PART_FLAGS.items():
        group.add_argument(f"--{flag}", type=Path, metavar="YAML", help=f"the model's part {part} from another file")
    group.add_argument("--weights", type=Path, metavar="FILE", help="instead of the model's own")
    group.add_argument("--intra_weights", type=Path, metavar="FILE",
                       help="instead of the first of the model's own, where it has a file for I-frames")
    group.add_argument("--untrained", action="store_true", help="seeded random weights, to try the program")
    group.add_argument("--ssim", action="store_true", help="the model trained for, and quality measured in, MS-SSIM")


def _add_coding(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("coding")
    group.add_argument("--QP", type=int, nargs="+", default=[RATES - 1], metavar="Q",
                       help=f"rate of P-frames, 0 (lowest) to {RATES - 1}; several are evaluated in one run")
    group.add_argument("--iframe_quality", type=int, nargs="+", metavar="Q",
                       help="rate of I-frames, one per QP (2 to 5 for single-rate models); default: as --QP")
    group.add_argument("--gop", type=int, default=32, metavar="N", help="frames from one I-frame to the next")
    group.add_argument("--index_map", type=int, nargs="+", default=[0, 1, 0, 2, 0, 2, 0, 2], metavar="T",
                       help="frame type 0..2 of each frame of a rate group")
    group.add_argument("--rate_gop_size", type=int, default=8, metavar="N", help="length of the rate group")
    group.add_argument("--reset_interval", type=int, default=32, metavar="N",
                       help="forget the implicit feature where frame_in_gop %% N is 1")
    group.add_argument("--remove_scene_cut", action="store_true", help="an I-frame at each known scene cut")
    group.add_argument("--align_factor", type=int, metavar="N",
                       help="frames are padded to multiples of this; default: the codec's grid (HyTIP: 16)")


def _add_data(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("data and results")
    group.add_argument("-data", "--data", type=Path, default=Path("data"), metavar="ROOT",
                       help="holds {dataset}/{sequence}/frame_{n}.png")
    group.add_argument("--raw", type=Path, metavar="DIR",
                       help="instead of -data: raw files of the sequences, read directly")
    group.add_argument("--rgb_planes", choices=("rgb", "gbr"), help="with --raw: plane order of the HEVC-RGB files")
    group.add_argument("--test_dataset", nargs="+", default=["HEVC-B"], metavar="NAME")
    group.add_argument("--test_seqs", nargs="+", metavar="NAME", help="only these sequences")
    group.add_argument("--test_seq_len", type=int, default=96, metavar="N", help="frames per sequence")
    group.add_argument("--full_seq", action="store_true", help="all frames, with a short last GOP")
    group.add_argument("--color_transform", choices=MATRICES, default="BT601",
                       help="matrix behind the RGB frames; BT709 reads {sequence}_BT709")
    group.add_argument("--test_crop", action="store_true", help="centre crop to multiples of --crop_factor")
    group.add_argument("--crop_factor", type=int, default=64, metavar="N")
    group.add_argument("--metrics", nargs="+", choices=METRIC_NAMES,
                       help="measure these as well; their reports lie beside, in {folder}_{metric}")
    group.add_argument("--visualize", action="store_true",
                       help="with --test: pictures of every frame in {folder}/visualize")
    group.add_argument("--experiment_name", default="HyTIP", metavar="NAME")
    group.add_argument("--save_dir", type=Path, metavar="DIR",
                       help="default results/{experiment_name}-{QP}; with several QPs, a folder per QP below DIR")


def _add_streams(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("streams")
    group.add_argument("--input", type=Path, metavar="PATH",
                       help="a folder of frame_{n}.png or a video to compress or test; a stream to decompress; "
                            "- is a pipe")
    group.add_argument("--output", type=Path, metavar="PATH",
                       help="the stream to write, or the folder or video for decoded frames; - is a pipe")
    group.add_argument("--frames", type=int, metavar="N", help="use the first N frames of --input")
    group.add_argument("--portable", action="store_true",
                       help="compress in float64, so that other devices and instruction sets decode it")
    group.add_argument("--verify", action="store_true", help="decode what was just written and demand equal frames")
    group.add_argument("--keep_going", action="store_true", help="after damage, go on at the next I-frame")
    group.add_argument("--max_pixels", type=int, default=MAX_PIXELS, metavar="N",
                       help="refuse streams with larger frames")
    group.add_argument("--PNG_FILE", action="store_true", help="decoded frames in {save_dir}/png")
    group.add_argument("--YUV_FILE", action="store_true", help="decoded video in {save_dir}/yuv, 8-bit 4:4:4")


def add_video_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that VideoOptions holds, for the video read or written."""
    group = parser.add_argument_group("video", "what a video in or out is, where its name or tags do not tell")
    group.add_argument("--video_size", type=_size, metavar="WxH", help="size of raw video")
    group.add_argument("--pixel_format", choices=RAW_FORMATS, help="of raw video in (else its name, else 420) "
                       "or of video out (else 444)")
    group.add_argument("--bit_depth", type=int, help="likewise (else 8)")
    group.add_argument("--color_matrix", choices=MATRICES, help="YUV matrix; needed where no tag tells")
    group.add_argument("--color_range", choices=RANGES, help="YUV range; needed where no tag tells")
    group.add_argument("--frame_rate", type=_rate, help="frames per second, such as 25 or 30000/1001")


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match or "0" in match.groups():
        raise argparse.ArgumentTypeError(f"{text} is no size; give WIDTHxHEIGHT, such as 1920x1080")
    return int(match[1]), int(match[2])


def _rate(text: str) -> Fraction:
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if rate <= 0:
        raise argparse.ArgumentTypeError(f"{text} is no frame rate; give a number such as 25 or 30000/1001")
    return rate


def _add_machine(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("machine")
    group.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    group.add_argument("--precision", choices=PRECISIONS, default=PRECISIONS[0],
                       help="number format of the networks; a stream is decoded in the one it was made in")
    group.add_argument("--gpus", type=int, default=1, metavar="N", help="0 keeps --device auto on the CPU")
    group.add_argument("-n", "--num_workers", type=int, metavar="N",
                       help="loader processes in training; default: the machine's cores on a GPU, none on a CPU")
    group.add_argument("--threads", type=int, metavar="N", help="CPU threads; results repeat at an equal number")


def intra_qualities(arguments: argparse.Namespace) -> list[int]:
    """`--iframe_quality`, one per QP; the QPs themselves by default."""
    return arguments.iframe_quality or arguments.QP


def _check(arguments: argparse.Namespace) -> None:
    qualities = intra_qualities(arguments)
    if len(qualities) != len(arguments.QP):
        raise InputError(f"--iframe_quality has {len(qualities)} values, --QP has {len(arguments.QP)}; "
                         "give one per QP")
    for flag, values in (("--QP", arguments.QP), ("--iframe_quality", qualities)):
        for value in values:
            if not 0 <= value < RATES:
                raise InputError(f"{flag} {value} is outside 0..{RATES - 1}")
    if len(set(arguments.QP)) != len(arguments.QP):
        raise InputError("--QP names a rate twice; give each once")
    for flag in ("gop", "test_seq_len", "crop_factor", "rate_gop_size", "reset_interval", "max_pixels"):
        if getattr(arguments, flag) < 1:
            raise InputError(f"--{flag} {getattr(arguments, flag)} must be at least 1")
    if arguments.frames is not None and arguments.frames < 1:
        raise InputError(f"--frames {arguments.frames} must be at least 1")
    if arguments.portable and arguments.precision != PRECISIONS[0]:
        raise InputError(f"--portable computes in float64, not in --precision {arguments.precision}; leave one of "
                         "them out")
    if arguments.compute_decode_macs and not arguments.compute_macs:
        raise InputError("--compute_decode_macs needs --compute_macs")
