"""Every stage type learns two clips by heart, and trains what its phase names and nothing else."""
import copy
from dataclasses import replace

import pytest
import torch
from training_helpers import seeded_network

from helpers import tiny_config
from seeded import seeded_video
from util.errors import InputError
from util.training.clip_loss import ClipLoss
from util.training.losses import LossExpression
from util.training.options import TrainingOptions
from util.training.phases import Phase
from util.training.trainer import loss_of_phase

TYPES, WEIGHTS = (0, 1, 0, 2, 1), (1, 1.2, 0.5, 0.9, 1.2)
EXPLICIT, HYBRID, VARIABLE = (("Motion_Explicit", "Inter_CRC_Explicit"),
                              ("Motion_Hybrid_B=2.125", "Inter_MCR_Hybrid_B=5"), ("Motion", "Inter"))

STAGES = {
    "1Pframe": (EXPLICIT, {"stage": "1Pframe", "frozen": ("MENet", "CondMotion", "Residual.feature_extractor")}),
    "2Pframes motion": (EXPLICIT, {"stage": "2Pframes", "mode": "motion", "frozen": ("MENet", "Residual")},
                        "m_rate", "warped_distortion"),
    "2Pframes residual": (HYBRID, {"stage": "2Pframes", "mode": "residual", "frozen": ("MENet", "CondMotion")},
                          "rate", "0.5*mc_distortion/0.5*distortion"),
    "trainmc": (EXPLICIT, {"stage": "trainmc", "rnn": 0, "max_p_frames": 2, "frozen": ("MENet", "CondMotion")},
                "None", "1_0.5_0.25_0.125/4"),
    "feature frame": (HYBRID, {"stage": "1Pframe", "frozen": ("MENet", "CondMotion", "Residual"),
                               "reactivated": (("Residual", "frame_feature_generator"),)},
                      "None", "feature_frame_distortion"),
    "fullgop": (HYBRID, {"stage": "fullgop", "rnn": 0, "max_p_frames": 2, "frozen": ("MENet",)}),
    "fullgop XtRNN": (HYBRID, {"stage": "fullgop", "rnn": 0, "max_p_frames": 2, "frozen": ("MENet",)}),
    "fullgop RNN": (HYBRID, {"stage": "fullgop", "rnn": 1, "max_p_frames": 2}),
    "fullgop variable rate": (VARIABLE, {"stage": "fullgop", "rnn": 1, "max_p_frames": 2}, "rate",
                              "frame_weight*distortion"),
    "gains alone": (VARIABLE, {"stage": "fullgop", "rnn": 1, "max_p_frames": 2,
                               "frozen": ("MENet", "CondMotion", "Residual"),
                               "reactivated": (("CondMotion", "mv_q_"), ("Residual", "q_encoder"),
                                               ("Residual", "q_decoder"), ("Residual", "q_recon"))},
                    "rate", "frame_weight*distortion"),
}


class PerfectIntra(torch.nn.Module):
    """Stands for a trained intra codec."""

    def forward(self, coder, frame, size, qp):
        return frame


def panning_clips(side: int = 64) -> torch.Tensor:
    """Two smooth pictures that move by 3 pixels per frame: uint8 (2, 3, 3, side, side)."""
    still = torch.nn.functional.interpolate(torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)),
                                            (side, side + 16), mode="bicubic").clamp(0, 1)
    clips = torch.stack([still[..., 3 * t:3 * t + side] for t in range(3)], 1)
    return (clips * 255).round().byte()


def learn(name: str, steps: int, part: float, *, ssim: bool = False) -> tuple[list[float], set[str], set[str]]:
    """Losses until they are this part of the first; names of what the phase trains, and of what moved."""
    configs, settings, *loss_on = STAGES[name]
    rate, distortion = loss_on or ("rate", "distortion")
    phase = Phase(name=name, first_epoch=1, last_epoch=1, batch_size=2, lr=1e-4, rate=LossExpression(rate),
                  distortion=LossExpression(distortion), **settings)
    network = seeded_network(tiny_config(*configs), head=name == "feature frame")
    network.codec.intra = PerfectIntra()
    chosen = network.select(phase)
    plan = phase.stage_plan(variable_rate=configs == VARIABLE, through_references="XtRNN" in name, frame_types=TYPES)
    module = ClipLoss(network, plan, phase.loss(WEIGHTS), anchor=3, quality_level=5, ssim=ssim)
    frames = panning_clips(176 if ssim else 32)
    before = {key: value.clone() for key, value in network.entries()}
    optimizer = torch.optim.Adam(chosen.values(), lr=0.1 if name == "gains alone" else 5e-3)
    losses: list[float] = []
    while len(losses) < steps and (len(losses) < 2 or losses[-1] > part * losses[0]):
        loss = module(frames, torch.tensor([20, 50]), torch.tensor([2 * len(losses), 2 * len(losses) + 1]))[0].mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_value_(chosen.values(), 5)
        optimizer.step()
        losses.append(loss.item())
    return losses, set(chosen), {key for key, value in network.entries() if not torch.equal(value, before[key])}


