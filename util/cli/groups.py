"""The flags of HyTIP.py, declared once. Names and defaults are those of the released command line where it has them.

Nothing here imports a network: `--help` and bad flags are answered at once. docs/flags.md is made of these
declarations by `python -m util.cli.help > docs/flags.md`.
"""
import argparse
import re
from fractions import Fraction
from pathlib import Path

from models.catalogue import DEFAULT, MODELS
from models.rates import RATES
from util.choices import FRAME_TYPES, MATRICES, MAX_PIXELS, METRIC_NAMES, PRECISIONS, RANGES, RAW_FORMATS
from util.chosen_model import PART_FLAGS
from util.cli.amounts import bit_rate, bit_rates, byte_size, decibels, seconds
from util.cli.flags import Group
from util.training.options import training_group

FILES = ("encode", "decode", "eval", "compare")
MODEL = ("encode", "decode", "eval", "train")
CODING = ("encode", "eval", "train")
TARGETS = ("target_size", "target_bitrate", "target_psnr", "bitrate", "ladder")
"""Flags of which one at most is given."""
BUFFER = 1.0
"""Seconds, unless --buffer says otherwise."""


def all_groups() -> list[Group]:
    """Every flag, in the order of the help."""
    return [command_group(), model_group(), coding_group(), target_group(), file_group(), video_group(), data_group(),
            result_group(), machine_group(), training_group(), help_group()]


def command_group() -> Group:
    """What to do; verbs stand for these."""
    group = Group("what to do", (), "the verbs stand for these; without --input they work on data sets")
    group.add_argument("--test", action="store_true", help="evaluate rate and quality with estimated bits")
    group.add_argument("--compress", action="store_true", help="write the stream of --input, or those of data sets")
    group.add_argument("--decompress", action="store_true", help="read the stream of --input, or those of data sets")
    group.add_argument("--list_models", action="store_true", help="the models there are")
    group.add_argument("--compare", type=Path, nargs=2, metavar="VIDEO",
                       help="quality of the second video beside the first: PSNR, PSNR-YUV, MS-SSIM, VMAF if possible")
    group.add_argument("--compute_macs", action="store_true", help="count the multiply-adds of encoding a P-frame")
    group.add_argument("--compute_decode_macs", action="store_true", help="with --compute_macs: of decoding it")
    group.add_argument("--compute_model_size", action="store_true", help="count parameters and buffers")
    return group


def model_group() -> Group:
    """Which networks, with which weights."""
    group = Group("model", MODEL)
    group.add_argument("--model", default=DEFAULT, metavar="NAME", often=True,
                       help=f"configuration and weights: {', '.join(MODELS)}, or the file of a model, PATH.yml")
    group.add_argument("--weights", type=Path, metavar="FILE", often=True, help="instead of the model's own")
    group.add_argument("--intra_weights", type=Path, metavar="FILE",
                       help="instead of the first of the model's own, where it has a file for I-frames")
    group.add_argument("--ssim", action="store_true",
                       help="the model trained for, and quality measured in, MS-SSIM; both sides must exceed 160")
    group.add_argument("--untrained", action="store_true", help="seeded random weights, to try the program")
    for flag, part in PART_FLAGS.items():
        group.add_argument(f"--{flag}", type=Path, metavar="YAML", help=f"the model's part {part} from another file")
    return group


