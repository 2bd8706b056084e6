"""Whole runs: nothing is lost when one is interrupted, processes add up, bad losses are skipped, records are kept."""
import os
import signal
import subprocess
import time
from dataclasses import replace

import pytest
import torch
from forked import forked, team_of_two
from training_helpers import command, curve, entries, flags, options, phase_file, write_clips, write_tiny_configs

import HyTIP as program
from conftest import write_frames
from helpers import tiny_config
from models.hytip.codec import HyTIP
from seeded import seeded_video
from toy_codec import toy_options
from util.checkpoint import load_model, read_file
from util.errors import InputError
from util.training import checkpoints, records, trainer
from util.training.main import train

LOSS = {"R": "rate", "D": "distortion"}
PHASES = {"first": {"end_epoch": 2, "stage": "2Pframes", "mode": "residual", "frozen_modules": ["inter.prior"],
                    "loss_on": LOSS, "milestones": [1], "lr_inputs": 100},
          "second": {"end_epoch": 3, "stage": "fullgop", "RNN": 1, "max_num_Pframe": 1, "train_len": 0.8,
                     "loss_on": {"R": "rate", "D": "frame_weight*distortion"}}}


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    return write_tiny_configs(tmp_path_factory.mktemp("configs"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("clips"), count=5, frames=3, side=40)


def two_phases(folder, clips):
    """Epochs of three and of two steps, of the toy codec: the trainer is the same for all."""
    return toy_options(folder, train_data=clips, train_conf=phase_file(folder / "two_phases.yml", PHASES),
                       frame_weight=(1, 1.2, 0.5))


@pytest.fixture
def run_options(tmp_path, clips, toy):
    return two_phases(tmp_path, clips)


def whole(path):
    """Everything in a checkpoint but its random states and times, as comparable values."""
    content = torch.load(path, weights_only=False)
    progress = {key: value for key, value in content["training"].items() if key not in ("random", "seconds", "waited")}
    return content["state_dict"], content["optimizer"], progress


def assert_same(a, b):
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b):
            assert_same(x, y)
    else:
        assert a == b


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, clips, toy):
    """The results of the run of `run_options` that nothing disturbs."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    torch.set_num_threads(1)
    train(two_phases(folder, clips))
    return folder / "results"


def assert_same_end(results, uninterrupted):
    last = "HyTIP/checkpoints/epoch=3.pth.tar"
    for one, other in zip(whole(results / last), whole(uninterrupted / last)):
        assert_same(one, other)
    assert curve(results) == curve(uninterrupted)


class Killed(BaseException):
    """Stands for the end of the process: nothing after it runs."""


def dies_at(monkeypatch, owner, name, call, after=False):
    """Let the `call`-th call of a method end the process, before or after it did its work."""
    original, calls = getattr(owner, name), []

    def method(*args, **kwargs):
        calls.append(name)
        if len(calls) == call and not after:
            raise Killed
        result = original(*args, **kwargs)
        if len(calls) == call:
            raise Killed
        return result
    monkeypatch.setattr(owner, name, method)


@pytest.mark.parametrize(("owner", "name", "call", "after"), [
    (checkpoints.Checkpoints, "save", 1, False),             # before anything is saved
    (checkpoints.Checkpoints, "save", 2, True),              # in the middle of the first epoch
    (trainer.Trainer, "update", 4, True),                   # between the last step and its save
    (records.CsvLog, "append", 1, True),                     # the epoch is in the records, but not in a checkpoint
    (torch.optim.Adam, "step", 7, False),                    # in the second phase, before its first step
])
def test_a_killed_run_resumes_to_the_same_bits(run_options, uninterrupted, monkeypatch, owner, name, call, after):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        dies_at(patch, owner, name, call, after)
        train(replace(run_options, save_minutes=0))
    made = (run_options.results / "HyTIP" / "checkpoints").glob("*.pth.tar")
    train(replace(run_options, save_minutes=0, restore="resume") if list(made) else run_options)
    assert_same_end(run_options.results, uninterrupted)


@pytest.mark.parametrize("change", [{"lr_inputs": 150}, {"frozen_modules": ["inter.analysis"]}])
def test_other_parts_or_rates_cannot_take_over_in_the_middle_of_a_phase(run_options, monkeypatch, change):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        dies_at(patch, trainer.Trainer, "update", 2, after=True)
        train(replace(run_options, save_minutes=0))
    phases = {**PHASES, "first": {**PHASES["first"], **change}}
    changed = phase_file(run_options.train_conf.with_name("changed.yml"), phases)
    with pytest.raises(InputError, match="phase first trained other parts, or with another lr_inputs, when"):
        train(replace(run_options, restore="resume", train_conf=changed))


def run_program(options):
    return program.main([*flags(options), "--threads", "1"])


def run_until_a_signal(options, step):
    """In a process of its own: the program, which after some step waits for the signal that shall end it."""
    original = trainer.Trainer.update

    def update(self, *args):
        original(self, *args)
        if self.progress.updates == step:
            print("waiting", flush=True)
            while not self.stop.received:
                time.sleep(0.01)
    trainer.Trainer.update = update
    os.setpgid(0, 0)
    return run_program(options)


def signalled(options, step, said, send):
    """The status of a run that gets a signal after a step."""
    said.unlink(missing_ok=True)
    with forked(run_until_a_signal, options, step, said=said) as process:
        while process.is_alive() and not (said.is_file() and "waiting" in said.read_text()):
            time.sleep(0.01)
        send(process.pid)
        process.join(timeout=300)
        return process.exitcode


def test_signals(run_options, uninterrupted, tmp_path):
    """SIGKILL leaves a run that resumes; SIGTERM saves and ends with 143; the end is the same to the bit."""
    said = tmp_path / "said.txt"
    assert signalled(replace(run_options, save_minutes=0), 2, said, lambda pid: os.kill(pid, signal.SIGKILL)) == -9
    resumed = replace(run_options, restore="resume")
    assert signalled(resumed, 4, said, lambda pid: os.kill(pid, signal.SIGTERM)) == 143, said.read_text()
    assert "stopped by a signal" in said.read_text() and "--restore resume" in said.read_text()
    train(resumed)
    assert_same_end(run_options.results, uninterrupted)


def test_a_signal_to_a_run_and_all_its_processes(run_options, uninterrupted, tmp_path):
    """As schedulers send it: the loader's process stays until the trainer has finished its step."""
    said, run = tmp_path / "said.txt", replace(run_options, num_workers=1)
    assert signalled(run, 1, said, lambda pid: os.killpg(pid, signal.SIGTERM)) == 143, said.read_text()
    train(replace(run, restore="resume"))
    assert_same_end(run_options.results, uninterrupted)