@pytest.mark.parametrize("name", STAGES)
def test_two_clips_are_learnt_by_heart(name):
    """The loss falls by more than half within 200 steps; what the phase freezes does not move by a bit."""
    losses, chosen, moved = learn(name, 200, 0.5)
    assert losses[-1] < losses[0] / 2
    assert moved and moved <= chosen


@pytest.mark.slow
def test_the_loss_of_ms_ssim_falls():
    losses, chosen, moved = learn("1Pframe", 10, 0.97, ssim=True)
    assert losses[-1] < 0.97 * losses[0]
    assert moved and moved <= chosen


@pytest.mark.slow
def test_two_clips_are_learnt_by_heart_in_ms_ssim():
    losses, *_ = learn("fullgop RNN", 200, 0.5, ssim=True)
    assert losses[-1] < losses[0] / 2


def network():
    return seeded_network(tiny_config())


def phase_with(**settings):
    return Phase(name="p", first_epoch=1, last_epoch=1, stage="fullgop", rnn=1, batch_size=1, lr=1,
                 rate=LossExpression("rate"), distortion=LossExpression("distortion"), **settings)


def test_parts_are_frozen_by_name_and_reactivated_by_substring():
    chosen = network().select(phase_with(frozen=("MENet", "CondMotion", "Residual.feature_adaptor")))
    assert "Residual.feature_adaptor_I.weight" in chosen
    assert not [name for name in chosen if name.startswith("Residual.feature_adaptor.")]
    assert not [name for name in chosen if name.startswith(("if_model", "MENet", "CondMotion"))]
    chosen = network().select(phase_with(frozen=("MENet", "CondMotion", "Residual"),
                                         reactivated=(("Residual", "CTM"),)))
    assert chosen and all("CTM" in name for name in chosen)


@pytest.mark.parametrize(("settings", "message"), [
    ({"frozen": ("MENt",)}, "'MENt', which this model does not have"),
    ({"frozen": ("MENet",), "reactivated": (("Residual", "feature_adapter"),)}, "'feature_adapter' of Residual"),
    ({"frozen": ("MENet", "CondMotion", "Residual")}, "freezes everything")])
def test_wrong_names_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        network().select(phase_with(**settings))


def test_wide_layers_learn_at_lower_rates():
    """In proportion to the inputs of each output above the bound, counted here by a picture of ones; everything that
    is chosen is in one group."""
    model = network()
    phase = phase_with(lr_inputs=20, frozen=("MENet",))
    chosen = model.select(phase)
    names = {id(parameter): name for name, parameter in chosen.items()}
    found = {names.pop(id(parameter)): group["factor"] for group in model.groups(chosen, phase)
             for parameter in group["params"]}
    assert not names
    layers = {f"{model.roots[root]}.{name}.weight": layer for root in model.roots
              for name, layer in getattr(model.codec, root).named_modules()
              if isinstance(layer, (torch.nn.Conv2d, torch.nn.ConvTranspose2d, torch.nn.Linear))}
    wide = {name: 20 / inputs_of(layers[name]) for name in found if name in layers and inputs_of(layers[name]) > 20}
    assert {name: factor for name, factor in found.items() if factor != 1} == pytest.approx(wide)
    assert {type(layers[name]) for name in wide} == {torch.nn.Conv2d, torch.nn.ConvTranspose2d}
    assert [group["factor"] for group in model.groups(chosen, phase_with(frozen=("MENet",)))] == [1.0]


@torch.no_grad()
def inputs_of(layer: torch.nn.Module) -> float:
    """Of each output in the mean, away from the borders: what a layer of ones, without bias, makes of ones."""
    ones = copy.deepcopy(layer)
    ones.weight.fill_(1)
    ones.bias = None
    if isinstance(layer, torch.nn.Linear):
        return ones(torch.ones(layer.in_features)).mean().item()
    return ones(torch.ones(1, layer.in_channels, 32, 32))[..., 4:12, 4:12].mean().item()


def test_a_head_needs_an_implicit_feature():
    with pytest.raises(InputError, match="--Pretrain_frame_feature"):
        seeded_network(tiny_config(*EXPLICIT), head=True)


