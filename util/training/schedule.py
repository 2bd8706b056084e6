"""Recipes of several training steps, as their files say (train_cfg/training_procedure.md).

A file of `--schedule` lists steps; each names its configuration files, its phases and its starting point. What steps
have in common may stand under `defaults`, the steps then under `steps`.
"""
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from util.errors import InputError
from util.training.phases import find_file
from util.yaml_file import read_named


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a recipe. Fields are named as the flags of the command line.

    Attributes:
        name: the step's experiment is `{experiment_name}_{name}`.
        model: instead of `--model`; files of its parts are looked for in `--config_dir`.
        after: the step whose result this one starts from, of this recipe or another; by default the one before.
        seed: instead of `--seed`.
        ema: instead of an `--ema` of 0.
        changes: other values for some of the model's parameters, e.g. {inter: {no_context: true}}.
    """
    name: str
    train_conf: str
    restore: str
    model: str | None = None
    cond_motion_coder_conf: str | None = None
    residual_coder_conf: str | None = None
    intra_coder_conf: str | None = None
    motion_estimation_conf: str | None = None
    quality_level: int = 5
    iframe_quality: int = 5
    QP: int = 63
    index_map_training: tuple[int, ...] | None = None
    index_map: tuple[int, ...] | None = None
    rate_gop_size: int = 8
    frame_weight: tuple[float, ...] | None = None
    FGOP_Inter_XtRNN: bool = False
    Pretrain_frame_feature: bool = False
    train_dataset: str | None = None
    after: str | None = None
    seed: int | None = None
    ema: float = 0.0
    changes: dict[str, Any] | None = None


def read_schedule(path: str | Path) -> tuple[Step, ...]:
    """The steps of a `--schedule` file; `train_conf` is meant from the file's own folder.

    Raises:
        InputError: a key or value is unknown, missing or impossible.
    """
    path = find_file(path)
    fields = {field.name: field for field in dataclasses.fields(Step)}
    required = {name for name, field in fields.items() if field.default is dataclasses.MISSING}
    steps = []
    for name, settings in read_named(path, "step").items():
        given = {**settings, "name": name}
        for key in given.keys() - fields.keys():
            raise InputError(f"{path}: step {name}: unknown key {key!r}; allowed are {', '.join(fields)}")
        for key in sorted(required - given.keys()):
            raise InputError(f"{path}: step {name}: key {key!r} is missing")
        given = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
        if not isinstance(given.get("changes") or {}, dict):
            raise InputError(f"{path}: step {name}: changes must map parameters of the model to values")
        given["train_conf"] = str(find_file(path.parent / str(given["train_conf"])))
        steps.append(Step(**given))
    return tuple(steps)
