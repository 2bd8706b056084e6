"""Entry points of training: one step (`--train_conf`), a whole recipe (`--schedule`), and `--dry_run`."""
import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from config.loader import changed
from models.catalogue import codec_class
from models.codec import VideoCodec
from util.arithmetic import tf32_in_convolutions
from util.chosen_model import PART_FLAGS, configuration, model_of
from util.coding.gop import intra_rate_index
from util.errors import InputError
from util.evaluation.metrics import MS_SSIM_SIDE
from util.training.checkpoints import Checkpoints
from util.training.data import clips_of, root_of
from util.training.distributed import Team, team_of
from util.training.dry_run import describe_phases, print_phases
from util.training.network import TrainedNetwork
from util.training.options import TrainingOptions
from util.training.phases import Phase, read_phases, shortened
from util.training.schedule import Step, read_schedule
from util.training.start import start
from util.training.trainer import Setup, Trainer
from util.training.validation import make_validation

USUAL_FILES = {"intra_coder_conf": "Intra.yml", "motion_estimation_conf": "MENet.yml"}
"""Files of parts that hardly ever change, below `--config_dir`."""


def run(arguments: argparse.Namespace) -> None:
    """What the flags ask for: `--dry_run`, `--schedule` or `--train_conf`.

    Raises:
        InputError: flags, files or data that cannot be used; a run that does not converge.
    """
    train(TrainingOptions.from_namespace(arguments))


def train(options: TrainingOptions) -> None:
    """As `run`.

    Raises:
        InputError: as `run`.
        Ended: a signal stopped the run, after it was saved.
    """
    if (options.train_conf is None) == (options.schedule is None):
        raise InputError("give either --train_conf FILE, one step, or --schedule FILE, a recipe; see "
                         "train_cfg/training_procedure.md")
    if options.dry_run:
        dry_run(options)
        return
    if options.schedule is not None:
        train_recipe(options, read_schedule(options.schedule))
    else:
        _in_team(options, lambda team: train_step(options, team))


def train_recipe(options: TrainingOptions, steps: Sequence[Step]) -> None:
    """The steps of a recipe that has been read, as `--schedule`; the first starts from `restore_exp_key` or `weights`.

    Raises:
        InputError, Ended: as `train`.
    """
    _in_team(options, lambda team: _run_steps(options, steps, team))


def _in_team(options: TrainingOptions, work: Callable[[Team], None]) -> None:
    """Do something with all processes that torchrun started."""
    if options.gpus > 1 and "WORLD_SIZE" not in torch.os.environ:
        raise InputError(f"--gpus {options.gpus}: start one process per GPU with torchrun --nproc_per_node="
                         f"{options.gpus} HyTIP.py ...")
    with team_of(options.device, options.gpus) as team:
        _settle_arithmetic(options, team)
        with tf32_in_convolutions(options.tf32 == "on"):
            work(team)


def dry_run(options: TrainingOptions) -> None:
    """Print the phases of the step or of every step of the recipe."""
    rows = []
    if options.schedule is None:
        rows = _describe(options, _step_number(options))
    else:
        for number, step in enumerate(read_schedule(options.schedule), start=1):
            rows += _describe(options_of_step(options, step, None), str(number))
    print_phases(rows)


