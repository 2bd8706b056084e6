"""The small model: its budget, `--model small`, half-precision weights, and the recipe that trains it."""
import io
import subprocess
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_helpers import command, curve, options, write_tiny_configs

from config import load_config
from conftest import write_frames
from helpers import ROOT, TINY, full_config, tiny_config
from models.hytip.codec import HyTIP
from models.hytip.config import InterConfig, IntraConfig, MotionConfig
from seeded import seeded_video
from util.arithmetic import choose_arithmetic
from util.checkpoint import fingerprint, load_model, released_layout
from util.chosen_model import configuration
from util.cli.arguments import parse_arguments
from util.cli.setup import untrained_model, weight_files
from util.coding.codec import Codec
from util.coding.gop import CodingPlan
from util.errors import InputError
from util.evaluation.complexity import count_macs
from util.training.export import export, main
from util.training.main import train
from util.training.options import TrainingOptions
from util.training.phases import TRAIN_CFG, read_phases
from util.training.schedule import read_schedule

SCHEDULE = TRAIN_CFG / "small" / "schedule.yml"


def random_model(config):
    torch.manual_seed(0)
    return HyTIP(config)


@pytest.fixture(scope="module")
def small():
    return untrained_model(parse_arguments(["--test", "--model", "small"])).eval().requires_grad_(False)


def test_the_budget(small):
    assert sum(parameter.numel() for parameter in small.parameters()) <= 5e6
    assert count_macs(small, decode=False).total <= 90
    assert count_macs(small, decode=True).total <= 60
    config = small.config
    assert config.inter.has_mask and config.inter.has_ctm and not config.inter.no_context and config.variable_rate
    assert all(vars(config.inter.buffer).values()) and all(vars(config.motion.buffer).values())


def test_the_architecture_is_that_of_the_full_model(small):
    """The same entries under the same names: widths differ, and of some things there are fewer."""
    full = untrained_model(parse_arguments(["--test"]))
    own, all_of_it = ({name for name in codec.state_dict() if ".adaptor." not in name} for codec in (small, full))
    fewer = ("recon_generation_net.unet_2.", "restor_layer.blocks.1.")
    assert own == {name for name in all_of_it if not any(part in name for part in fewer)}


def found(arguments):
    return [path.resolve() for path in weight_files(arguments)]


def test_the_flag_chooses_configurations_and_weights_together():
    given = parse_arguments(["--test", "--model", "small"])
    assert configuration(given).inter == load_config(ROOT / "config" / "small" / "Inter.yml", InterConfig)
    assert configuration(given).intra == load_config(ROOT / "config" / "small" / "Intra.yml", IntraConfig)
    assert found(given) == [ROOT / "models" / "small" / "PSNR-RGB.pth.tar"]
    for words in ([], ["--model", "full"], ["--model", "hytip"]):
        assert configuration(parse_arguments(["--test", *words])) == full_config()
        assert found(parse_arguments(["--test", *words])) == [ROOT / "models" / "PSNR-RGB.pth.tar"]
    assert found(parse_arguments(["--test", "--ssim"])) == [ROOT / "models" / "MS-SSIM-RGB.pth.tar"]


def test_explicit_files_override_the_flag():
    given = parse_arguments(["--test", "--model", "small", "--residual_coder_conf", str(TINY / "Inter.yml"),
                             "--weights", "mine.pth.tar"])
    assert configuration(given).inter == load_config(TINY / "Inter.yml", InterConfig)
    assert configuration(given).motion == load_config(ROOT / "config" / "small" / "Motion.yml", MotionConfig)
    assert weight_files(given) == (Path("mine.pth.tar"),)
    assert TrainingOptions.from_namespace(given).residual_coder_conf == TINY / "Inter.yml"


