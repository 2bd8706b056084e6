"""The training flags of HyTIP.py, as users and the released command lines give them."""
import io
import shlex
from dataclasses import replace

import pytest
from training_helpers import curve, entries, flags, options, phase_file, write_clips, write_tiny_configs

from conftest import write_frames
from helpers import ROOT
from seeded import seeded_video
from util.cli.arguments import parse_arguments
from util.errors import InputError
from util.training.dry_run import COLUMNS, PhaseRow, print_phases
from util.training.main import train
from util.training.options import TrainingOptions
from util.training.phases import TRAIN_CFG
from util.training.schedule import read_schedule

PHASES = (ROOT / "tests/data/phases.tsv").read_text()
STEPS = read_schedule(TRAIN_CFG / "schedule.yml")


def commands_of_the_procedure():
    """The arguments of each command in training_procedure.md that trains one step."""
    blocks = (TRAIN_CFG / "training_procedure.md").read_text().split("```")[1::2]
    return [shlex.split(block.replace("\\\n", " "))[2:] for block in blocks if "--train_conf train_cfg" in block]


def test_the_dry_run_in_a_pipe(hytip):
    status, out, err = hytip("--schedule", "train_cfg/schedule.yml", "--dry_run")
    assert (status, out, err) == (0, PHASES, "")


def test_the_dry_run_on_a_terminal():
    class Terminal(io.StringIO):
        def isatty(self):
            return True
    out = Terminal()
    print_phases([PhaseRow(tuple("x" * n for n in range(len(COLUMNS))))], out)
    header, row = out.getvalue().splitlines()
    assert "\t" not in out.getvalue()
    assert row.index("xxxx ") == header.index("last_epoch")


@pytest.mark.parametrize("number", range(1, 13))
def test_the_commands_of_the_procedure(hytip, number):
    """Each runs as printed (with --dry_run) and says what the recipe's step says."""
    argv = commands_of_the_procedure()[number - 1]
    status, out, err = hytip(*argv, "--dry_run")
    header, *rows = PHASES.splitlines()
    assert (status, err) == (0, "")
    assert out.splitlines() == [header, *(row for row in rows if row.startswith(f"{number}\t"))]

    step, given = STEPS[number - 1], TrainingOptions.from_namespace(parse_arguments(argv))
    assert given.experiment_name == f"HyTIP_{step.name}" and given.quality_level == step.quality_level
    for name in ("restore", "iframe_quality", "rate_gop_size", "FGOP_Inter_XtRNN", "Pretrain_frame_feature"):
        assert getattr(given, name) == getattr(step, name), name
    assert given.frame_weight == (step.frame_weight or ())
    assert given.train_dataset == step.train_dataset
    for name in ("index_map", "index_map_training"):
        assert getattr(given, name) == (getattr(step, name) or getattr(TrainingOptions, name)), name
    if number > 1:
        assert given.restore_exp_key == f"HyTIP_{STEPS[number - 2].name}"


def test_training_resuming_and_evaluating(hytip, tmp_path):
    """One step trained by flags, continued, and its checkpoint evaluated."""
    configs = write_tiny_configs(tmp_path / "configs")
    clips = write_clips(tmp_path / "clips")
    write_frames(tmp_path / "data" / "HEVC-D" / "BQSquare", seeded_video(3, 64, 64, 5))
    phases = {"p": {"end_epoch": 2, "stage": "1Pframe", "loss_on": {"R": "rate", "D": "distortion"}}}
    run = flags(options(tmp_path, configs, train_data=clips, train_conf=phase_file(tmp_path / "p.yml", phases)))
    status, out, err = hytip(*run, "--end_epoch", 1, "--threads", 1)
    assert (status, err) == (0, ""), err
    assert len(curve(tmp_path / "results")) == 1
    status, out, err = hytip(*run, "--restore", "resume", "--threads", 1)
    assert status == 0 and "epoch 2, step 1" in out
    assert len(curve(tmp_path / "results")) == 2
    weights = tmp_path / "results" / "HyTIP" / "checkpoints" / "epoch=2.pth.tar"
    assert any(name.startswith("if_model.module.net.") for name in entries(weights))
    status, out, err = hytip(
        "--test", "--weights", weights, "-data", tmp_path / "data", "--test_dataset", "HEVC-D",
        "--test_seqs", "BQSquare", "--test_seq_len", 3, "--save_dir", tmp_path / "report", "--device", "cpu",
        "--cond_motion_coder_conf", configs / "Motion.yml", "--residual_coder_conf", configs / "Inter.yml",
        "--intra_coder_conf", configs / "Intra.yml", "--motion_estimation_conf", configs / "MENet.yml")
    assert status == 0, err
    assert (tmp_path / "report" / "report" / "BQSquare.csv").is_file()


