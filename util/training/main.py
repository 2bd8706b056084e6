"""Entry points of training: one step (`--train_conf`), a whole recipe (`--schedule`), and `--dry_run`."""
import argparse
import re
from dataclasses import replace
from pathlib import Path

import torch

from dataloader.clips import ClipSet, find_clips
from models.hytip.config import ModelConfig
from models.intra.dcvc_dc import ANCHORS
from util.arithmetic import tf32_in_convolutions
from util.chosen_model import configuration
from util.coding.gop import intra_rate_index
from util.errors import InputError
from util.evaluation.metrics import MS_SSIM_SIDE
from util.training.checkpoints import Checkpoints
from util.training.distributed import Team
from util.training.dry_run import describe_phases, print_phases
from util.training.network import TrainedNetwork, with_feature_channel
from util.training.options import DEFAULT_DATASET, TrainingOptions, add_arguments
from util.training.schedule import Phase, Step, read_phases, read_schedule, shortened
from util.training.start import start
from util.training.trainer import Setup, Trainer
from util.training.validation import make_validation

__all__ = ["add_arguments", "run", "train"]


def run(arguments: argparse.Namespace) -> None:
    """What the flags ask for: `--dry_run`, `--schedule` or `--train_conf`.

    Raises:
        InputError: flags, files or data that cannot be used; a run that does not converge.
    """
    train(TrainingOptions.from_namespace(arguments))


def train(options: TrainingOptions) -> bool:
    """As `run`. Returns False when a signal stopped the run, after it was saved."""
    if (options.train_conf is None) == (options.schedule is None):
        raise InputError("give either --train_conf FILE, one step, or --schedule FILE, a recipe; see "
                         "train_cfg/training_procedure.md")
    if options.dry_run:
        dry_run(options)
        return True
    if options.gpus > 1 and "WORLD_SIZE" not in torch.os.environ:
        raise InputError(f"--gpus {options.gpus}: start one process per GPU with torchrun --nproc_per_node="
                         f"{options.gpus} HyTIP.py ...")
    team = Team("cpu" if options.device == "auto" and options.gpus == 0 else options.device)
    _settle_arithmetic(options, team)
    try:
        with tf32_in_convolutions(options.tf32 == "on"):
            return _run_schedule(options, team) if options.schedule else train_step(options, team)
    finally:
        team.leave()


def dry_run(options: TrainingOptions) -> None:
    """Print the phases of the step or of every step of the recipe."""
    rows = []
    if options.schedule is None:
        rows = _describe(options, _step_number(options))
    else:
        for number, step in enumerate(read_schedule(options.schedule), start=1):
            rows += _describe(_options_of_step(options, step, None), str(number))
    print_phases(rows)


def _describe(options: TrainingOptions, number: str) -> list:
    phases = shortened(read_phases(options.train_conf), options.epoch_ratio)
    return describe_phases(number, options.train_conf, phases, TrainedNetwork(_configs(options),
                                                                              options.Pretrain_frame_feature))


def _step_number(options: TrainingOptions) -> str:
    """The place of the phases in the shipped recipe, or nothing."""
    stem = Path(options.train_conf).name.removesuffix(Path(options.train_conf).suffix)
    for number, step in enumerate(read_schedule("schedule.yml"), start=1):
        if Path(step.train_conf).stem == stem:
            return str(number)
    return ""


def _settle_arithmetic(options: TrainingOptions, team: Team) -> None:
    """CPU: repeatable bit by bit. CUDA: fast; the gradient of warping has no deterministic form there."""
    if options.threads is not None:
        if options.threads < 1:
            raise InputError(f"--threads {options.threads} must be at least 1")
        torch.set_num_threads(options.threads)
    on_cuda = team.device.type == "cuda"
    torch.use_deterministic_algorithms(not on_cuda)
    torch.backends.cudnn.benchmark = on_cuda


def _configs(options: TrainingOptions) -> ModelConfig:
    return with_feature_channel(configuration(options), options.feature_channel)


def train_step(options: TrainingOptions, team: Team) -> bool:
    """Train the phases of one `--train_conf`. Returns False when a signal stopped the run.

    Raises:
        InputError: as `run`.
    """
    phases = shortened(read_phases(options.train_conf), options.epoch_ratio)
    config = _configs(options)
    anchor = _intra_rate(options, config)
    torch.manual_seed(options.seed)
    network = TrainedNetwork(config, options.Pretrain_frame_feature)
    _check_phases(options, phases, network)
    clips = _clips_of(options, phases)
    checkpoints = Checkpoints(options.results, options.experiment_name)
    progress, resumed = start(options, phases[-1], network, checkpoints, team)
    counts = " or ".join(map(str, sorted({len(found.clips) for found in clips.values()})))
    team.say(f"{counts} training clips; {team.processes} process{'es' if team.processes > 1 else ''} on "
             f"{team.device.type}")
    _report_idle(options, phases, team)
    validation = make_validation(options, config.variable_rate, anchor, team, phases[-1].lambdas)
    return Trainer(Setup(options, network, phases, clips, checkpoints, validation, anchor, progress, resumed),
                   team).run()


