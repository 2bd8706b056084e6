"""Training survives what happens: stops at any step on any process, validation that fails, bad steps now and then."""
import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from forked import team_of_two
from test_training_runs import assert_same, whole
from training_helpers import phase_file, seeded_network, write_clips

from conftest import write_frames
from dataloader.source import PngFolder
from helpers import tiny_config
from models.codec import FrameHeader
from models.entropy.coder import Estimator
from models.entropy.training import SampleNoise, TrainingEstimator, no_noise
from models.layers.functional import warp
from seeded import seeded_video
from toy_codec import toy_options
from util.errors import InputError
from util.program import Ended
from util.training import trainer, validation
from util.training.checkpoints import Checkpoints
from util.training.clip_loss import ClipLoss
from util.training.distributed import Team
from util.training.losses import Distortion, LossExpression
from util.training.main import new_codec, train
from util.training.network import TrainedNetwork
from util.training.options import TrainingOptions
from util.training.phases import Phase, read_phases, shortened
from util.training.stages import ClipCoder, Clips, StagePlan
from util.training.start import start
from util.training.validation import Validation, rate_points

LOSS = {"R": "rate", "D": "distortion"}
STEPS = 5


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Clips, and a sequence to validate on, whose size is no multiple of 16."""
    folder = tmp_path_factory.mktemp("shared")
    write_clips(folder / "clips", count=STEPS, frames=2, side=32)
    write_frames(folder / "valid" / "a", seeded_video(3, 40, 56, 5))
    return folder


@pytest.fixture
def run(tmp_path, shared, toy):
    """An epoch of STEPS steps of one clip."""
    phases = {"p": {"end_epoch": 1, "stage": "1Pframe", "batch_size": 1, "loss_on": LOSS}}
    return toy_options(tmp_path, train_data=shared / "clips", gop=2, train_conf=phase_file(tmp_path / "p.yml", phases))


def checkpoint(run: TrainingOptions) -> Path:
    return Checkpoints(run.results, run.experiment_name).of_epoch(1)


def test_a_stop_at_any_step_of_any_process_ends_all(run, tmp_path):
    """With a host that is a step behind, on saves and between them: both processes end, and the run resumes to the
    bits of one that nothing stopped."""
    statuses, said = team_of_two(stop_at_every_step, run, folder=tmp_path)
    assert statuses == [0, 0], said
    assert "a batch of 1 leaves 1 of 2 processes without a share" in said[0]
    expected = whole(checkpoint(replace(run, experiment_name="whole")))
    for stop_at in range(1, STEPS + 1):
        for one, other in zip(whole(checkpoint(replace(run, experiment_name=f"stopped_{stop_at}"))), expected):
            assert_same(one, other)


def stop_at_every_step(run: TrainingOptions) -> None:
    """In each of two processes: a whole run, and for each step one that one of them is told to stop there, resumed.

    As on a GPU, the host is a step behind. All runs but one save as often as they can, which is every other step: stops
    fall on saves and between them.
    """
    dist.init_process_group("gloo")
    trainer.lag_of = lambda device: 1
    rank, update = dist.get_rank(), trainer.Trainer.update
    train(replace(run, experiment_name="whole"))
    for stop_at in range(1, STEPS + 1):
        calls = []

        def stopped(self, *args, calls=calls, stop_at=stop_at):
            calls.append(1)
            if len(calls) == stop_at and rank == stop_at % 2:
                os.kill(os.getpid(), signal.SIGTERM)
            update(self, *args)
        stopping = replace(run, experiment_name=f"stopped_{stop_at}", save_minutes=15 if stop_at == 3 else 0)
        trainer.Trainer.update = stopped
        with pytest.raises(Ended) as end:
            train(stopping)
        assert end.value.number == signal.SIGTERM and len(calls) <= stop_at + 1
        trainer.Trainer.update = update
        train(replace(stopping, restore="resume"))
    dist.destroy_process_group()


def test_a_stop_in_the_last_moment_is_not_lost(run, monkeypatch):
    """After the last step nobody asks for wishes any more; the next step of a recipe must not begin."""
    def save(self, *args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        original(self, *args, **kwargs)
    original = Checkpoints.save
    with monkeypatch.context() as patch, pytest.raises(Ended):
        patch.setattr(Checkpoints, "save", save)
        train(run)
    assert checkpoint(run).is_file()
    train(replace(run, restore="resume"))


def test_the_leader_answers_for_all(tmp_path):
    statuses, said = team_of_two(ask_the_leader, folder=tmp_path)
    assert statuses == [0, 0], said


def ask_the_leader() -> None:
    team = Team("cpu")
    assert team.led(lambda: team.rank) == 0
    with pytest.raises(InputError, match="refused by 0"):
        team.led(lambda: refuse(team.rank))


def refuse(rank: int) -> None:
    raise InputError(f"refused by {rank}")


class Follower(Team):
    """A process that sees a file which the leader's machine does not show yet."""

    def __init__(self, early: Path):
        super().__init__("cpu")
        self.early, self.said = early, []

    def led(self, question):
        hidden = self.early.rename(self.early.with_suffix(".hidden"))
        try:
            return question()
        finally:
            hidden.rename(self.early)

    def say(self, message):
        self.said.append(message)


