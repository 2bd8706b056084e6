"""The twelve steps, end to end, with the shipped files: only widths, data, batch and epochs are overridden.

That takes minutes (-m slow). By default two phases of each step, the first and the last, on shorter clips.
"""
import io
import os
import signal
from contextlib import redirect_stdout
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import training_helpers
from training_helpers import options, write_clips, write_tiny_configs

from util.program import Ended
from util.training import main
from util.training.checkpoints import Checkpoints
from util.training.phases import TRAIN_CFG, Phase, read_phases
from util.training.schedule import read_schedule

STEPS = read_schedule(TRAIN_CFG / "schedule.yml")

FROZEN_AT_FIRST = {2: "CondMotion", 3: "Residual", 4: "CondMotion", 5: "Residual", 6: "CondMotion", 7: "CondMotion",
                   8: "CondMotion", 9: "CondMotion", 10: "CondMotion.module.net.mv_encoder", 11: "if_model",
                   12: "if_model"}
"""A part that the first phase of a step leaves as the step before left it."""


def first_and_last(path):
    first, *others = read_phases(path)
    return tuple(replace(phase, max_p_frames=min(phase.max_p_frames, 2)) for phase in (first, *others[-1:]))


class Recipe(NamedTuple):
    """What became of it. With --epoch_ratio near zero each phase has one epoch, so a step as many as phases."""
    results: Path
    phases: list[tuple[Phase, ...]]
    said: list[str]

    def last_of(self, number: int) -> Path:
        return self.checkpoint(number, len(self.phases[number - 1]))

    def checkpoint(self, number: int, epoch: int = 1) -> Path:
        return Checkpoints(self.results, f"HyTIP_{STEPS[number - 1].name}").of_epoch(epoch)


@pytest.fixture(scope="module", params=[first_and_last, pytest.param(read_phases, marks=pytest.mark.slow)])
def recipe(request, tmp_path_factory):
    """The recipe, stopped in step 3 and started again."""
    folder = tmp_path_factory.mktemp("recipe")
    clips = write_clips(folder / "clips", count=1, frames=10, side=32)
    run = options(folder, write_tiny_configs(folder / "configs"), schedule=TRAIN_CFG / "schedule.yml", data=clips,
                  batch_size=1, epoch_ratio=0.001, crop_size=32)
    run = replace(run, restore="HyTIP")                                  # the recipe's steps say what they start from
    third, save = Checkpoints(run.results, "HyTIP_step03").of_epoch(1), Checkpoints.save

    def stopping(self, path, *args, **kwargs):
        save(self, path, *args, **kwargs)
        if path == third:
            os.kill(os.getpid(), signal.SIGTERM)
    said = [io.StringIO(), io.StringIO()]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said[0]), pytest.raises(Ended):
        patch.setattr(main, "read_phases", request.param)
        patch.setattr(Checkpoints, "save", stopping)
        main.train(run)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said[1]):
        patch.setattr(main, "read_phases", request.param)
        main.train(run)
    return Recipe(run.results, [request.param(step.train_conf) for step in STEPS], [text.getvalue() for text in said])


entries = lru_cache(maxsize=None)(training_helpers.entries)


def test_every_phase_of_every_step_is_trained(recipe):
    for step, phases in zip(STEPS, recipe.phases):
        rows = training_helpers.curve(recipe.results, f"HyTIP_{step.name}")
        assert [row["phase"] for row in rows] == [phase.name for phase in phases], step.name
        assert [int(row["epoch"]) for row in rows] == list(range(1, len(phases) + 1))
        for row, phase in zip(rows, phases):
            assert float(row["lr"]) == phase.lr
            assert int(row["samples"]) + int(row["skipped"]) == 1


def test_the_recipe_goes_on_where_it_was_stopped(recipe):
    first, second = recipe.said
    assert "stopped by a signal" in first and "step04:" not in first
    assert "step01: done" in second and "step02: done" in second
    assert "HyTIP_step03/checkpoints" in second.split("--restore resume: ")[1].splitlines()[0]
    assert second.count("--restore resume: ") == 1


def test_each_step_starts_from_the_last(recipe):
    text = "".join(recipe.said)
    for number in range(2, 13):
        assert f"--restore {STEPS[number - 1].restore}: from {recipe.last_of(number - 1)}" in text
        before, after = entries(recipe.last_of(number - 1)), entries(recipe.checkpoint(number))
        if number == 3:
            continue                                                     # its first phase trains all that it kept
        common = [name for name in after if name.startswith(FROZEN_AT_FIRST[number]) and name in before
                  and before[name].shape == after[name].shape and after[name].is_floating_point()]
        assert len(common) > 50
        assert all(torch.equal(before[name], after[name]) for name in common), number


def test_every_step_moves_its_parameters(recipe):
    for number in range(1, 13):
        first, last = entries(recipe.checkpoint(number)), entries(recipe.last_of(number))
        changed = {name.split(".")[0] for name in last if not torch.equal(first[name], last[name])}
        if len(recipe.phases[number - 1]) > 1:
            assert {"MENet", "CondMotion", "Residual"} <= changed and "if_model" not in changed, number
        assert all(value.isfinite().all() for value in last.values() if value.is_floating_point())
