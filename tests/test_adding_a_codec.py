"""docs/adding_a_codec.md, done as it is written: a toy codec in a temporary folder, through the whole program."""
import io

import pytest
import torch

from conftest import write_frames
from models import catalogue
from seeded import seeded_video
from util.arithmetic import choose_arithmetic
from util.checkpoint import save_model
from util.cli.arguments import parse_arguments
from util.cli.commands import command_of
from util.coding.codec import Codec
from util.coding.gop import CodingPlan
from util.evaluation.complexity import buffer_size, count_macs, parameters


@pytest.fixture(scope="module")
def model(toy):
    """With weights to start from, saved where the model file says."""
    torch.manual_seed(0)
    codec = catalogue.build_codec(catalogue.find_model("toy"))
    codec.for_training().initialise(codec)
    save_model(codec, toy / "toy.pth.tar")
    return codec.eval().requires_grad_(False)


def test_streams(model):
    codec = Codec(model, choose_arithmetic("cpu", threads=1))
    frames = [(frame * 255).round().byte() for frame in seeded_video(3, 37, 50, 2)]
    for portable in (False, True):
        parts = list(codec.encode(frames, CodingPlan(qp=50, intra_qp=50), portable=portable))
        decoded = list(codec.decode(io.BytesIO(b"".join(part.data for part in parts))))
        assert all(torch.equal(a.frame, b.frame) for a, b in zip(parts[1:-1], decoded, strict=True))
    assert (parts[3].frame[0] * 255 - frames[2]).square().mean().sqrt() < 10


def test_the_figures_of_its_file(model):
    size = catalogue.find_model("toy").size
    assert sum(parameters(model).values()) / 1e6 == pytest.approx(size["parameters"], abs=5e-4)
    assert count_macs(model).total == pytest.approx(size["encode"], abs=0.06)
    assert count_macs(model, decode=True).total == pytest.approx(size["decode"], abs=0.06)
    assert buffer_size(model).decoder == size["buffer"]


def test_evaluation_and_training_by_the_command_line(toy, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_frames(tmp_path / "clip", seeded_video(3, 64, 64, 3))
    arguments = parse_arguments(["--test", "--model", "toy", "--input", str(tmp_path / "clip"), "--QP", "40",
                                 "--gpus", "0", "--threads", "1", "--save_dir", str(tmp_path / "out")])
    command_of(arguments)(arguments)
    report, = (tmp_path / "out" / "report").glob("*.csv")
    rows = [line.split(",") for line in report.read_text().splitlines()]
    assert len(rows) == 4 and float(rows[2][1]) > 25
    assert rows[2][3:8] == ["", "", "", "", ""] and float(rows[2][8]) == float(rows[2][2])     # rz is all there is

    phases = tmp_path / "toy_phases.yml"
    phases.write_text("all: {epoch: 1, stage: fullgop, RNN: 1, max_num_Pframe: 2, batch_size: 1, lr: 0.001, "
                      "loss_on: {R: rate, D: distortion}}\n")
    arguments = parse_arguments(["--train_conf", str(phases), "--model", "toy", "--restore", "scratch",
                                 "--train_dataset", "folder", "--train_data", str(tmp_path / "clips"),
                                 "--valid_data", str(tmp_path / "valid"), "--crop_size", "64", "--device", "cpu",
                                 "--no_sanity", "--results", str(tmp_path / "results"), "--experiment_name", "toy"])
    write_frames(tmp_path / "clips" / "a", seeded_video(3, 64, 64, 4))
    write_frames(tmp_path / "valid" / "a", seeded_video(2, 64, 64, 5))
    command_of(arguments)(arguments)
    trained = torch.load(tmp_path / "results" / "toy" / "checkpoints" / "epoch=1.pth.tar", weights_only=False)
    before = catalogue.build_codec(catalogue.find_model("toy"))
    assert trained["state_dict"].keys() == before.state_dict().keys()