def coding_group() -> Group:
    """Rates, GOP and frame types."""
    group = Group("rate and GOP", CODING)
    group.add_argument("--QP", type=int, nargs="+", default=[RATES - 1], metavar="Q", often=True,
                       tasks=("encode", "eval"),
                       help=f"rate of P-frames, 0 (lowest) to {RATES - 1}; several are evaluated in one run")
    group.add_argument("--iframe_quality", type=int, nargs="+", metavar="Q",
                       help="rate of I-frames, one per QP (2 to 5 for single-rate models); default: as --QP")
    group.add_argument("--gop", type=int, default=32, metavar="N", often=True,
                       help="frames from one I-frame to the next")
    group.add_argument("--index_map", type=int, nargs="+", default=[0, 1, 0, 2, 0, 2, 0, 2], metavar="T",
                       help=f"frame type 0..{FRAME_TYPES - 1} of each frame of a rate group")
    group.add_argument("--rate_gop_size", type=int, default=8, metavar="N", help="length of the rate group")
    group.add_argument("--reset_interval", type=int, default=32, metavar="N",
                       help="forget the implicit feature where frame_in_gop %% N is 1")
    group.add_argument("--remove_scene_cut", action="store_true", help="an I-frame at each known scene cut")
    group.add_argument("--align_factor", type=int, metavar="N",
                       help="pad frames to multiples of this for coding, the codec's grid by default (HyTIP: 16); "
                            "quality is measured without the padding")
    return group


def target_group() -> Group:
    """What a video is to take, or to look like, instead of a QP."""
    group = Group("targets", ("encode",), "instead of --QP, for --compress --input; --QP and --iframe_quality then "
                  "only tell how far apart they are (docs/rate_control.md)")
    group.add_argument("--target_size", type=byte_size, metavar="SIZE", often=True,
                       help="bytes of the stream, such as 2MB: at most that; codes the video several times")
    group.add_argument("--target_bitrate", type=bit_rate, metavar="RATE", often=True,
                       help="bits per second on average, such as 300k: at most that; codes the video several times")
    group.add_argument("--target_psnr", type=decibels, metavar="DB", often=True,
                       help="mean PSNR of the frames: at least that; codes the video several times")
    group.add_argument("--bitrate", type=bit_rate, metavar="RATE", often=True,
                       help="bits per second in one pass, for pipes and live video, with a --buffer")
    group.add_argument("--buffer", type=seconds, metavar="TIME",
                       help=f"of the decoder, for --bitrate and --ladder, such as 500ms (default: {BUFFER:g}s)")
    group.add_argument("--ladder", type=bit_rates, metavar="RATES",
                       help="several --bitrate streams in one reading, such as 150k,300k,600k; --output x.hyt gives "
                            "x_150k.hyt, ...")
    return group


def file_group() -> Group:
    """Single videos and streams."""
    group = Group("files", FILES)
    group.add_argument("--input", type=Path, metavar="PATH", tasks=("encode", "decode", "eval"),
                       help="a video (mp4, mkv, y4m, raw yuv, ...) or a folder of frame_{n}.png to compress or test; a "
                            "stream to decompress; - is a pipe")
    group.add_argument("--output", type=Path, metavar="PATH", tasks=("encode", "decode"),
                       help="the stream to write, or the folder or video for decoded frames; - is a pipe")
    group.add_argument("--copy_audio", type=Path, metavar="FILE", often=True, tasks=("decode",),
                       help="put the audio of this file, untouched, into the mp4 or mkv; of a stream of the first "
                            "frames alone, that of their time")
    group.add_argument("--frames", type=int, metavar="N", often=True, help="use the first N frames of --input")
    group.add_argument("--portable", action="store_true", often=True, tasks=("encode",),
                       help="compress in float64, so that other devices and instruction sets decode it; slower")
    group.add_argument("--verify", action="store_true", often=True, tasks=("encode",),
                       help="decode what was just written and demand equal frames")
    group.add_argument("--keep_going", action="store_true", tasks=("decode",),
                       help="after damage, go on at the next I-frame")
    group.add_argument("--max_pixels", type=int, default=MAX_PIXELS, metavar="N", tasks=("decode",),
                       help="refuse streams with larger frames")
    return group


def video_group() -> Group:
    """What a video is (dataloader.open.VideoOptions)."""
    group = Group("video", FILES, "what a video in or out is, where its name or tags do not tell (docs/video.md)")
    group.add_argument("--video_size", type=_size, metavar="WxH", help="size of raw video")
    group.add_argument("--pixel_format", choices=RAW_FORMATS,
                       help="of raw video in (else its name, else 420) or of video out (else 444)")
    group.add_argument("--bit_depth", type=int, metavar="N", help="likewise (else 8)")
    group.add_argument("--color_matrix", choices=MATRICES, help="YUV matrix (else its tag, else as players take it)")
    group.add_argument("--color_range", choices=RANGES, help="YUV range (likewise)")
    group.add_argument("--frame_rate", type=_rate, metavar="R", help="frames per second, such as 25 or 30000/1001")
    return group


