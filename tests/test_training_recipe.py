"""The twelve steps, end to end, with the shipped files: only widths, data, batch and epochs are overridden."""
import signal
import subprocess
import time
from dataclasses import replace

import pytest
import torch
from training_helpers import command, curve, entries, options, write_clips, write_tiny_configs

from util.training.checkpoints import Checkpoints
from util.training.schedule import TRAIN_CFG, read_phases, read_schedule

STEPS = read_schedule(TRAIN_CFG / "schedule.yml")
PHASES = [read_phases(step.train_conf) for step in STEPS]
"""With --epoch_ratio near zero each phase has one epoch, so a step has as many epochs as phases."""

FROZEN_AT_FIRST = {2: "CondMotion", 3: "Residual", 4: "CondMotion", 5: "Residual", 6: "CondMotion", 7: "CondMotion",
                   8: "CondMotion", 9: "CondMotion", 10: "CondMotion.module.net.mv_encoder", 11: "if_model",
                   12: "if_model"}
"""A part that the first phase of a step leaves as the step before left it."""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """The whole recipe, stopped in step 3 and started again: (results, what it said each time)."""
    folder = tmp_path_factory.mktemp("recipe")
    clips = write_clips(folder / "clips", count=2, frames=10, side=64)
    run = options(folder, write_tiny_configs(folder / "configs"), schedule=TRAIN_CFG / "schedule.yml", data=clips,
                  batch_size=2, epoch_ratio=0.001)
    run = replace(run, restore="HyTIP")                                  # the recipe's steps say what they start from
    first = subprocess.Popen(command(run), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    third = Checkpoints(run.results, "HyTIP_step03")
    while not third.epochs() and first.poll() is None:
        time.sleep(0.05)
    first.send_signal(signal.SIGTERM)
    said = [first.communicate(timeout=120)[0]]
    assert first.returncode == 128 + signal.SIGTERM, said[0]
    second = subprocess.run(command(run), capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    return run.results, [*said, second.stdout]


def last_of(results, number):
    return results / f"HyTIP_{STEPS[number - 1].name}" / "checkpoints" / f"epoch={len(PHASES[number - 1])}.pth.tar"


def test_every_phase_of_every_step_is_trained(recipe):
    results, _ = recipe
    for step, phases in zip(STEPS, PHASES):
        rows = curve(results, f"HyTIP_{step.name}")
        assert [row["phase"] for row in rows] == [phase.name for phase in phases], step.name
        assert [int(row["epoch"]) for row in rows] == list(range(1, len(phases) + 1))
        for row, phase in zip(rows, phases):
            assert float(row["lr"]) == phase.lr
            assert int(row["samples"]) + 2 * int(row["skipped"]) >= (2 if phase.train_len == 1 else 1)


def test_the_recipe_goes_on_where_it_was_stopped(recipe):
    _, (first, second) = recipe
    assert "stopped by a signal" in first and "step04:" not in first
    assert "step01: done" in second and "step02: done" in second
    assert "HyTIP_step03/checkpoints" in second.split("--restore resume: ")[1].splitlines()[0]
    assert second.count("--restore resume: ") == 1


def test_each_step_starts_from_the_last(recipe):
    results, said = recipe
    text = "".join(said)
    for number in range(2, 13):
        assert f"--restore {STEPS[number - 1].restore}: from {last_of(results, number - 1)}" in text
        before = entries(last_of(results, number - 1))
        after = entries(results / f"HyTIP_{STEPS[number - 1].name}" / "checkpoints" / "epoch=1.pth.tar")
        if number == 3:
            continue                                                     # its first phase trains all that it kept
        common = [name for name in after if name.startswith(FROZEN_AT_FIRST[number]) and name in before
                  and before[name].shape == after[name].shape and after[name].is_floating_point()]
        assert len(common) > 50
        assert all(torch.equal(before[name], after[name]) for name in common), number


def test_every_step_moves_its_parameters(recipe):
    results, _ = recipe
    for number in range(1, 13):
        first = entries(results / f"HyTIP_{STEPS[number - 1].name}" / "checkpoints" / "epoch=1.pth.tar")
        last = entries(last_of(results, number))
        changed = {name.split(".")[0] for name in last if not torch.equal(first[name], last[name])}
        if len(PHASES[number - 1]) > 1:
            assert {"MENet", "CondMotion", "Residual"} <= changed and "if_model" not in changed, number
        assert all(value.isfinite().all() for value in last.values() if value.is_floating_point())
