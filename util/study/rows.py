"""Rows that are trained: from what a study says of them to experiments below `DIR/training`, and what is missing there.

An experiment is a step of a row's recipe, `{row}_{step}`; what trains first for other rows has a name of its own.
"""
import dataclasses
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from config.loader import changed
from models.catalogue import configure, find_model
from util.checkpoint import read_file
from util.chosen_model import PART_FLAGS
from util.errors import InputError
from util.files import atomic_path
from util.study.file import RELEASED, Row, Start, Study
from util.training.checkpoints import Checkpoints, read_progress
from util.training.distributed import Team
from util.training.main import options_of_step, train_recipe
from util.training.options import TrainingOptions
from util.training.phases import read_phases, shortened
from util.training.schedule import Step, read_schedule


@dataclass(frozen=True, kw_only=True)
class Job:
    """Something that a recipe trains.

    Attributes:
        name: of the row, or of what is trained for rows to start from.
        options: of the whole recipe; those of a step follow from them.
        before: what must be trained first.
    """
    name: str
    options: TrainingOptions
    steps: tuple[Step, ...]
    before: "Job | None" = None

    @property
    def experiment(self) -> str:
        """Of the last step, which holds the result."""
        return f"{self.name}_{self.steps[-1].name}"

    def options_of_steps(self) -> Iterator[tuple[Step, TrainingOptions]]:
        previous = self.options.restore_exp_key
        for step in self.steps:
            own = options_of_step(self.options, step, previous)
            previous = own.experiment_name
            yield step, own

    def result_of(self, own: TrainingOptions) -> Path:
        """The last checkpoint of a step, there or not yet."""
        last = shortened(read_phases(own.train_conf), own.epoch_ratio)[-1].last_epoch
        return Checkpoints(own.results, own.experiment_name).of_epoch(min(last, own.end_epoch or last))

    @property
    def result(self) -> Path:
        """The weights that the recipe ends with."""
        return self.result_of([own for _, own in self.options_of_steps()][-1])

    def updates(self) -> int:
        """Optimizer steps of all steps that are there."""
        paths = [self.result_of(own) for _, own in self.options_of_steps()]
        return sum(read_progress(read_file(path), path).updates for path in paths if path.is_file())


def job_of(study: Study, row: Row, options: TrainingOptions, seen: tuple[str, ...] = ()) -> Job | None:
    """How a row is trained; None for rows that are not.

    Args:
        options: what all rows share: data, results, machine.

    Raises:
        InputError: a recipe cannot be used, or rows start from each other.
    """
    if row.recipe is None:
        return None
    if row.name in seen:
        raise InputError(f"rows start from each other: {', '.join((*seen, row.name))}")
    before = weights = None
    if row.start is not None and row.start.row is not None:
        source = study.rows[row.start.row]
        before = job_of(study, source, options, (*seen, row.name))
        weights = None if before is not None else _own_weights(source, options.ssim)
    elif row.start is not None:
        weights = options.weights or row.start.weights
        before = _job(row.start.name, row.start, 0, options) if weights is None else None
    key = None if before is None else before.experiment
    return _job(row.name, row, row.seed, replace(options, weights=weights, restore_exp_key=key), before, row.restore)


def _own_weights(row: Row, ssim: bool) -> Path:
    if row.weights != RELEASED:
        return Path(row.weights)
    return find_model(row.model).weight_files(ssim)[0]


def _job(name: str, what: Row | Start, seed: int, options: TrainingOptions, before: Job | None = None,
         restore: str | None = None) -> Job:
    steps = read_schedule(what.recipe)
    for step in steps:
        parts = [flag for flag in (*PART_FLAGS, "model") if getattr(step, flag) is not None]
        if parts:
            raise InputError(f"{what.recipe}: step {step.name} names {parts[0]}, but a row of a study says itself "
                             "which model it is; use a recipe whose steps name no files of models")
    if restore is not None:
        steps = (replace(steps[0], restore=restore), *steps[1:])
    return Job(name=name, steps=steps, before=before,
               options=replace(options, model=what.model, changes=what.changes, experiment_name=name, seed=seed))


def train(job: Job, results: Path, team: Team) -> None:
    """Train what is missing of a job, and of what it starts from, with all processes.

    Raises:
        InputError: as in training; or the folder has a row of that name that is another.
        Ended: a signal stopped the run, after it was saved.
    """
    if job.before is not None:
        train(job.before, results, team)
    if not team.led(lambda: _settle_identity(job, results) or job.result.is_file()):
        train_recipe(job.options, job.steps)


def _settle_identity(job: Job, results: Path) -> None:
    """What the row is, in a file beside the experiments; what stands there already must be the same.

    Raises:
        InputError: it is not.
    """
    path, own = results / "rows" / f"{job.name}.json", identity(job)
    text = json.dumps(own, indent=1, sort_keys=True, default=str)
    if path.is_file():
        if path.read_text(encoding="utf-8") != text:
            before = json.loads(path.read_text(encoding="utf-8"))
            differ = [key for key in own if json.loads(text).get(key) != before.get(key)]
            raise InputError(f"{path}: row {job.name} was trained with another {' and another '.join(differ)}; choose "
                             "another --results, or name the row differently")
    else:
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def identity(job: Job) -> dict[str, Any]:
    """What makes a row what it is, for comparison. Paths count by their names."""
    return {"model": plain(configure(find_model(job.options.model), changes=job.options.changes)),
            "recipe": [{**asdict(replace(step, train_conf=Path(step.train_conf).name)),
                        "phases": list(map(repr, read_phases(step.train_conf)))} for step in job.steps],
            "seed": job.options.seed,
            "start": job.options.restore_exp_key or (job.options.weights and Path(job.options.weights).name)}


def plain(value: Any) -> Any:
    """A configuration as a YAML file says it; a None that is the default is left out, as files cannot say it of all."""
    if dataclasses.is_dataclass(value):
        found = {field.name: (getattr(value, field.name), field.default) for field in dataclasses.fields(value)}
        return {name: plain(own) for name, (own, default) in found.items() if not (own is None and default is None)}
    return [plain(each) for each in value] if isinstance(value, tuple | list) else value


def write_model(row: Row, job: Job | None, path: Path) -> Path:
    """The row's model in a file of its own, with every value spelled out, as its last step has it."""
    last = job.steps[-1].changes if job is not None else None
    model = find_model(row.model)
    params = plain(configure(model, changes=changed(row.changes or {}, last or {})))
    with atomic_path(path) as temporary:
        temporary.write_text(yaml.safe_dump({"codec": model.codec, "model_params": params,
                                             "paper": f"{row.label}, {model.paper}"}, sort_keys=False),
                             encoding="utf-8")
    return path