def test_mixed_precision_stays_close():
    """bfloat16 changes loss and gradients by a few percent, and keeps both in float32."""
    results = {}
    for amp in (False, True):
        model = network()
        model.select(phase_with())
        plan = phase_with(max_p_frames=2).stage_plan(variable_rate=True, through_references=False, frame_types=TYPES)
        module = ClipLoss(model, plan, phase_with().loss(()), anchor=0, quality_level=5, amp=amp)
        frames = (seeded_video(3, 64, 64, 21).unsqueeze(0) * 255).round().byte()
        loss, terms = module(frames, torch.tensor([40]), torch.tensor([1]))
        loss.mean().backward()
        weight = model.codec.inter.recon_generation_net.recon_conv.weight
        results[amp] = (loss.item(), weight.grad.flatten())
        assert loss.dtype == torch.float32 and weight.grad.dtype == torch.float32
    (exact, gradient), (mixed, rough) = results[False], results[True]
    assert mixed == pytest.approx(exact, rel=0.05) and mixed != exact
    assert torch.cosine_similarity(gradient, rough, dim=0) > 0.95


@pytest.mark.parametrize("truncate", [None, 1, 2, 3])
def test_gradients_end_at_windows(truncate):
    """Of all that is remembered, wherever a window of the sample opens; the loss itself stays the same."""
    model, phase = network(), phase_with(max_p_frames=4, truncate=truncate)
    plan = phase.stage_plan(variable_rate=True, through_references=False, frame_types=TYPES)
    code_frame, left, taken = model.codec.code_frame, [], []

    def watched(coder, frame, memory, header):
        if not header.intra:
            taken.append(memory.tensors())
        coded = code_frame(coder, frame, memory, header)
        left.append(coded.memory.tensors())
        return coded

    model.codec.code_frame = watched
    frames = (seeded_video(5, 64, 64, 3) * 255).round().byte().expand(3, -1, -1, -1, -1)
    keys = torch.tensor([0, 1, -1])                                       # shorten the first window by so many P-frames

    def loss(plan):
        return ClipLoss(model, plan, phase.loss(WEIGHTS), anchor=3, quality_level=5, ssim=False)(
            frames, torch.tensor([20] * 3), keys)[0]

    loss(plan)
    for position in range(2, 5):
        before, after = left[position - 1], taken[position - 1]
        for name in before:
            gradient, = torch.autograd.grad(after[name].sum(), before[name], retain_graph=True, allow_unused=True)
            flows = [gradient is not None and bool(gradient[n].any()) for n in range(3)]
            assert flows == [truncate is None or (position - 1 + key) % truncate != 0 for key in keys.tolist()], name
    with torch.no_grad():
        torch.testing.assert_close(loss(plan), loss(replace(plan, truncate=None)))


@pytest.mark.parametrize("before", [0, 1, 2, 5])
def test_late_frames(before):
    """Frames without gradients come first; the clip is played back and forth, and types go on from the I-frame."""
    model, phase = network(), phase_with(max_p_frames=2, late=5)
    types = (0, 1, 0, 2, 0, 2, 0, 2)
    plan = phase.stage_plan(variable_rate=True, through_references=False, frame_types=types)
    code_frame, seen = model.codec.code_frame, []
    frames = (seeded_video(3, 64, 64, 3) * 255).round().byte()[None]

    def watched(coder, frame, memory, header):
        which = [n for n in range(3) if torch.equal(frame[0], frames[0, n].float() / 255)]
        seen.append((*which, header.intra, header.frame_type, torch.is_grad_enabled()))
        return code_frame(coder, frame, memory, header)

    model.codec.code_frame = watched
    loss, means = ClipLoss(model, plan, phase.loss(WEIGHTS), anchor=3, quality_level=5, ssim=False)(
        frames, torch.tensor([20]), torch.tensor([1]), before)
    order = [0, 1, 2, 1, 0, 1][before::-1] + [1, 2]
    assert [which for which, *_ in seen] == order
    assert [intra for _, intra, *_ in seen] == [True] + [False] * (before + 2)
    assert [kind for _, _, kind, _ in seen][1:] == list(types[1:before + 3])
    assert [learns for *_, learns in seen] == [False] * (before + 1) + [True] * 2
    loss.mean().backward()
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


@torch.no_grad()
def test_the_balance_of_rates():
    """Weights of the samples' losses, by lambdas a hundred times apart; 1 in the middle."""
    phase = phase_with(max_p_frames=1, lambdas=(0.001, 0.1))
    model = network()
    frames = (seeded_video(2, 64, 64, 21) * 255).round().byte().expand(2, -1, -1, -1, -1)
    plain, half = (loss_of_phase(TrainingOptions(), replace(phase, balance=balance), model, anchor=0)(
        frames, torch.tensor([0, 63]), torch.tensor([1, 2]))[0] for balance in (0.0, 0.5))
    torch.testing.assert_close(half / plain, torch.tensor([10 ** 0.5, 10 ** -0.5]))