@pytest.mark.parametrize(("argv", "message"), [
    (("--train_conf", "nothing.yml"), "nothing.yml does not exist"),
    (("--schedule", "nothing.yml"), "nothing.yml does not exist"),
    (("--train_conf", "train_cfg/Add_CTM.yml", "--schedule", "train_cfg/schedule.yml"), "give either --train_conf"),
    (("--train_conf", "train_cfg/Add_CTM.yml", "--restore", "everything"), "--restore everything is unknown"),
    (("--train_conf", "train_cfg/Add_CTM.yml", "--crop_size", "100"), "--crop_size 100 must be a multiple of 16"),
    (("--train_conf", "train_cfg/Add_CTM.yml", "--accumulate", "0"), "--accumulate 0 must be at least 1"),
    (("--train_conf", "train_cfg/train_VariableRate.yml", "--dry_run", "--residual_coder_conf",
      "config/Inter_MCR_Explicit.yml"), "variable_rate differs"),
    (("--train_conf", "train_cfg/train_VariableRate.yml", "--dry_run", "--residual_coder_conf",
      "config/Inter_MCR_Hybrid_B=5.yml", "--cond_motion_coder_conf", "config/Motion_Hybrid_B=2.125.yml"),
     "'mv_q_encoder' of CondMotion, which this model does not have")])
def test_bad_flags_are_one_line(hytip, argv, message):
    status, _, err = hytip(*argv)
    assert status == 2
    assert message in err and err.count("\n") == 1


@pytest.mark.parametrize("recipe", [False, True])
@pytest.mark.parametrize(("last", "words"), [
    ({"crop_size": 96}, "phase two takes 1 frame of 96x96 out of a clip, .*one has 3 of 64x64.* lower crop_size in"),
    ({"stage": "fullgop", "max_num_Pframe": 4, "loss_on": {"R": "rate", "D": "distortion"}},
     "phase two takes 5 frames of 64x64 out of a clip, .*one has 3 of 64x64.* lower --crop_size")])
def test_clips_that_a_later_phase_cannot_use_are_refused_at_once(tmp_path, last, words, recipe):
    one, two = {"end_epoch": 1}, {"end_epoch": 2, **last}
    usual = {"stage": "intra", "loss_on": {"R": "i_rate", "D": "distortion"}}
    run = options(tmp_path, write_tiny_configs(tmp_path / "configs"), data=write_clips(tmp_path / "data", frames=3))
    if recipe:
        phase_file(tmp_path / "a.yml", {"one": one}, **usual)
        phase_file(tmp_path / "b.yml", {"two": two}, **usual)
        (tmp_path / "r.yml").write_text("a: {restore: scratch, train_conf: a.yml}\n"
                                        "b: {restore: same, train_conf: b.yml}\n")
        run = replace(run, schedule=tmp_path / "r.yml")
    else:
        run = replace(run, train_conf=phase_file(tmp_path / "p.yml", {"one": one, "two": two}, **usual))
    with pytest.raises(InputError, match=words):
        train(run)
    assert not (tmp_path / "results").exists()