@pytest.mark.parametrize(("restore", "said"), [("resume", "--restore resume: {}, epoch 2, step 1"),
                                               ("same", "--restore same: from {}")])
def test_all_start_from_the_checkpoint_that_the_leader_sees(run, restore, said):
    phases = {"p": {"end_epoch": 2, "stage": "1Pframe", "batch_size": STEPS, "loss_on": LOSS}}
    run = replace(run, train_conf=phase_file(run.train_conf.with_name("two.yml"), phases))
    train(run)
    files = Checkpoints(run.results, run.experiment_name)
    files.last.unlink(missing_ok=True)
    follower = Follower(files.of_epoch(2))
    run = replace(run, restore=restore, restore_exp_key=run.experiment_name)
    last = read_phases(run.train_conf)[-1]
    start(run, last, TrainedNetwork(new_codec(run)), Checkpoints(run.results, "next"), follower)
    assert said.format(files.of_epoch(1)) in follower.said


def test_what_a_phase_does_not_use_is_frozen_between_processes(tmp_path):
    """Or each process would search for it in every step: HyTIP's `q_feature` never gets a gradient."""
    statuses, said = team_of_two(share_a_codec, folder=tmp_path)
    assert statuses == [0, 0], said


def share_a_codec() -> None:
    team, network = Team("cpu"), seeded_network(tiny_config())
    phase = Phase(name="p", first_epoch=1, last_epoch=1, stage="1Pframe", batch_size=1, lr=1.0,
                  rate=LossExpression("rate"), distortion=LossExpression("distortion"))
    network.select(phase)
    plan = phase.stage_plan(variable_rate=True, through_references=False, frame_types=(0, 1))
    loss = ClipLoss(network, plan, phase.loss(()), anchor=0, quality_level=5)
    example = (torch.zeros(1, 2, 3, 32, 32, dtype=torch.uint8), *(torch.zeros(1, dtype=torch.int64) for _ in range(2)))
    shared = team.share(loss, *example)
    assert shared.static_graph and not shared.find_unused_parameters and shared.gradient_as_bucket_view
    assert not network.codec.inter.q_feature.requires_grad and network.codec.inter.q_encoder.requires_grad
    for _ in range(2):
        shared(*example)[0].sum().backward()
    gradients = network.codec.inter.q_encoder.grad
    assert torch.equal(gradients, team.sum(gradients.clone()) / 2)


def test_late_frames_between_processes(tmp_path):
    """Where an I-frame is no reference, what adapts it is left out; nothing is frozen that later steps use."""
    statuses, said = team_of_two(share_late_frames, folder=tmp_path)
    assert statuses == [0, 0], said


