"""Phase files and recipes: the contract of the twelve steps, Table A6, the JSON form, and bad files."""
import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from helpers import ROOT
from util.errors import InputError
from util.training.main import options_of_step, train
from util.training.options import TrainingOptions
from util.training.phases import TRAIN_CFG, find_file, read_phases, shortened
from util.training.schedule import read_schedule

PHASES = (ROOT / "tests/data/phases.tsv").read_text()
STEPS = read_schedule(TRAIN_CFG / "schedule.yml")


def test_the_dry_run_is_the_contract(capsys):
    """Every column of every phase of the twelve steps, with parameters counted on the real models."""
    train(TrainingOptions(schedule=TRAIN_CFG / "schedule.yml", dry_run=True))
    assert capsys.readouterr().out == PHASES


def test_one_step_alone(capsys):
    step = STEPS[6]
    train(TrainingOptions(train_conf=step.train_conf, dry_run=True,
                          cond_motion_coder_conf=ROOT / "config" / step.cond_motion_coder_conf,
                          residual_coder_conf=ROOT / "config" / step.residual_coder_conf))
    header, *rows = PHASES.splitlines()
    assert capsys.readouterr().out.splitlines() == [header, *(row for row in rows if row.startswith("7\t"))]


def test_the_steps_have_the_released_flags():
    assert [step.restore for step in STEPS] == [
        "load_pretrained", "CRC_to_MCR", "Motion_Hybrid", "Inter_Hybrid", "ReduceMotionBufferSize",
        "ReduceInterBufferSize", "FA", "CTM", "context", "Variable", "LongSequence", "LongSequence"]
    assert [step.FGOP_Inter_XtRNN for step in STEPS] == [n in (4, 6, 7) for n in range(1, 13)]
    assert [step.Pretrain_frame_feature for step in STEPS] == [n == 4 for n in range(1, 13)]
    assert [step.rate_gop_size for step in STEPS] == [4 if 3 <= n <= 6 else 8 for n in range(1, 13)]
    assert STEPS[9].frame_weight == (1, 1.2, 0.5, 0.9, 1.2) and STEPS[9].index_map_training == (0, 1, 0, 2, 1)
    assert len(STEPS[11].frame_weight) == len(STEPS[11].index_map_training) == 10
    assert STEPS[11].train_dataset == "BVI-DVC"


def test_the_frame_types_of_step_12_wrap_around():
    step = STEPS[11]
    options = TrainingOptions(index_map_training=step.index_map_training)
    assert options.frame_types(10) == (0, 1, 0, 2, 0, 2, 0, 2, 0, 1)
    with pytest.raises(InputError, match="--index_map_training has 5 entries"):
        TrainingOptions(index_map_training=(0, 1, 0, 2, 1)).frame_types(7)


def test_table_a6():
    """Frames, learning rates and epochs of every row of the supplement's table, in order."""
    phases = [phase for step in read_schedule(TRAIN_CFG / "table_A6.yml") for phase in read_phases(step.train_conf)]
    epochs = [phase.last_epoch - phase.first_epoch + 1 for phase in phases]
    assert epochs == [8, 10, 2, 3, 8, 5, 6, 5, 3, 4, 8, 4, 3, 4, 4, 4, 1, 1, 1, 5, 1, 2, 7, 1, 2, 3, 2, 3, 6, 8, 20,
                      1, 50]
    frames = [phase.p_frames + 1 for phase in phases]
    assert frames == [3, 3, 2, 3, 3, 5, 3, 5, 3, 3, 3, 5, 3, 5, *[5] * 17, 7, 10]
    assert [phase.lr for phase in phases] == [
        *[1e-4] * 14, *[1e-5] * 2, 1e-4, *[1e-5] * 3, 1e-4, *[1e-5] * 2, *[1e-4] * 4, *[1e-5] * 5, 1e-6]


@pytest.mark.parametrize("path", [path for path in sorted(TRAIN_CFG.rglob("*.yml")) if "\nsteps:" in path.read_text()],
                         ids=lambda path: f"{path.parent.name}/{path.name}")
