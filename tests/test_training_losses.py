"""Loss expressions, lambdas, noise, and gradients against finite differences."""
import math

import pytest
import torch
from training_helpers import seeded_network

from helpers import tiny_config
from models.entropy.distributions import Bounded
from models.entropy.training import SampleNoise, SymbolEstimator, TrainingEstimator, no_noise, round_straight_through
from seeded import seeded_video
from util.errors import InputError
from util.training.losses import PSNR_SCALE, Distortion, Loss, LossExpression
from util.training.phases import Phase
from util.training.stages import ClipCoder, Clips


def test_the_expressions_of_the_released_phases():
    terms = {"rate": torch.tensor([2.0]), "m_rate": torch.tensor([0.5]), "distortion": torch.tensor([4.0]),
             "mc_distortion": torch.tensor([8.0]), **{f"mc_distortion{i}": torch.tensor([10.0 ** i]) for i in range(4)}}
    for text, value in (("None", 0.0), ("rate", 2.0), ("m_rate", 0.5), ("0.5*mc_distortion/0.5*distortion", 6.0),
                        ("frame_weight*distortion", 12.0), ("2*frame_weight*distortion/rate", 26.0),
                        ("0_0_0_1/1", 1000.0), ("1_0.5_0.25_0.125/4", (1 + 5 + 25 + 125) / 4)):
        assert float(LossExpression(text).value(terms, frame_weight=3.0)) == pytest.approx(value), text


@pytest.mark.parametrize("text", ["distorsion", "rate+distortion", "x*rate", "__import__('os')", "1_2_3/4",
                                  "rate//rate", "nan*rate", "1_0_0_0/0", "", "*rate"])
def test_other_expressions_are_refused(text):
    with pytest.raises(InputError, match="loss_on"):
        LossExpression(text)


def test_the_loss_averages_weighted_frames():
    loss = Loss(LossExpression("rate"), LossExpression("frame_weight*distortion"), (9.0, 1.0, 0.5))
    frames = [{"rate": torch.tensor([1.0, 2.0]), "distortion": torch.tensor([0.1, 0.2])} for _ in range(2)]
    value = loss.value(frames, torch.tensor([10.0, 100.0]))
    assert value.tolist() == pytest.approx([1 + 10 * 0.1 * 0.75, 2 + 100 * 0.2 * 0.75])


def test_lambdas():
    psnr, ssim = Distortion(), Distortion(ssim=True)
    assert [psnr.lambda_of_level(level) for level in (2, 3, 4, 5)] == [0.0035, 0.0067, 0.0130, 0.03125]
    assert [ssim.lambda_of_level(level) for level in (2, 3, 4)] == [35 * 125 / 1e6, 67 * 125 / 1e6, 130 * 125 / 1e6]
    rates = psnr.lambdas_of_rates(5)
    assert rates.shape == (64,)
    assert (rates[0].item(), rates[63].item()) == pytest.approx((0.0035, 0.03125))
    assert rates[21].item() == pytest.approx(0.0035 * (0.03125 / 0.0035) ** (21 / 63))
    with pytest.raises(InputError, match="quality_level 6 is outside 2..5"):
        psnr.lambda_of_level(6)
    with pytest.raises(InputError, match="quality_level 4"):
        psnr.lambdas_of_rates(4)


def test_distortions_of_known_pictures():
    x = torch.zeros(2, 3, 176, 176)
    y = torch.stack([x[0] + 0.5, x[1]])
    assert Distortion()(y, x).tolist() == pytest.approx([0.25, 0.0])
    ssim = Distortion(ssim=True)(y, x)
    assert ssim[1].item() == pytest.approx(0, abs=1e-6)
    assert 0.5 / (32 * math.sqrt(2)) < ssim[0].item() <= 1 / (32 * math.sqrt(2))


