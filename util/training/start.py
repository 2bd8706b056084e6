"""What a step begins with: random weights, pretrained ones, the result of another step, or an interrupted run."""
from pathlib import Path

from util.checkpoint import load_model, read_file
from util.chosen_model import model_of
from util.errors import InputError
from util.training.averaging import put_back
from util.training.checkpoints import AVERAGE, KEY, Checkpoints, Progress, read_progress, restore_network
from util.training.distributed import Team
from util.training.network import TrainedNetwork
from util.training.options import DEFAULT_DATASET, TrainingOptions
from util.training.phases import Phase
from util.training.starting_points import FROM_NOTHING, start_from_checkpoint, start_from_pretrained


def start(options: TrainingOptions, last: Phase, network: TrainedNetwork, checkpoints: Checkpoints, team: Team
           ) -> tuple[Progress, dict | None]:
    """Fill the network from what `--restore` names. Returns the progress, and the checkpoint when resuming."""
    fresh = Progress(seed=options.seed, recipe=_recipe(options))
    if options.restore in FROM_NOTHING or (options.restore == "load_pretrained" and options.from_scratch):
        ends = last.lambdas and (last.lambdas[0], last.lambdas[-1])
        network.codec.for_training().initialise(network.codec, ends)
    if options.restore == "resume":
        return _resume(options, network, checkpoints, team)
    if options.restore == "HyTIP":
        own = model_of(options)
        paths = [options.weights] if options.weights else list(own.weight_files(options.ssim))
        if not options.weights and options.pretrained != TrainingOptions.pretrained:
            paths = [options.pretrained / path.name for path in paths]
        load_model(network.codec, paths, own.origin)
        team.say(f"--restore HyTIP: all of {' and '.join(map(str, paths))}")
    elif options.restore == "load_pretrained":
        for line in start_from_pretrained(network, options.pretrained, options.ssim, options.from_scratch):
            team.say(line)
    elif options.restore == "scratch":
        team.say(f"--restore scratch: random weights of seed {options.seed}")
    else:
        for line in start_from_checkpoint(network, _source(options, team), options.restore):
            team.say(line)
    if team.led(lambda: checkpoints.newest() is not None):
        raise InputError(f"{checkpoints.folder} holds checkpoints already; go on with --restore resume, or choose "
                         "another --experiment_name")
    return fresh, None


def _source(options: TrainingOptions, team: Team) -> Path:
    """The checkpoint that the step starts from.

    Raises:
        InputError: there is none.
    """
    if options.restore_exp_key is None and options.weights is not None:
        return options.weights
    if options.restore_exp_key is None:
        raise InputError(f"--restore {options.restore} needs --restore_exp_key NAME, the experiment of the previous "
                         "step, or --weights FILE")
    source = Checkpoints(options.results, options.restore_exp_key)

    def newest() -> Path | None:
        if options.restore_exp_epoch is None and source.epochs():
            return source.of_epoch(source.epochs()[-1])
        return source.newest(options.restore_exp_epoch)

    path = team.led(newest)
    if path is None:
        raise InputError(f"{source.folder} holds no checkpoint; check --restore_exp_key {options.restore_exp_key}")
    _require_shared(path, team)
    return path


def _require_shared(path: Path, team: Team) -> None:
    """Every process reads the checkpoint that the leader chose.

    Raises:
        InputError: one does not see it.
    """
    missing = [rank for rank, seen in enumerate(team.gather(path.is_file())) if not seen]
    if missing:
        raise InputError(f"{path} is not there for process {missing[0]}; put --results on a file system that all "
                         "machines share")


def _resume(options: TrainingOptions, network: TrainedNetwork, checkpoints: Checkpoints, team: Team
            ) -> tuple[Progress, dict]:
    source = Checkpoints(options.results, options.restore_exp_key) if options.restore_exp_key else checkpoints
    path = team.led(lambda: source.newest(options.restore_exp_epoch))
    if path is None:
        raise InputError(f"{source.folder} holds no checkpoint to resume; start with another --restore")
    _require_shared(path, team)
    content = read_file(path, "the interrupted run")
    progress = read_progress(content, path)
    restore_network(network, content, path)
    if AVERAGE in content[KEY] and not options.ema:
        put_back(network, content[KEY][AVERAGE])
    now = {"seed": options.seed, **_recipe(options)}
    then = {"seed": progress.seed, **progress.recipe}
    changed = sorted(key for key in now.keys() & then.keys() if now[key] != then[key])
    if changed:
        team.say(f"warning: {', '.join(changed)} changed since {path} was written; the run goes on, but is not the "
                 "one that was interrupted")
    progress.seed, progress.recipe = options.seed, _recipe(options)
    team.say(f"--restore resume: {path}, epoch {progress.epoch}, step {progress.step + 1}")
    return progress, content


def _recipe(options: TrainingOptions) -> dict:
    """What decides the course of a run, besides the seed."""
    names = ("quality_level", "ssim", "epoch_ratio", "batch_size", "crop_size", "amp", "tf32", "ema",
             "FGOP_Inter_XtRNN")
    return {"train_conf": Path(options.train_conf).name, "train_dataset": options.train_dataset or DEFAULT_DATASET,
            **{name: getattr(options, name) for name in names},
            "index_map_training": list(options.index_map_training), "frame_weight": list(options.frame_weight)}