def test_two_processes_are_one(tmp_path, configs, clips):
    """The same curve and weights to float error: rates, crops and noise follow the sample, not the process.

    Five clips in batches of three leave shares of 2 and 1, then 1 and 1.
    """
    phases = {"p": {"end_epoch": 1, "stage": "fullgop", "RNN": 1, "max_num_Pframe": 1, "batch_size": 3,
                    "loss_on": LOSS}}
    one = options(tmp_path, configs, train_data=clips, train_conf=phase_file(tmp_path / "p.yml", phases), crop_size=32)
    two = replace(one, results=tmp_path / "two", accumulate=2)
    train(one)
    statuses, said = team_of_two(run_program, two, folder=tmp_path)
    assert statuses == [0, 0], said
    for single, double in zip(curve(one.results), curve(two.results)):
        assert single["samples"] == double["samples"] == "5"
        for key in ("loss", "m_rate", "r_rate", "distortion", "warped_distortion"):
            assert float(double[key]) == pytest.approx(float(single[key]), rel=1e-4), key
    name = "HyTIP/checkpoints/epoch=1.pth.tar"
    single, double = entries(one.results / name), entries(two.results / name)
    differences = torch.cat([(value - double[key]).abs().flatten() for key, value in single.items()
                             if value.is_floating_point()])
    # Adam's first steps have the size of lr (1e-3) whatever the gradient's, so a few gradients near zero may differ.
    assert (differences < 1e-5).double().mean() > 0.99