def test_noise_belongs_to_the_sample():
    keys, like = torch.tensor([5, 2 ** 61, 9]), torch.zeros(3, 40_000)
    noise = SampleNoise(keys)
    first, second = noise(like, 0.5), noise(like, 0.5)
    alone = SampleNoise(keys[1:2])
    assert torch.equal(alone(like[:1], 0.5), first[1:2])
    assert torch.equal(alone(like[:1], 0.5), second[1:2])
    assert not torch.equal(first, second)
    for sample in (*first, *second):
        assert -0.5 < sample.min() < -0.499
        assert 0.499 < sample.max() < 0.5
        assert abs(sample.mean()) < 0.006 and abs(sample.std() - 1 / math.sqrt(12)) < 0.003
        assert abs((sample[1:] * sample[:-1]).mean()) < 0.0025     # five deviations of 1 / (12 sqrt n)
    assert abs((first[0] * first[1]).mean()) < 0.0025
    narrow = SampleNoise(keys)(like.view(3, 4, 100, 100), 0.45)
    assert narrow.shape == (3, 4, 100, 100)
    assert 0.449 < narrow.abs().max() < 0.45


def test_rounding_passes_the_gradient():
    x = torch.tensor([0.3, 1.7, -2.6], requires_grad=True)
    y = round_straight_through(x)
    assert y.tolist() == [0, 2, -3]
    y.sum().backward()
    assert x.grad.tolist() == [1, 1, 1]


def test_signal_and_rate_paths_differ():
    """The signal is rounded around the mean; the rate is that of the noisy latent."""
    model = seeded_network(tiny_config()).codec.inter.context_model.gaussian_conditional
    residual, scale = torch.tensor([[0.4, 1.4]]), torch.tensor([[1.0, 2.0]])
    coder = TrainingEstimator(lambda like, half: torch.full_like(like, 0.2 * half))
    assert coder.code(residual, scale, model, "ry").tolist() == [[0, 1]]
    expected = model.bits(residual + 0.1, scale).sum()
    assert coder.bits["ry"].item() == pytest.approx(expected.item())


