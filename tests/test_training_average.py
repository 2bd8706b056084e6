"""The moving average of the weights (`--ema`), what becomes of checkpoints, and what a run writes down."""
import time
from dataclasses import replace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_training_runs import Killed, assert_same, dies_at, whole
from torch import nn
from training_helpers import curve, entries, phase_file, write_clips

from conftest import write_frames
from dataloader.clips import EpochClips
from seeded import seeded_video
from toy_codec import toy_options
from util.errors import InputError
from util.training import records, validation
from util.training.averaging import WeightAverage
from util.training.checkpoints import Checkpoints
from util.training.curves import main as plot_curves
from util.training.curves import read_curves
from util.training.export import export
from util.training.main import train
from util.training.steps import OptimizerSteps

LOSS = {"R": "rate", "D": "distortion"}
NAME = "inter.analysis.weight"


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Clips, and a sequence to validate on."""
    folder = tmp_path_factory.mktemp("shared")
    write_clips(folder / "clips", count=4, frames=2, side=32)
    write_frames(folder / "valid" / "a", seeded_video(2, 32, 32, 5))
    return folder


@pytest.fixture
def run(tmp_path, shared, toy):
    """Two epochs of two steps, with an average."""
    phases = {"p": {"end_epoch": 2, "stage": "1Pframe", "loss_on": LOSS}}
    return toy_options(tmp_path, train_data=shared / "clips", gop=2, ema=0.5,
                       train_conf=phase_file(tmp_path / "p.yml", phases))


def checkpoint(run, epoch: int | None = None):
    files = Checkpoints(run.results, run.experiment_name)
    return files.last if epoch is None else files.of_epoch(epoch)


def test_the_average_of_three_steps():
    """The first steps count more; within the block, and only there, the network has the averages."""
    network = nn.Linear(1, 1, bias=False)
    weight = network.weight
    with torch.no_grad():
        weight.fill_(0)
        average = WeightAverage(network, 0.2)
        expected = 0.0
        for step, decay in enumerate((0.1, 2 / 11, 0.2)):
            weight.fill_(step + 1)
            average.update()
            expected = decay * expected + (1 - decay) * (step + 1)
    with pytest.raises(KeyError), average.in_place():
        assert network.weight is weight and weight.item() == pytest.approx(expected)
        raise KeyError
    assert weight.item() == 3


def test_a_checkpoint_holds_averages_and_resuming_does_not_start_from_them(run, monkeypatch):
    """The file's weights are the average of the weights of all steps; killed and resumed, the run ends in the same
    bits; without --ema it goes on from the weights of the last step."""
    seen, original = [], WeightAverage.update
    name, released = f"codec.{NAME}", NAME

    def update(self):
        original(self)
        seen.append(self._weights[self._names.index(name)].detach().clone())
    with monkeypatch.context() as patch:
        patch.setattr(WeightAverage, "update", update)
        train(run)
    kept = torch.load(checkpoint(run, 2), weights_only=False)["training"]["average"]["weights"][name]
    assert len(seen) == 4 and torch.equal(kept, seen[-1])
    start = torch.load(checkpoint(run, 1), weights_only=False)["state_dict"][released]
    expected = start.lerp(seen[2], 1 - 3 / 12).lerp(seen[3], 1 - 4 / 13)
    torch.testing.assert_close(entries(checkpoint(run, 2))[released], expected)
    assert not torch.equal(expected, seen[-1])

    again = replace(run, experiment_name="again", save_minutes=0)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        dies_at(patch, OptimizerSteps, "take", 4)
        train(again)
    raw = torch.load(checkpoint(again), weights_only=False)
    train(replace(again, restore="resume"))
    for one, other in zip(whole(checkpoint(again, 2)), whole(checkpoint(run, 2))):
        assert_same(one, other)

    with monkeypatch.context() as patch:
        patch.setattr(WeightAverage, "__init__", None)
        without = replace(again, ema=0.0, restore="resume", restore_exp_key="again", experiment_name="without")
        checkpoint(again).parent.joinpath("epoch=2.pth.tar").unlink()
        torch.save(raw, checkpoint(again))
        train(without)
    assert torch.equal(entries(checkpoint(without, 2))[released], seen[-1])


def test_the_average_is_validated_exported_and_gone_on_from(run, shared, monkeypatch):
    seen, original = [], validation.Validation.run

    def spy(self, codec, *args):
        seen.append(codec.inter.analysis.weight.detach().clone())
        return original(self, codec, *args)
    monkeypatch.setattr(validation.Validation, "run", spy)
    run = replace(run, valid_data=shared / "valid", end_epoch=1)
    train(run)
    averaged = entries(checkpoint(run, 1))
    assert torch.equal(seen[0], averaged[NAME])
    best = run.results / "HyTIP/checkpoints/best.pth.tar"
    assert torch.equal(entries(best)[NAME], averaged[NAME])
    export(best, best.parent / "small.pth.tar", "toy")
    assert torch.equal(entries(best.parent / "small.pth.tar")[NAME], averaged[NAME].half())
    still = {"p": {"end_epoch": 1, "stage": "1Pframe", "frozen_modules": ["inter.analysis"], "loss_on": LOSS}}
    train(replace(run, restore="same", restore_exp_key="HyTIP", experiment_name="next", ema=0.0,
                  train_conf=phase_file(run.results / "still.yml", still)))
    started = entries(run.results / "next/checkpoints/epoch=1.pth.tar")
    assert torch.equal(started[NAME], averaged[NAME]), "frozen, so as it started"


def test_old_epochs_are_removed(run):
    train(replace(run, keep=1))
    assert Checkpoints(run.results, "HyTIP").epochs() == [2]
    with pytest.raises(InputError, match="--keep 0 must be at least 1"):
        replace(run, keep=0).check()
    with pytest.raises(InputError, match="--ema 1 is outside 0..1"):
        replace(run, ema=1.0).check()


def test_what_is_written_down(run, monkeypatch):
    """Gradient norm, time and speed of every epoch, loss and terms of steps; a curve that lacks these columns is kept
    and goes on."""
    monkeypatch.setattr(records, "STEP_INTERVAL", 1)
    original = EpochClips.__getitem__
    monkeypatch.setattr(EpochClips, "__getitem__", lambda self, index: time.sleep(0.05) or original(self, index))
    train(replace(run, end_epoch=1))
    path = run.results / "HyTIP" / "training.csv"
    row, = curve(run.results)
    assert float(row["gradient_norm"]) > 0 and row["gpu_memory"] == ""
    header, line = (text.split(",") for text in path.read_text().splitlines())
    found = dict(zip(header, line))
    assert 0.2 <= float(found["waited"]) <= float(found["seconds"])
    assert float(found["images_per_second"]) == pytest.approx(4 * 2 / float(found["seconds"]), rel=0.05)
    old = header.index("gradient_norm")
    path.write_text("\n".join(",".join(cells[:old]) for cells in (header, line)) + "\n")
    train(replace(run, restore="resume"))
    first, second = curve(run.results)
    assert first["loss"] == row["loss"] and first["gradient_norm"] == "" and float(second["gradient_norm"]) > 0
    board = EventAccumulator(str(path.parent / "tensorboard"))
    board.Reload()
    assert {"step/loss", "step/distortion", "step/gradient_norm", "epoch/loss"} <= set(board.Tags()["scalars"])
    points = [(point.step, point.value) for point in board.Scalars("step/loss")]
    assert [step for step, _ in points] == [1, 2, 3, 4]
    assert sum(value for _, value in points[:2]) / 2 == pytest.approx(float(first["loss"]), rel=1e-5)


def test_the_curves_of_a_recipe(tmp_path, capsys):
    """Points at the ends of epochs, one step after the other; the mean over sequences and rates; a PNG, or one line of
    what is wrong."""
    first, second, empty, other = (tmp_path / name for name in ("first", "second", "empty", "other"))
    for folder, rows in ((first, "1,a,10,3.0\n2,a,25,2.0\n"), (second, "1,a,10,1.5\n2,a,40,1.0\n"), (empty, ""),
                         (other, "1,a,ten,3.0\n")):
        folder.mkdir()
        (folder / "training.csv").write_text("epoch,phase,updates,loss\n" + rows)
    (second / "validation.csv").write_text("epoch,phase,sequence,QP,loss\n2,a,x,0,1.0\n2,a,x,63,4.0\n")
    assert read_curves([first, second]) == [("first", 0, 25, [(10, 3.0), (25, 2.0)], []),
                                            ("second", 25, 65, [(35, 1.5), (65, 1.0)], [(65, 2.5)])]
    out = tmp_path / "out.png"
    assert plot_curves([str(first), str(second), "--out", str(out)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    out.unlink()
    for folder, message in ((tmp_path, "training.csv cannot be read; name folders of experiments"),
                            (empty, "empty: no epoch has ended yet"), (other, "are not what a training run writes")):
        assert plot_curves([str(first), str(folder), "--out", str(out)]) == 2
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1 and not out.exists()