def test_what_there_is_not():
    with pytest.raises(InputError, match="--model small has weights for PSNR only"):
        weight_files(parse_arguments(["--test", "--model", "small", "--ssim"]))
    with pytest.raises(InputError, match="all.yml names no weights .from: a training run of yours"):
        weight_files(parse_arguments(["--test", "--model", "st-xct"]))
    with pytest.raises(InputError, match="model 'medium' is unknown; choose from hytip, small"):
        Codec.load("medium")


def test_git_keeps_the_weights():
    ignored = subprocess.run(["git", "check-ignore", "models/PSNR-RGB.pth.tar", "models/small/PSNR-RGB.pth.tar"],
                             cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert ignored in ([], ["models/PSNR-RGB.pth.tar"])            # nothing where the tests run outside a clone


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """(the model before, the exported file)."""
    folder = tmp_path_factory.mktemp("export")
    model = random_model(tiny_config())
    content = released_layout(model, epoch=7, loss=1.5, optimizer={"state": {0: torch.ones(1000)}})
    torch.save({**content, "training": {"epoch": 8}}, folder / "last.pth.tar")
    export(folder / "last.pth.tar", folder / "new" / "small.pth.tar")
    return model, folder / "new" / "small.pth.tar"


def test_half_precision_files_load_as_float32(exported):
    before, path = exported
    model = HyTIP(tiny_config())
    load_model(model, path)
    for (name, value), original in zip(model.state_dict().items(), before.state_dict().values()):
        assert value.dtype == original.dtype, name
        expected = original.half().float() if original.is_floating_point() else original
        assert torch.equal(value, expected), name


def test_fingerprints_are_of_the_loaded_values(exported):
    """A float32 file of the rounded values belongs to the same streams."""
    before, path = exported
    model, rounded = HyTIP(tiny_config()), HyTIP(tiny_config())
    load_model(model, path)
    rounded.load_state_dict({name: value.half().float() if value.is_floating_point() else value
                             for name, value in before.state_dict().items()})
    assert fingerprint(model) == fingerprint(rounded) != fingerprint(before)


def test_an_export_holds_weights_alone(exported):
    content = torch.load(exported[1], weights_only=False)
    assert content.keys() == {"epoch", "state_dict", "optimizer", "loss"}
    assert (content["epoch"], content["loss"], content["optimizer"]) == (7, 1.5, {})
    assert {value.dtype for value in content["state_dict"].values() if value.is_floating_point()} == {torch.float16}


def test_exports_that_cannot_be(tmp_path, capsys):
    torch.save({"epoch": 1}, tmp_path / "a.pth.tar")
    assert main([str(tmp_path / "a.pth.tar"), str(tmp_path / "out")]) == 2
    assert "has no state_dict" in capsys.readouterr().err
    torch.save({"state_dict": {"Residual.module.net.x": torch.tensor(1e6)}}, tmp_path / "b.pth.tar")
    assert main([str(tmp_path / "b.pth.tar"), str(tmp_path / "out")]) == 2
    assert "entry Residual.module.net.x reaches 1e+06" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([]) == 2


def block_side() -> int:
    """Of the blocks whose vectors the model codes that comes with the repository."""
    return untrained_model(parse_arguments(["--test", "--model", "small"])).config.motion_estimation.block_side


def test_the_recipe(capsys):
    steps = read_schedule(SCHEDULE)
    assert [step.name for step in steps] == ["intra", "flow", "still_flow", "motion", "inter", "gop", "long", "wide",
                                           "symbols", "blocks"]
    assert [step.restore for step in steps] == ["scratch", "intra", *["same"] * 8]
    assert steps[-1].changes["motion_estimation"]["block_side"] == block_side()
    assert {step.ema for step in steps} == {0.999}
    own = {step.name: read_phases(step.train_conf) for step in steps}
    phases = [phase for step in steps for phase in own[step.name]]
    intra, inter = (own[step][0].lambdas for step in ("intra", "gop"))
    assert inter[1] == 100 * inter[0] and intra == (2 * inter[0], 2 * inter[1])
    assert {phase.name for phase in phases if phase.lambdas != inter} == {"fast", "slow", "flow", "still_flow", "intra"}
    assert [phase.name for phase in phases if "MENet" not in phase.frozen and phase.stage != "intra"] == \
           ["flow", "still_flow", "with_flow", "with_flow_on", "late_frames", "late_on", "late_end"]
    assert {phase.rate_of for phase in (*own["symbols"], *own["blocks"])} == {"symbols"}
    train(TrainingOptions(schedule=SCHEDULE, dry_run=True))
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    trained = {row[2]: int(row[-1]) for row in rows[1:]}
    assert trained["fast"] == trained["slow"] == trained["intra"] < 2.5e6 and trained["flow"] < 2e5
    assert trained["side_information"] == 11 * (16 + 24)      # eleven per channel of z, of both codecs
    assert len(rows) == 1 + len(phases)


def test_without_motion_nothing_moves_and_streams_decode():
    config = tiny_config()
    model = random_model(replace(config, motion=replace(config.motion, no_motion=True)))
    codec = Codec(model.eval().requires_grad_(False), choose_arithmetic("cpu"))
    frames = [(frame * 255).byte() for frame in seeded_video(2, 64, 64, 3)]
    parts = list(codec.encode(frames, CodingPlan(qp=30, intra_qp=30)))
    assert not parts[2].coded.views["decoded_flow"].any() and parts[2].coded.views["flow"].any()
    decoded = list(codec.decode(io.BytesIO(b"".join(part.data for part in parts))))
    assert all(torch.equal(out.frame, part.frame) for out, part in zip(decoded, parts[1:3], strict=True))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The whole recipe at tiny widths, two steps per epoch, killed in the middle: (options, what it said at last)."""
    folder = tmp_path_factory.mktemp("small")
    write_tiny_configs(folder / "configs" / "small")
    for name in ("synthetic/a", "real/b"):
        write_frames(folder / "clips" / name, seeded_video(10, 192, 192, 21))     # as small as the documents allow
    write_frames(folder / "valid" / "clip", seeded_video(3, 64, 64, 5))
    run = options(folder, folder / "configs", schedule=SCHEDULE, data=folder / "clips", valid_data=folder / "valid",
                  batch_size=2, epoch_ratio=0.001, gop=2, channels_last=True, debug=True, save_minutes=0)
    run = Namespace(options=run, words=command(run))
    first = subprocess.Popen(run.words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not (run.options.results / "HyTIP_inter" / "checkpoints").is_dir() and first.poll() is None:
        time.sleep(0.05)
    first.kill()
    first.communicate()
    second = subprocess.run(run.words, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    return run.options, second.stdout


@pytest.mark.slow
def test_one_command_trains_the_recipe(trained):
    """Every phase, whatever happened in between; validation where a codec is there to validate; a codec at the end."""
    run, said = trained
    assert "intra: done" in said and "motion: done" in said
    for step in read_schedule(SCHEDULE):
        phases = read_phases(step.train_conf)
        assert [row["phase"] for row in curve(run.results, f"HyTIP_{step.name}")] == [p.name for p in phases]
        best = run.results / f"HyTIP_{step.name}" / "checkpoints" / "best.pth.tar"
        assert best.is_file() == any(phase.validate for phase in phases)
    load_model(HyTIP(tiny_config()), best)


@pytest.mark.slow
def test_the_intra_codec_stays_as_it_was_trained(trained):
    run, _ = trained
    def of(step):
        files = sorted((run.results / f"HyTIP_{step}" / "checkpoints").glob("epoch=*"))
        return torch.load(files[-1], weights_only=False)["state_dict"]
    intra, motion, last = map(of, ("flow", "motion", "wide"))
    assert all(torch.equal(intra[name], last[name]) for name in intra if name.startswith(HyTIP.roots["intra"]))
    assert not all(torch.equal(motion[name], last[name]) for name in motion if name.startswith("Residual"))