def share_late_frames() -> None:
    team, network = Team("cpu"), seeded_network(tiny_config())
    phase = Phase(name="p", first_epoch=1, last_epoch=1, stage="fullgop", batch_size=2, lr=1.0, late=2, max_p_frames=1,
                  rate=LossExpression("rate"), distortion=LossExpression("distortion"))
    network.select(phase)
    plan = phase.stage_plan(variable_rate=True, through_references=False, frame_types=(0, 1, 0, 2))
    loss = ClipLoss(network, plan, phase.loss(()), anchor=0, quality_level=5)
    clips = torch.full((1, 2, 3, 32, 32), 90, dtype=torch.uint8), *torch.zeros(2, 1, dtype=torch.int64)
    inter, used = network.codec.inter, []
    shared = team.share(loss, *clips, varying=True)
    for before in (0, 2, 1):
        network.zero_grad()
        shared(*clips, before)[0].sum().backward()
        gradients = inter.q_encoder.grad
        assert torch.equal(gradients, team.sum(gradients.clone()) / 2) and gradients.any()
        adaptors = inter.feature_adaptor_I, *inter.feature_adaptor
        used.append([bool(part.weight.grad is not None and part.weight.grad.any()) for part in adaptors])
    assert used == [[True, False, False, False], [False, False, False, True], [False, True, False, False]]


def test_steps_are_counted_as_skipped_in_a_row_only_in_a_row(run, monkeypatch):
    calls, original = [], trainer.ClipLoss.forward

    def forward(self, *args):
        loss, terms = original(self, *args)
        calls.append(1)
        return loss * (float("nan") if len(calls) % 2 else 1.0), terms
    monkeypatch.setattr(trainer.ClipLoss, "forward", forward)
    train(replace(run, max_skipped=2))
    assert len(calls) == STEPS


def test_a_validation_that_fails_is_not_the_best(run, shared, monkeypatch, capsys):
    losses = [math.nan, 5.0, math.nan, 4.0, 4.5]
    monkeypatch.setattr(Validation, "run", lambda *_: ([], losses.pop(0), {}))
    settings = {"p": {"end_epoch": 5, "steps_per_epoch": 1, "stage": "1Pframe", "batch_size": 1, "loss_on": LOSS}}
    train(replace(run, valid_data=shared / "valid", train_conf=phase_file(run.results.parent / "five.yml", settings)))
    best = torch.load(run.results / "HyTIP/checkpoints/best.pth.tar", weights_only=False)
    assert (best["epoch"], best["training"]["best"]) == (4, 4.0)
    assert capsys.readouterr().out.count("the best so far") == 2


def test_tf32_is_a_choice_of_training_and_never_of_validation(run, shared, monkeypatch):
    seen, forward, code = [], trainer.ClipLoss.forward, Validation._code_frame

    def spy(name, original):
        def method(*args):
            seen.append((name, torch.backends.cudnn.allow_tf32))
            return original(*args)
        return method
    monkeypatch.setattr(trainer.ClipLoss, "forward", spy("step", forward))
    monkeypatch.setattr(Validation, "_code_frame", spy("validation", code))
    for tf32 in ("on", "off"):
        train(replace(run, tf32=tf32, experiment_name=tf32, valid_data=shared / "valid", debug=True))
        assert set(seen) == {("step", tf32 == "on"), ("validation", False)}
        kept = torch.load(run.results / tf32 / "checkpoints/epoch=1.pth.tar", weights_only=False)
        assert kept["training"]["recipe"]["tf32"] == tf32
        seen.clear()
    assert not torch.backends.cudnn.allow_tf32, "as evaluation left it"


def test_a_row_of_the_validation_is_a_gop_coded_by_hand(shared):
    """P-frames alone count, with the lambda of their QP; in stage intra the I-frame alone."""
    codec = seeded_network(tiny_config()).codec
    source = PngFolder(shared / "valid" / "a")
    made = Validation([("a", source)], rate_points(TrainingOptions(), True, 0), ssim=False, gop=3, align=16)
    rows, loss, _ = made.run(codec, Team("cpu"))
    intra, _, _ = made.run(codec, Team("cpu"), True)
    assert [row["QP"] for row in rows] == [0, 21, 42, 63] and codec.training
    assert loss == pytest.approx(sum(row["loss"] for row in rows) / 4)
    qp, memory, losses, rates = 21, None, [], []
    scale = 255 ** 2 * 0.0035 * (0.03125 / 0.0035) ** (qp / 63)
    with torch.no_grad():
        for n, pixels in enumerate(source):
            frame, coder = pixels[None].float() / 255, Estimator()
            padded = F.pad(frame, (0, 8, 0, 8), mode="replicate")
            coded = codec.eval().code_frame(coder, padded, memory, FrameHeader(intra=n == 0, qp=qp, size=(48, 64),
                                                                               frame_type=(0, 1, 0)[n],
                                                                               refresh=n == 1))
            memory = coded.memory
            rates.append(sum(float(bits) for bits in coder.bits.values()) / (40 * 56))
            losses.append(rates[-1] + scale * (coded.frame[..., :40, :56] - frame).square().mean().item())
    assert rows[1]["rate"] == pytest.approx(sum(rates[1:]) / 2)
    assert rows[1]["loss"] == pytest.approx(sum(losses[1:]) / 2)
    assert intra[1]["loss"] == pytest.approx(losses[0])