def of_symbols(residual: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Bits (B,) as the estimator without noise counts them."""
    model = seeded_network(tiny_config()).codec.inter.context_model.gaussian_conditional
    coder = SymbolEstimator(unusable_noise)
    assert torch.equal(coder.code(residual, scale, model, "ry"), residual.round())
    return coder.bits["ry"]


def unusable_noise(like, half_width):
    raise AssertionError("noise was asked for")


def test_symbols_cost_what_they_cost():
    model = seeded_network(tiny_config()).codec.inter.context_model.gaussian_conditional
    residual = torch.tensor([[0.0, 0.2, -0.2, 1.0, 1.3, -2.8]])
    scale = torch.full_like(residual, 0.7).requires_grad_()
    bits = of_symbols(residual, scale)
    symbols = model.bits(residual.round(), scale).sum()
    assert bits.item() == pytest.approx(symbols.item(), rel=2e-2)
    ours, theirs = (torch.autograd.grad(x.sum(), scale)[0] for x in (bits, symbols))
    torch.testing.assert_close(ours, theirs, rtol=0.15, atol=0.02)
    halves = of_symbols(torch.tensor([[1.5]]), scale[:, :1])
    assert halves.item() == pytest.approx(model.bits(torch.tensor([1.0, 2.0]), scale[0, :2]).mean().item(), rel=1e-5)


def test_symbols_are_drawn_to_the_cheaper_one_where_two_are_near():
    for value, sign in ((0.5, 1), (0.45, 1), (-0.55, -1), (1.5, 1)):
        residual = torch.tensor([[value]], requires_grad=True)
        of_symbols(residual, torch.full((1, 1), 0.4)).backward()
        assert residual.grad.item() * sign > 1, value
    for value in (0.0, 0.1, 1.0, -2.05):
        residual = torch.tensor([[value]], requires_grad=True)
        of_symbols(residual, torch.full((1, 1), 0.4)).backward()
        assert abs(residual.grad.item()) < 0.2, value


def test_noise_costs_where_symbols_cost_nothing():
    """Zeros at the least scale: nothing, and a tenth of a bit and more with noise on them."""
    model = seeded_network(tiny_config()).codec.inter.context_model.gaussian_conditional
    residual, scale = torch.zeros(1, 10_000), torch.full((1, 10_000), 0.11)
    noisy = TrainingEstimator(SampleNoise(torch.tensor([7])))
    noisy.code(residual, scale, model, "ry")
    assert noisy.bits["ry"].item() > 0.1 * 10_000
    assert of_symbols(residual, scale).item() < 0.01 * 10_000


@pytest.mark.parametrize("stage", ["fullgop", "intra"])
def test_a_phase_says_what_bits_are_of(stage):
    """With `rate_of: symbols` no noise is asked for, and the rates are others."""
    codec = seeded_network(tiny_config()).codec
    name = "i_rate" if stage == "intra" else "rate"
    frames = seeded_video(2, 64, 64, 3).unsqueeze(0)

    def terms(rate_of, noise):
        phase = Phase(name="p", first_epoch=1, last_epoch=1, stage=stage, max_p_frames=1, batch_size=1, lr=1e-4,
                      rate=LossExpression(name), distortion=LossExpression("distortion"), rate_of=rate_of)
        plan = phase.stage_plan(variable_rate=True, through_references=False, frame_types=(0, 1))
        return ClipCoder(codec, plan, Distortion())(Clips(frames, torch.tensor([30]), noise))[0]

    noisy, exact = terms("noise", SampleNoise(torch.tensor([7]))), terms("symbols", unusable_noise)
    assert noisy[name].item() != pytest.approx(exact[name].item(), rel=1e-3)
    assert noisy["distortion"].item() == exact["distortion"].item()


PARAMETERS = (
    ("motion_estimation", "Blocks.4.8.weight"), ("motion", "mv_encoder.enc_1.0.conv1.weight"),
    ("motion", "mv_q_decoder"), ("inter", "context_fusion_net.conv1_out.weight"), ("inter", "q_encoder"),
    ("inter", "MaskGenerator.net.up_1.4.weight"), ("inter", "contextual_encoder.conv4.weight"))
OF_THE_RATE_ALONE = (("inter", "bit_estimator_z.f1.h"), ("inter", "context_model.y_spatial_prior.block.0.conv2.weight"))


@pytest.mark.parametrize(("part", "name", "side"),
                         [(*parameter, side) for parameter in PARAMETERS for side in ("rate", "distortion")]
                         + [(*parameter, "rate") for parameter in OF_THE_RATE_ALONE])
def test_gradients_agree_with_finite_differences(part, name, side):
    """With rounding replaced by the identity, in float64, through two P-frames of a tiny model.

    Plain clamps stand for the lower bounds, whose gradient below the bound has no counterpart in differences.
    """
    network = seeded_network(tiny_config()).double()
    codec = network.codec
    for model in (codec.motion.gaussian_conditional, codec.inter.context_model.gaussian_conditional):
        model.lower_bound_scale, model.tail = Clamp(0.11), Clamped()
    for prior in (codec.intra.bit_estimator_z, codec.motion.bit_estimator_z_mv, codec.inter.bit_estimator_z):
        prior.tail = Clamped()
    phase = Phase(name="p", first_epoch=1, last_epoch=1, stage="fullgop", rnn=1, max_p_frames=2, batch_size=1, lr=1,
                  rate=LossExpression("rate" if side == "rate" else "None"),
                  distortion=LossExpression("distortion" if side == "distortion" else "None"))
    plan = phase.stage_plan(variable_rate=True, through_references=False, frame_types=(0, 1, 2))
    frames = seeded_video(3, 64, 64, 3).double().unsqueeze(0)
    qp = torch.tensor([30])
    coder = ClipCoder(codec, plan, Distortion64(), quantise=lambda x: x)
    parameter = dict(getattr(codec, part).named_parameters())[name]

    def value() -> torch.Tensor:
        return phase.loss(()).value(coder(Clips(frames, qp, no_noise)), PSNR_SCALE).mean()

    parameter.requires_grad_(True)
    value().backward()
    gradient = parameter.grad
    direction = gradient / gradient.norm()
    with torch.no_grad():
        step, ends = 1e-6, []
        for sign in (1, -1):
            parameter += sign * step * direction
            ends.append(value().item())
            parameter -= sign * step * direction
    assert (ends[0] - ends[1]) / (2 * step) == pytest.approx((gradient * direction).sum().item(), rel=1e-3)


class Clamp(torch.nn.Module):
    def __init__(self, bound):
        super().__init__()
        self.bound = bound

    def forward(self, x):
        return x.clamp_min(self.bound)


class Clamped(Bounded):
    rate = Bounded.bits


class Distortion64(Distortion):
    """The mean squared error in the number format of its input."""

    def __call__(self, x, target):
        return (x - target).square().flatten(1).mean(1)