def _clips_of(options: TrainingOptions, phases: tuple[Phase, ...]) -> dict[str, ClipSet]:
    """The training clips of each phase."""
    found: dict[tuple[str, ...], ClipSet] = {}
    for phase in phases:
        if phase.clips not in found:
            found[phase.clips] = find_clips(options.train_dataset or DEFAULT_DATASET,
                                            options.train_data or options.data, phase.clips)
    return {phase.name: found[phase.clips] for phase in phases}


def _report_idle(options: TrainingOptions, phases: tuple[Phase, ...], team: Team) -> None:
    """Say so where batches are too small for all processes to have a share."""
    for phase in phases:
        batch = options.batch_size or phase.batch_size
        if batch < team.processes:
            team.say(f"phase {phase.name}: a batch of {batch} leaves {team.processes - batch} of {team.processes} "
                     f"processes without a share, and what they code does not count; start {batch} processes, or give "
                     f"--batch_size {team.processes} or more")


def _intra_rate(options: TrainingOptions, config: ModelConfig) -> int:
    """The intra rate of a single-rate model; variable-rate models draw theirs with each sample."""
    if config.variable_rate:
        return 0
    quality = options.quality_level if options.iframe_quality is None else options.iframe_quality
    return intra_rate_index(quality, ANCHORS)


def _check_phases(options: TrainingOptions, phases: tuple[Phase, ...], network: TrainedNetwork) -> None:
    """What can be known to fail, before hours of training.

    Raises:
        InputError: a phase does not fit the model or the flags.
    """
    for phase in phases:
        crop_size = phase.crop_size or options.crop_size
        if options.ssim and crop_size <= MS_SSIM_SIDE:
            raise InputError(f"--crop_size {crop_size}: MS-SSIM needs crops above {MS_SSIM_SIDE}")
        network.select(phase)
        options.frame_types(phase.p_frames + 1)
        terms = phase.rate.terms | phase.distortion.terms
        if "feature_frame_distortion" in terms and network.head is None:
            raise InputError(f"phase {phase.name}: feature_frame_distortion needs --Pretrain_frame_feature")
        if phase.stage == "trainmc" and not network.codec.config.inter.Pretrain:
            raise InputError(f"phase {phase.name}: stage trainmc needs an inter configuration with Pretrain: True")
        if 0 < len(options.frame_weight) <= phase.p_frames:
            raise InputError(f"--frame_weight has {len(options.frame_weight)} values; phase {phase.name} codes "
                             f"{phase.p_frames + 1} frames per clip, the I-frame included")


def _run_schedule(options: TrainingOptions, team: Team) -> bool:
    """Every step of the recipe from where it stands, each starting from the last or from the step that it names."""
    previous = None
    for step in read_schedule(options.schedule):
        own = _options_of_step(options, step, previous)
        checkpoints = Checkpoints(own.results, own.experiment_name)
        phases = shortened(read_phases(own.train_conf), own.epoch_ratio)
        last = min(phases[-1].last_epoch, own.end_epoch or phases[-1].last_epoch)
        previous = own.experiment_name
        if team.led(checkpoints.of_epoch(last).is_file):
            team.say(f"{step.name}: done, in {checkpoints.folder}")
            continue
        if team.led(checkpoints.newest) is not None:
            own = replace(own, restore="resume", restore_exp_key=None)
        team.say(f"{step.name}: {Path(own.train_conf).name} with {step.cond_motion_coder_conf} and "
                 f"{step.residual_coder_conf}")
        if not train_step(own, team):
            return False
    return True


def _options_of_step(options: TrainingOptions, step: Step, previous: str | None) -> TrainingOptions:
    """The options of one step of a recipe.

    Raises:
        InputError: the step's name cannot be part of a folder's name.
    """
    if not re.fullmatch(r"[\w.-]+", step.name):
        raise InputError(f"step {step.name!r}: a name may hold letters, digits, '.', '-' and '_' only")
    return replace(
        options, cond_motion_coder_conf=options.config_dir / step.cond_motion_coder_conf,
        residual_coder_conf=options.config_dir / step.residual_coder_conf,
        intra_coder_conf=options.config_dir / step.intra_coder_conf,
        motion_estimation_conf=options.config_dir / step.motion_estimation_conf,
        train_conf=Path(step.train_conf), experiment_name=f"{options.experiment_name}_{step.name}",
        restore=step.restore, restore_exp_epoch=None, quality_level=step.quality_level,
        restore_exp_key=f"{options.experiment_name}_{step.after}" if step.after else previous,
        seed=options.seed if step.seed is None else step.seed, rates_from=step.rates_from,
        iframe_quality=step.iframe_quality, rate_gop_size=step.rate_gop_size,
        index_map=step.index_map or TrainingOptions.index_map,
        index_map_training=step.index_map_training or TrainingOptions.index_map_training,
        frame_weight=step.frame_weight or (), FGOP_Inter_XtRNN=step.FGOP_Inter_XtRNN,
        Pretrain_frame_feature=step.Pretrain_frame_feature,
        train_dataset=options.train_dataset or step.train_dataset)