def test_recipes_in_the_repository_are_whole(path):
    """Each step's file is there and fits: frame types, and weights of frames, for its longest clip."""
    for step in read_schedule(path):
        for phase in read_phases(step.train_conf):
            frames = phase.p_frames + 1
            types = step.index_map_training or TrainingOptions.index_map_training
            TrainingOptions(index_map_training=types, rate_gop_size=step.rate_gop_size).frame_types(
                phase.late + frames)
            if "frame_weight" in phase.distortion.text:
                assert len(step.frame_weight) >= frames, (step.name, phase.name)


def test_table_a6_fits_its_models(capsys):
    train(TrainingOptions(schedule=TRAIN_CFG / "table_A6.yml", dry_run=True))
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()[1:]]
    assert len(rows) == 33
    trained = [row[-2:] for row in rows]
    assert trained[0] == ["267", "2717768"]                              # the motion codec alone
    assert trained[7] == ["700", "12507494"]                             # all but MENet
    assert trained[20] == ["40", "802336"]                               # CTM
    assert trained[-1] == ["832", "16593476"]                            # all


def test_the_json_form_says_the_same(tmp_path):
    """The flat mapping of the released files."""
    settings = {"stage": "2Pframes", "mode": "residual", "epoch": 3, "batch_size": 24, "lr": 1e-4, "train_len": 0.5,
                "loss_on": {"R": "rate", "D": "0.5*mc_distortion/0.5*distortion"}, "max_num_Pframe": 6,
                "frozen_modules": ["MENet", "CondMotion", "Residual"], "milestones": [2],
                "re-activate_modules": [["Residual", "mc_generator"]]}
    later = {**settings, "epoch": 5, "stage": "fullgop", "RNN": 1, "max_num_Pframe": 4}
    del later["mode"]
    (tmp_path / "step.json").write_text(json.dumps({"first": settings, "second": later}))
    first, second = read_phases(tmp_path / "step.json")
    assert (first.name, first.first_epoch, first.last_epoch, first.p_frames) == ("first", 1, 3, 2)
    assert (second.first_epoch, second.last_epoch, second.rnn, second.p_frames) == (4, 5, 1, 4)
    assert first.reactivated == (("Residual", "mc_generator"),) and first.milestones == (2,)
    assert first.frozen == ("MENet", "CondMotion", "Residual") and first.train_len == 0.5


def test_files_are_found_by_stem():
    assert find_file("Add_CTM").resolve() == TRAIN_CFG / "Add_CTM.yml"
    assert find_file("elsewhere/Add_CTM.json").resolve() == TRAIN_CFG / "Add_CTM.yml"
    with pytest.raises(InputError, match="nothing.yml does not exist"):
        find_file("nothing.yml")


PHASE = {"end_epoch": 2, "stage": "fullgop", "RNN": 0, "batch_size": 2, "lr": 1e-4,
         "loss_on": {"R": "rate", "D": "distortion"}}


@pytest.mark.parametrize(("change", "message"), [
    ({"stage": "3Pframes"}, "stage '3Pframes' is unknown"),
    ({"stage": "2Pframes"}, "needs mode motion or residual"),
    ({"mode": "motion"}, "mode 'motion' cannot be used"),
    ({"RNN": 2}, "RNN 2 must be 0 or 1"),
    ({"batch_size": 0}, "batch_size 0 must be at least 1"),
    ({"lr": "fast"}, "lr 'fast' cannot be used"),
    ({"lr": 0}, "lr 0.0 must be above 0"),
    ({"train_len": 1.5}, "train_len 1.5 is outside"),
    ({"batchsize": 3}, "unknown key 'batchsize'"),
    ({"loss_on": {"R": "rate"}}, "loss_on must be"),
    ({"loss_on": {"R": "rate", "D": "beauty"}}, "term 'beauty' is unknown"),
    ({"loss_on": {"R": "None", "D": "1_0_0_0/1"}}, "does not fit stage"),
    ({"frozen_modules": "MENet"}, "frozen_modules 'MENet' cannot be used"),
    ({"re-activate_modules": [["Residual"]]}, "re-activate_modules"),
    ({"lr_inputs": 0}, "lr_inputs 0 must be at least 1"),
    ({"balance": -0.5}, "balance -0.5 is outside 0..1"),
    ({"truncate": 0}, "truncate 0 must be at least 1"),
    ({"late": -1}, "late -1 must be at least 0"),
    ({"rate_of": "bits"}, "rate_of 'bits' must be noise or symbols"),
    ({"late": 3, "stage": "1Pframe"}, "late 3 must be at least 0, and 0 but in stage fullgop"),
    ({"still": 1.5}, "still 1.5 is outside 0..1"),
    ({"stage": None}, "stage None cannot be used"),
    ({"end_epoch": 0}, "end_epoch 0 lies before")])