def data_group() -> Group:
    """The test sequences."""
    group = Group("data sets", ("eval", "train"))
    group.add_argument("-data", "--data", type=Path, default=Path("data"), metavar="ROOT", often=True,
                       help="holds {dataset}/{sequence}/frame_{n}.png")
    group.add_argument("--test_dataset", nargs="+", default=["HEVC-B"], metavar="NAME", often=True,
                       help="what to evaluate (dataloader/sequences.tsv)")
    group.add_argument("--test_seqs", nargs="+", metavar="NAME", help="only these sequences")
    group.add_argument("--test_seq_len", type=int, default=96, metavar="N", help="frames per sequence")
    group.add_argument("--full_seq", action="store_true", help="all frames, with a short last GOP")
    group.add_argument("--color_transform", choices=MATRICES, default=MATRICES[0],
                       help="matrix behind the RGB frames; BT709 reads {sequence}_BT709")
    group.add_argument("--test_crop", action="store_true", help="centre crop to multiples of --crop_factor")
    group.add_argument("--crop_factor", type=int, default=64, metavar="N", help="see --test_crop")
    group.add_argument("--raw", type=Path, metavar="DIR", tasks=("eval",),
                       help="instead of -data: raw files of the sequences, read directly")
    group.add_argument("--rgb_planes", choices=("rgb", "gbr"), tasks=("eval",),
                       help="with --raw: plane order of the HEVC-RGB files")
    return group


def result_group() -> Group:
    """Where results go, and what they are."""
    group = Group("results", ("eval",))
    group.add_argument("--save_dir", type=Path, metavar="DIR", often=True,
                       help="default results/{experiment_name}-{QP}; with several QPs, a folder per QP below DIR")
    group.add_argument("--experiment_name", default="HyTIP", metavar="NAME", tasks=("eval", "train"),
                       help="name of the results")
    group.add_argument("--metrics", nargs="+", choices=METRIC_NAMES, often=True,
                       help="measure these as well; their reports lie beside, in {folder}_{metric}")
    group.add_argument("--visualize", action="store_true", often=True, tasks=("encode", "eval"),
                       help="with --test: pictures of every frame, and a contact sheet, in {folder}/visualize; with "
                            "--compress --input: a plot of rate, QP and buffer, in {output}.rate.png")
    group.add_argument("--PNG_FILE", action="store_true", help="decoded frames of data sets in {folder}/png")
    group.add_argument("--YUV_FILE", action="store_true",
                       help="decoded video of data sets in {folder}/yuv, 8-bit 4:4:4")
    return group


def machine_group() -> Group:
    """Device, threads and number format."""
    group = Group("machine", MODEL)
    group.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", often=True,
                       help="auto takes a GPU where there is one")
    group.add_argument("--precision", choices=PRECISIONS, default=PRECISIONS[0], often=True, tasks=FILES,
                       help="number format of the networks; a stream is decoded in the one it was made in")
    group.add_argument("--threads", type=int, metavar="N", often=True,
                       help="CPU threads; results repeat at an equal number")
    group.add_argument("--gpus", type=int, default=1, metavar="N", help="0 keeps --device auto on the CPU")
    group.add_argument("-n", "--num_workers", type=int, metavar="N", tasks=("train",),
                       help="loader processes in training; default: the machine's cores on a GPU, none on a CPU")
    return group


def help_group() -> Group:
    """Handled before all others are parsed."""
    group = Group("help", MODEL)
    group.add_argument("-h", "--help", action="store_true", help="what is needed often; after a verb, its flags")
    group.add_argument("--help_all", action="store_true", help="every flag")
    return group


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