def _describe(options: TrainingOptions, number: str) -> list:
    phases = shortened(read_phases(options.train_conf), options.epoch_ratio)
    return describe_phases(number, options.train_conf, phases, TrainedNetwork(new_codec(options),
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
    torch.set_deterministic_debug_mode("default" if on_cuda else "error")      # loads no compiler, as its twin does
    torch.backends.cudnn.benchmark = on_cuda


def new_codec(options: TrainingOptions) -> VideoCodec:
    """The codec of a run with new weights.

    Raises:
        InputError: its configuration cannot be used, or has no implicit feature where `--feature_channel` is given.
    """
    config, channels = configuration(options), options.feature_channel
    if channels is not None:
        if channels < 1:
            raise InputError(f"--feature_channel {channels} must be at least 1")
        if not hasattr(config, "with_feature_channel"):
            raise InputError(f"--feature_channel {channels}: --model {options.model} has no such feature; leave it out")
        try:
            config = config.with_feature_channel(channels)
        except ValueError as error:
            raise InputError(f"--feature_channel {channels}: {error}") from None
    return codec_class(model_of(options))(config)


def train_step(options: TrainingOptions, team: Team) -> None:
    """Train the phases of one `--train_conf`.

    Raises:
        InputError, Ended: as `train`.
    """
    phases = shortened(read_phases(options.train_conf), options.epoch_ratio)
    torch.manual_seed(options.seed)
    network = TrainedNetwork(new_codec(options), options.Pretrain_frame_feature)
    anchor = intra_rate(options, network.codec)
    _check_phases(options, phases, network)
    clips = clips_of(options, phases)
    checkpoints = Checkpoints(options.results, options.experiment_name)
    progress, resumed = start(options, phases[-1], network, checkpoints, team)
    counts = " or ".join(map(str, sorted({len(found.clips) for found in clips.values()})))
    team.say(f"{counts} training clips; {team.processes} process{'es' if team.processes > 1 else ''} on "
             f"{team.device.type}")
    if any(phase.clips and not clips[phase.name].groups for phase in phases):
        team.say(f"{root_of(options)} holds none of the folders that the phases name: all its clips have equal shares")
    _report_idle(options, phases, team)
    validation = make_validation(options, not network.codec.single_rate, anchor, team, phases[-1].lambdas)
    Trainer(Setup(options, network, phases, clips, checkpoints, validation, anchor, progress, resumed),
                  team).run()


def _report_idle(options: TrainingOptions, phases: tuple[Phase, ...], team: Team) -> None:
    """Say so where batches are too small for all processes to have a share."""
    for phase in phases:
        batch = options.batch_size or phase.batch_size
        if batch < team.processes:
            team.say(f"phase {phase.name}: a batch of {batch} leaves {team.processes - batch} of {team.processes} "
                     f"processes without a share, and what they code does not count; start {batch} processes, or give "
                     f"--batch_size {team.processes} or more")


def intra_rate(options: TrainingOptions, codec: VideoCodec) -> int:
    """The intra rate of a single-rate model; variable-rate models draw theirs with each sample."""
    if not codec.single_rate:
        return 0
    quality = options.quality_level if options.iframe_quality is None else options.iframe_quality
    return intra_rate_index(quality, codec.rates(intra=True))


def _check_phases(options: TrainingOptions, phases: tuple[Phase, ...], network: TrainedNetwork) -> None:
    """What can be known to fail, before hours of training.

    Raises:
        InputError: a phase does not fit the model or the flags.
    """
    for phase in phases:
        crop_size = phase.crop_size or options.crop_size
        if crop_size % network.codec.grid.align:
            raise InputError(f"--crop_size {crop_size} must be a multiple of {network.codec.grid.align}, the codec's "
                             "grid")
        if options.ssim and crop_size <= MS_SSIM_SIDE:
            raise InputError(f"--crop_size {crop_size}: MS-SSIM needs crops above {MS_SSIM_SIDE}")
        network.select(phase)
        if phase.balance and network.codec.single_rate:
            raise InputError(f"phase {phase.name}: balance weighs the rates of a model against each other, and this "
                             "one has a single rate; leave it out")
        options.frame_types(phase.late + phase.p_frames + 1)
        terms = phase.rate.terms | phase.distortion.terms
        if "feature_frame_distortion" in terms and network.head is None:
            raise InputError(f"phase {phase.name}: feature_frame_distortion needs --Pretrain_frame_feature")
        if phase.path is not None and phase.path not in network.codec.partial_paths():
            raise InputError(f"phase {phase.name}: stage {phase.stage} needs a model that can code {phase.path} alone "
                             "(contexts: HyTIP with an inter configuration with Pretrain: True)")
        if 0 < len(options.frame_weight) <= phase.p_frames:
            raise InputError(f"--frame_weight has {len(options.frame_weight)} values; phase {phase.name} codes "
                             f"{phase.p_frames + 1} frames per clip, the I-frame included")


def _run_steps(options: TrainingOptions, steps: Sequence[Step], team: Team) -> None:
    """Every step of a recipe from where it stands, each starting from the last or from the step that it names."""
    for step in steps:
        own = options_of_step(options, step, None)
        clips_of(own, read_phases(own.train_conf))                  # data that no later step can use is told now
    previous = options.restore_exp_key
    for step in steps:
        own = options_of_step(options, step, previous)
        checkpoints = Checkpoints(own.results, own.experiment_name)
        phases = shortened(read_phases(own.train_conf), own.epoch_ratio)
        last = min(phases[-1].last_epoch, own.end_epoch or phases[-1].last_epoch)
        previous = own.experiment_name
        if team.led(checkpoints.of_epoch(last).is_file):
            team.say(f"{step.name}: done, in {checkpoints.folder}")
            continue
        if team.led(checkpoints.newest) is not None:
            own = replace(own, restore="resume", restore_exp_key=None)
        parts = [part for part in (step.cond_motion_coder_conf, step.residual_coder_conf) if part is not None]
        team.say(f"{step.name}: {Path(own.train_conf).name} with {' and '.join(parts) or own.model}")
        train_step(own, team)


def _part_files(options: TrainingOptions, step: Step) -> dict[str, Path | None]:
    """By flag, the files of parts: those that the step names; where it names some, the usual names for the others;
    where it names none, those of the command line."""
    named = {flag: getattr(step, flag) for flag in PART_FLAGS}
    if any(named.values()):
        named = {flag: file or USUAL_FILES.get(flag) for flag, file in named.items()}
    return {flag: options.config_dir / file if file else getattr(options, flag) for flag, file in named.items()}


def options_of_step(options: TrainingOptions, step: Step, previous: str | None) -> TrainingOptions:
    """The options of one step of a recipe.

    Args:
        previous: the experiment that it starts from, unless it names a step.

    Raises:
        InputError: the step's name cannot be part of a folder's name.
    """
    if not re.fullmatch(r"[\w.-]+", step.name):
        raise InputError(f"step {step.name!r}: a name may hold letters, digits, '.', '-' and '_' only")
    return replace(
        options, **_part_files(options, step), model=step.model or options.model,
        changes=changed(options.changes or {}, step.changes or {}),
        train_conf=Path(step.train_conf), experiment_name=f"{options.experiment_name}_{step.name}",
        restore=step.restore, restore_exp_epoch=None, quality_level=step.quality_level,
        restore_exp_key=f"{options.experiment_name}_{step.after}" if step.after else previous,
        seed=options.seed if step.seed is None else step.seed, ema=options.ema or step.ema,
        iframe_quality=step.iframe_quality, rate_gop_size=step.rate_gop_size,
        index_map=step.index_map or TrainingOptions.index_map,
        index_map_training=step.index_map_training or TrainingOptions.index_map_training,
        frame_weight=step.frame_weight or (), FGOP_Inter_XtRNN=step.FGOP_Inter_XtRNN,
        Pretrain_frame_feature=step.Pretrain_frame_feature,
        train_dataset=options.train_dataset or step.train_dataset)