@pytest.mark.slow
def test_torchrun(tmp_path, configs, clips):
    """As a user starts it; the rest of the suite forks."""
    phases = {"p": {"end_epoch": 1, "steps_per_epoch": 1, "stage": "1Pframe", "loss_on": LOSS}}
    run = options(tmp_path, configs, train_data=clips, train_conf=phase_file(tmp_path / "p.yml", phases), crop_size=32)
    done = subprocess.run(command(run, processes=2), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "2 processes on cpu" in done.stdout, done.stderr


def test_accumulation_changes_nothing(run_options, uninterrupted):
    train(replace(run_options, accumulate=2, end_epoch=1))
    for parts, at_once in zip(curve(run_options.results), curve(uninterrupted)):
        assert float(parts["loss"]) == pytest.approx(float(at_once["loss"]), rel=1e-4)


def test_bad_losses_are_skipped_and_counted(run_options, monkeypatch, capsys):
    """A NaN and a huge loss leave the weights alone; the others count."""
    calls, original = [], trainer.ClipLoss.forward

    def forward(self, *args):
        loss, terms = original(self, *args)
        calls.append(1)
        return loss * {1: float("nan"), 2: 1e6}.get(len(calls), 1.0), terms
    monkeypatch.setattr(trainer.ClipLoss, "forward", forward)
    train(replace(run_options, end_epoch=1))
    said = capsys.readouterr().out
    assert "skipped: loss nan, gradient norm nan (phase first, epoch 1, step 1); 1 steps skipped so far" in said
    row, = curve(run_options.results)
    assert (row["skipped"], row["samples"], row["updates"]) == ("2", "1", "3")


def test_too_many_bad_losses_end_the_run(run_options, monkeypatch):
    original = trainer.ClipLoss.forward
    monkeypatch.setattr(trainer.ClipLoss, "forward",
                        lambda self, *args: (original(self, *args)[0] * float("nan"), {}))
    with pytest.raises(InputError, match="4 steps in a row had a loss that is NaN.*try a lower lr"):
        train(replace(run_options, max_skipped=4))


def test_gradients_are_clipped_and_adam_is_new_per_phase(run_options, monkeypatch):
    seen, original = [], torch.optim.Adam.step

    def step(self, *args, **kwargs):
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        rates = sorted(group["lr"] for group in self.param_groups)
        seen.append((rates, len(self.state), max(g.abs().max().item() for g in gradients)))
        return original(self, *args, **kwargs)
    monkeypatch.setattr(torch.optim.Adam, "step", step)
    loss = trainer.ClipLoss.forward
    monkeypatch.setattr(trainer.ClipLoss, "forward", lambda *args: (100 * loss(*args)[0], {}))
    train(run_options)
    assert max(bound for *_, bound in seen) == 5.0
    expected = [1e-3] * 3 + [1e-4] * 3 + [1e-3] * 2
    assert [rates[-1] for rates, *_ in seen] == pytest.approx(expected)
    wide = 100 / (3 * 8 * 8)                                       # the first phase's lr_inputs over those of analysis
    assert [rates[0] for rates, *_ in seen] == pytest.approx([lr * wide for lr in expected[:6]] + expected[6:])
    assert [number for number, (_, state, _) in enumerate(seen) if state == 0] == [0, 6]


def test_validation_keeps_the_best(tmp_path, configs, clips, capsys):
    """Reports, pictures and the best checkpoint; the checkpoint loads as weights of the codec."""
    data = tmp_path / "data"
    for name in ("BlowingBubbles", "BQSquare"):
        write_frames(data / "HEVC-D" / name, seeded_video(2, 40, 56, 5))
    phases = {"p": {"end_epoch": 2, "steps_per_epoch": 1, "stage": "1Pframe", "loss_on": LOSS}}
    run = options(tmp_path, configs, train_data=clips, data=data, train_conf=phase_file(tmp_path / "p.yml", phases),
                  test_dataset=("HEVC-D",), gop=3, no_sanity=False, crop_size=32)
    train(run)
    assert "validation on 2 of 4 sequences; below" in capsys.readouterr().out
    folder = run.results / "HyTIP"
    rows = (folder / "validation.csv").read_text().splitlines()
    assert rows[0] == "epoch,phase,sequence,QP,loss,rate,quality"
    cells = [row.split(",") for row in rows[1:]]
    assert [cell[3] for cell in cells] == ["0", "21", "42", "63"] * 4
    losses = {epoch: sum(float(cell[4]) for cell in cells if cell[0] == epoch) / 8 for epoch in "12"}
    best = read_file(folder / "checkpoints" / "best.pth.tar")
    assert float(best["loss"]) == pytest.approx(min(losses.values()))
    assert best["epoch"] == int(min(losses, key=losses.get))
    model = HyTIP(tiny_config())
    load_model(model, folder / "checkpoints" / "epoch=2.pth.tar")
    kept = entries(folder / "checkpoints" / "epoch=2.pth.tar")
    assert torch.equal(model.inter.q_encoder, kept["Residual.module.net.q_encoder"])

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    board = EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0})
    board.Reload()
    assert {tag.split("/")[1] for tag in board.Tags()["images"]} == {
        "flow", "decoded_flow", "mask", "prediction", "residual", "decoded_frame"}
    assert {"epoch/loss", "epoch/m_rate", "epoch/distortion", "validation/loss"} <= set(board.Tags()["scalars"])