def test_bad_phases_are_named(tmp_path, change, message):
    (tmp_path / "bad.yml").write_text(yaml.safe_dump({"phases": {"p": {**PHASE, **change}}}))
    with pytest.raises(InputError, match=message) as caught:
        read_phases(tmp_path / "bad.yml")
    assert "\n" not in str(caught.value) and "bad.yml" in str(caught.value)


@pytest.mark.parametrize(("text", "message"), [("a: [", "is not valid YAML"), ("- 1", "must hold a mapping"),
                                               ("p: 3", "phase p must map keys"), ("", "must hold a mapping"),
                                               ("phases: {}\nextra: 1", "unknown key 'extra'")])
def test_bad_files_are_named(tmp_path, text, message):
    (tmp_path / "bad.yml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_phases(tmp_path / "bad.yml")


def test_phases_shorten_in_proportion():
    phases = shortened(read_phases("train_VariableRate"), 0.1)
    assert [(phase.first_epoch, phase.last_epoch) for phase in phases] == [(1, 1), (2, 3)]
    with pytest.raises(InputError, match="--epoch_ratio 0 must be above 0"):
        shortened(phases, 0)


def test_either_a_step_or_a_recipe():
    with pytest.raises(InputError, match="either --train_conf FILE, one step, or --schedule FILE"):
        train(TrainingOptions())


def test_the_procedure_names_every_step():
    text = (TRAIN_CFG / "training_procedure.md").read_text()
    for step in STEPS:
        command = text[text.index(f"--train_conf train_cfg/{step.train_conf.rsplit('/', 1)[-1]}"):].split("```")[0]
        assert f"--restore {step.restore}" in command, step.name


def test_steps_repeat_nothing(tmp_path):
    """`defaults` hold for every step that says nothing else; what a file may contain besides is said."""
    (tmp_path / "p.yml").write_text("p: {}")
    path = tmp_path / "s.yml"
    path.write_text("defaults: {cond_motion_coder_conf: M.yml, residual_coder_conf: I.yml, train_conf: p.yml, restore: "
                    "same, seed: 3}\nsteps:\n  one: {restore: scratch}\n  two: {seed: 4}\n  three: {}\n")
    steps = read_schedule(path)
    assert [(step.name, step.restore, step.seed) for step in steps] == [("one", "scratch", 3), ("two", "same", 4),
                                                                       ("three", "same", 3)]
    assert {(step.cond_motion_coder_conf, Path(step.train_conf).name) for step in steps} == {("M.yml", "p.yml")}
    for text, message in (("steps: {one: 3}", "step one must map"), ("steps: 3", "must be mappings"),
                          ("steps: {}\ngroups: {}", "unknown key 'groups'"),
                          ("defaults: {sed: 1}\nsteps: {one: {}}", "step one: unknown key 'sed'")):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            read_schedule(path)


def test_a_step_may_keep_an_average():
    """Unless the flag says which."""
    step = replace(STEPS[0], ema=0.99)
    assert [options_of_step(TrainingOptions(ema=ema), step, None).ema for ema in (0.0, 0.5)] == [0.99, 0.5]
    assert options_of_step(TrainingOptions(), STEPS[0], None).ema == 0