def test_noise_is_as_wide_as_released():
    """Half a step for latents (B n), 0.45 for hyper latents (B C h w): `estUN_outR`."""
    found = {2: 0.0, 4: 0.0}

    def noise(like, half_width):
        drawn = SampleNoise(torch.tensor([1]))(like.new_zeros(1, 4000), half_width)
        found[like.ndim] = max(found[like.ndim], drawn.abs().max().item())
        return torch.zeros_like(like)
    codec = seeded_network(tiny_config()).codec
    with torch.no_grad():
        memory = None
        for n in range(2):
            header = FrameHeader(intra=n == 0, qp=20, size=(64, 64))
            memory = codec.code_frame(TrainingEstimator(noise), torch.rand(1, 3, 64, 64), memory, header).memory
    assert 0.49 < found[2] < 0.5 and 0.44 < found[4] < 0.45


def test_shortened_phases_drop_their_learning_rate_in_time():
    phase = Phase(name="p", first_epoch=1, last_epoch=40, stage="1Pframe", batch_size=1, lr=1.0, milestones=(20, 30),
                  rate=LossExpression("rate"), distortion=LossExpression("distortion"))
    short, = shortened((phase,), 0.1)
    assert [short.lr_at(epoch) for epoch in (1, 2, 3, 4)] == pytest.approx([1, 1, 0.1, 0.01])


def test_which_stages_start_anywhere_in_a_clip():
    """The released loader does so for the stages of one and two P-frames; what it never had, intra and flow, too."""
    def phase(stage: str, **settings) -> Phase:
        rate, distortion = {"intra": ("i_rate", "distortion"), "flow": ("flow_roughness", "flow_distortion"),
                            "trainmc": ("None", "1_0.5_0.25_0.125/4")}.get(stage, ("rate", "distortion"))
        return Phase(name="p", first_epoch=1, last_epoch=1, stage=stage, batch_size=1, lr=1.0,
                     rate=LossExpression(rate), distortion=LossExpression(distortion), **settings)
    starts = {stage: phase(stage, **({"mode": "motion"} if stage == "2Pframes" else {})).random_start
              for stage in ("1Pframe", "2Pframes", "trainmc", "fullgop", "intra", "flow")}
    assert [stage for stage, anywhere in starts.items() if anywhere] == ["1Pframe", "2Pframes", "intra", "flow"]


def test_the_flow_of_coarse_scales_is_shorter():
    """Four scales, at each the frames and the flow at half the size, and so half as long."""
    flow = torch.full((1, 2, 64, 64), 3.0) + torch.rand(1, 2, 64, 64, generator=torch.Generator().manual_seed(0))

    class Model:
        flow_network = "motion_estimation"

        def motion_estimation(self, current, reference):
            return flow
    plan = StagePlan(stage="flow", p_frames=1, detach_frame=True, detach_flow=True, frame_types=(0, 0),
                     terms=frozenset({"flow_distortion"}))
    frames = seeded_video(2, 64, 64, 3)[None]
    terms, = ClipCoder(Model(), plan, Distortion())(Clips(frames, torch.tensor([0]), no_noise))
    total, (reference, frame), scaled = 0.0, frames.unbind(1), flow
    for _ in range(4):
        total += (warp(reference, scaled) - frame).square().mean().item()
        reference, frame, scaled = F.avg_pool2d(reference, 2), F.avg_pool2d(frame, 2), F.avg_pool2d(scaled, 2) / 2
    assert terms["flow_distortion"].item() == pytest.approx(total / 4, rel=1e-5)
    assert validation.VALIDATION_QPS == (0, 21, 42, 63)
