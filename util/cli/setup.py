"""From flags to a model that is ready to code."""
import argparse
import sys
from pathlib import Path

import torch

from models.codec import VideoCodec
from util.arithmetic import Arithmetic, choose_arithmetic
from util.checkpoint import load_model
from util.chosen_model import model_of, new_codec
from util.cli.arguments import intra_qualities
from util.coding.gop import CodingPlan
from util.errors import InputError


def weight_files(arguments: argparse.Namespace) -> tuple[Path, ...]:
    """The files of `--weights` and `--intra_weights`, that of the experiment of `--restore_exp_key`, or those of
    `--model` for the metric.

    Raises:
        InputError: the experiment has no checkpoint, or the model no weights for the metric.
    """
    given = [path for path in (arguments.intra_weights, arguments.weights) if path is not None]
    if arguments.weights is None and arguments.restore_exp_key is not None:
        return (*given, checkpoint_of(arguments.results, arguments.restore_exp_key, arguments.restore_exp_epoch))
    if arguments.weights is not None:
        return tuple(given)
    own = model_of(arguments).weight_files(arguments.ssim)
    return (*given, *own[1:]) if given else own


def checkpoint_of(results: Path, experiment: str, epoch: int | None) -> Path:
    """`{results}/{experiment}/checkpoints/epoch={n}.pth.tar`; the last epoch by default.

    Raises:
        InputError: there is none.
    """
    folder = results / experiment / "checkpoints"
    epochs = {int(path.name[6:-8]): path for path in folder.glob("epoch=*.pth.tar") if path.name[6:-8].isdigit()}
    if not epochs or (epoch is not None and epoch not in epochs):
        raise InputError(f"{folder} holds no checkpoint{'' if epoch is None else f' of epoch {epoch}'}; check "
                         "--restore_exp_key and --restore_exp_epoch")
    return epochs[max(epochs) if epoch is None else epoch]


def settle_arithmetic(arguments: argparse.Namespace) -> Arithmetic:
    """The one choice of device and number format."""
    device = "cpu" if arguments.device == "auto" and arguments.gpus == 0 else arguments.device
    return choose_arithmetic(device, arguments.threads, arguments.precision)


def untrained_model(arguments: argparse.Namespace) -> VideoCodec:
    """A codec with seeded random weights; the random state of the process is left alone.

    Raises:
        InputError: its configuration cannot be used.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return new_codec(arguments)


def build_model(arguments: argparse.Namespace) -> VideoCodec:
    """The codec with its weights, in float32.

    Raises:
        InputError: configuration or weights cannot be used.
    """
    if arguments.untrained:
        print("HyTIP: the weights are untrained (seeded random numbers): rates and qualities only show that the "
              "program works", file=sys.stderr)
        return untrained_model(arguments)
    codec = new_codec(arguments)
    model, files = model_of(arguments), weight_files(arguments)
    released = {file.name for own in model.weights.values() for file in own}
    load_model(codec, files, model.origin if {file.name for file in files} <= released else None)
    return codec


def coding_plans(arguments: argparse.Namespace, scene_cuts: tuple[int, ...]) -> list[CodingPlan]:
    """One plan per QP; the intra rates are still those of the flags (`CodingPlan.for_intra_rates`).

    Args:
        scene_cuts: 1-based frame numbers, used with `--remove_scene_cut`.
    """
    cuts = frozenset(cut - 1 for cut in scene_cuts) if arguments.remove_scene_cut else frozenset()
    return [CodingPlan(qp=qp, intra_qp=quality, gop=arguments.gop, index_map=tuple(arguments.index_map),
                       rate_gop_size=arguments.rate_gop_size, reset_interval=arguments.reset_interval, scene_cuts=cuts)
            for qp, quality in zip(arguments.QP, intra_qualities(arguments))]


def save_dirs(arguments: argparse.Namespace) -> list[Path]:
    """Where the results of each QP go."""
    if arguments.save_dir is None:
        return [Path("results") / f"{arguments.experiment_name}-{qp}" for qp in arguments.QP]
    if len(arguments.QP) == 1:
        return [arguments.save_dir]
    return [arguments.save_dir / str(qp) for qp in arguments.QP]
