"""From flags to a model that is ready to code."""
import argparse
import sys
from pathlib import Path

import torch

from config import load_config
from models.hytip.codec import HyTIP
from models.hytip.config import InterConfig, IntraConfig, ModelConfig, MotionConfig, MotionEstimationConfig
from util.arithmetic import Arithmetic, choose_arithmetic
from util.checkpoint import load_model
from util.cli.arguments import intra_qualities
from util.coding.gop import CodingPlan, intra_rate_index
from util.errors import InputError
from util.shipped import MODELS


def load_configs(arguments: argparse.Namespace) -> ModelConfig:
    """The configuration of the four networks.

    Raises:
        InputError: a file is unreadable or wrong, or the files do not belong together.
    """
    intra = load_config(arguments.intra_coder_conf, IntraConfig)
    estimation = load_config(arguments.motion_estimation_conf, MotionEstimationConfig)
    motion = load_config(arguments.cond_motion_coder_conf, MotionConfig)
    inter = load_config(arguments.residual_coder_conf, InterConfig)
    try:
        return ModelConfig(intra=intra, motion_estimation=estimation, motion=motion, inter=inter)
    except ValueError as error:
        raise InputError(f"{arguments.cond_motion_coder_conf} and {arguments.residual_coder_conf}: {error}") from None


def weights_path(arguments: argparse.Namespace) -> Path:
    """The file of `--weights`, that of the experiment of `--restore_exp_key`, or that of `--model` for the metric.

    Raises:
        InputError: the experiment has no checkpoint, or the model no weights for the metric.
    """
    if arguments.weights is None and arguments.restore_exp_key is not None:
        return checkpoint_of(arguments.results, arguments.restore_exp_key, arguments.restore_exp_epoch)
    return arguments.weights or MODELS[arguments.model].weight_file(arguments.ssim)


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


def untrained_model(config: ModelConfig) -> HyTIP:
    """A model with seeded random weights; the random state of the process is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return HyTIP(config)


def build_model(arguments: argparse.Namespace) -> HyTIP:
    """The model with its weights, in float32.

    Raises:
        InputError: configuration or weights cannot be used.
    """
    config = load_configs(arguments)
    if arguments.untrained:
        print("HyTIP: the weights are untrained (seeded random numbers): rates and qualities only show that the "
              "program works", file=sys.stderr)
        return untrained_model(config)
    model = HyTIP(config)
    load_model(model, weights_path(arguments))
    return model


def coding_plans(arguments: argparse.Namespace, variable_rate: bool, scene_cuts: tuple[int, ...]) -> list[CodingPlan]:
    """One plan per QP.

    Args:
        scene_cuts: 1-based frame numbers, used with `--remove_scene_cut`.
    """
    cuts = frozenset(cut - 1 for cut in scene_cuts) if arguments.remove_scene_cut else frozenset()
    return [CodingPlan(qp=qp, intra_qp=intra_rate_index(quality, variable_rate), gop=arguments.gop,
                       index_map=tuple(arguments.index_map), rate_gop_size=arguments.rate_gop_size,
                       reset_interval=arguments.reset_interval, scene_cuts=cuts)
            for qp, quality in zip(arguments.QP, intra_qualities(arguments))]


def save_dirs(arguments: argparse.Namespace) -> list[Path]:
    """Where the results of each QP go."""
    if arguments.save_dir is None:
        return [Path("results") / f"{arguments.experiment_name}-{qp}" for qp in arguments.QP]
    if len(arguments.QP) == 1:
        return [arguments.save_dir]
    return [arguments.save_dir / str(qp) for qp in arguments.QP]