def test_single_rate_models_are_validated_at_their_level(tmp_path, configs, clips):
    data = tmp_path / "data"
    write_frames(data / "HEVC-D" / "BQSquare", seeded_video(2, 32, 32, 5))
    phases = {"p": {"end_epoch": 1, "steps_per_epoch": 1, "stage": "1Pframe", "loss_on": LOSS}}
    train(options(tmp_path, configs, train_data=clips, data=data, train_conf=phase_file(tmp_path / "p.yml", phases),
                  test_dataset=("HEVC-D",), quality_level=3, crop_size=32,
                  cond_motion_coder_conf=configs / "Motion_Explicit.yml",
                  residual_coder_conf=configs / "Inter_MCR_Explicit.yml"))
    _, row = (tmp_path / "results/HyTIP/validation.csv").read_text().splitlines()
    assert row.split(",")[2:4] == ["BQSquare", "3"]


def test_a_single_rate_has_nothing_to_be_weighed_against(tmp_path, configs, clips):
    phases = {"p": {"end_epoch": 1, "stage": "1Pframe", "balance": 0.5, "loss_on": LOSS}}
    run = options(tmp_path, configs, train_data=clips, train_conf=phase_file(tmp_path / "p.yml", phases), crop_size=32,
                  cond_motion_coder_conf=configs / "Motion_Explicit.yml",
                  residual_coder_conf=configs / "Inter_MCR_Explicit.yml")
    with pytest.raises(InputError, match="phase p: balance weighs the rates .* has a single rate; leave it out"):
        train(run)


def test_without_validation_data_training_goes_on(run_options, capsys):
    train(replace(run_options, end_epoch=1))
    out = capsys.readouterr().out
    assert "no validation: none of the sequences of HEVC-B" in out
    made = {path.name for path in (run_options.results / "HyTIP" / "checkpoints").iterdir()}
    assert made == {"epoch=1.pth.tar"}


def test_corrupt_clips_are_reported_once(tmp_path, toy, capsys):
    clips = write_clips(tmp_path / "clips", count=3, side=32)
    (clips / "clip_1" / "frame_1.png").write_bytes(b"no picture")
    phases = {"p": {"end_epoch": 3, "stage": "fullgop", "RNN": 1, "max_num_Pframe": 6,
                    "loss_on": LOSS}}
    train(toy_options(tmp_path, train_data=clips, train_conf=phase_file(tmp_path / "p.yml", phases), num_workers=1))
    assert capsys.readouterr().out.count("skipped for good: clip") == 1
    assert [row["samples"] for row in curve(tmp_path / "results")] == ["3"] * 3


@pytest.mark.parametrize(("changes", "message"), [
    ({"restore": "resume"}, "holds no checkpoint to resume"),
    ({"restore": "CTM"}, "--restore CTM needs --restore_exp_key"),
    ({"restore": "CTM", "restore_exp_key": "nothing"}, "holds no checkpoint; check --restore_exp_key nothing"),
    ({"restore": "HyTIP"}, "PSNR-RGB.pth.tar are missing"),
    ({"from_scratch": False}, "cvpr2024_video.pth.tar is missing; get it from the DCVC-FM release"),
    ({"crop_size": 64, "ssim": True}, "--crop_size 64: MS-SSIM needs crops above 160"),
    ({"frame_weight": (1, 1.2)}, "--frame_weight has 2 values; phase first codes 3 frames"),
    ({"gpus": 2}, "torchrun --nproc_per_node=2"),
    ({"quality_level": 7}, "--quality_level 7 is outside 2..5"),
    ({"train_data": "nowhere"}, "no training clips of folder below nowhere"),
    ({"feature_channel": 0}, "--feature_channel 0 must be at least 1")])
def test_bad_flags_end_before_training(tmp_path, configs, clips, changes, message):
    phases = {name: {**phase, "frozen_modules": ["MENet"]} for name, phase in PHASES.items()}
    run = options(tmp_path, configs, train_data=clips, train_conf=phase_file(tmp_path / "two_phases.yml", phases),
                  crop_size=32)
    with pytest.raises(InputError, match=message) as caught:
        train(replace(run, **changes))
    assert "\n" not in str(caught.value)


def test_an_experiment_is_not_overwritten(run_options):
    train(replace(run_options, end_epoch=1))
    with pytest.raises(InputError, match="holds checkpoints already; go on with --restore resume"):
        train(run_options)
