"""Distributions: bits, rates and gradients against independent formulas, and their floors."""
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import laplace, norm

from models.entropy.distributions import Added, Bounded, Factorized, Gaussian, Laplace, Normal, SmoothNormal

GOLDEN = np.load(Path(__file__).parent / "data" / "entropy_hem.npz")
HEM = Normal(0.11, Added()), Laplace(1e-5, Added())
ALL = Gaussian(), SmoothNormal(), *HEM


@pytest.mark.parametrize("model, entry", list(zip(HEM, ("normal_bits", "laplace_bits"))))
def test_bits_are_those_of_the_released_dcvc_hem(model, entry):
    values, scale = (torch.from_numpy(GOLDEN[name]) for name in ("q", "scale"))
    values, scale = torch.meshgrid(values, scale, indexing="ij")
    bits, expected = model.bits(values, scale), torch.from_numpy(GOLDEN[entry])
    assert (bits - expected).abs()[scale <= 5].max() < 1e-4 and (bits - expected).abs().max() < 5e-3
    assert (bits >= 0).all() and bits.max() == pytest.approx(-math.log2(1e-5), rel=1e-6)


def test_gaussian_bits():
    values = torch.tensor([0.0, 1.0, -3.0, 2.5, 60.0])
    scale = torch.tensor([0.01, 0.7, 2.0, 30.0, 1.0])
    bounded = scale.clamp_min(0.11).double().numpy()
    expected = norm.cdf(values.numpy() + 0.5, scale=bounded) - norm.cdf(values.numpy() - 0.5, scale=bounded)
    expected = -np.log2(np.maximum(expected, 1e-9))
    assert Gaussian().bits(values, scale).numpy() == pytest.approx(expected, rel=1e-4, abs=1e-5)
    clamped = torch.tensor([-1.0, 1e-9, 0.7, 1e6, 1e12])
    expected = norm.cdf(0.5, scale=[1e-5, 1e-5, 0.7, 1e6, 1e10]) - norm.cdf(-0.5, scale=[1e-5, 1e-5, 0.7, 1e6, 1e10])
    bits = SmoothNormal().bits(torch.zeros(5).double(), clamped.double())
    assert bits.numpy() == pytest.approx(-np.log2(np.maximum(expected, 1e-9)), abs=1e-6)
    assert Normal().bits(torch.zeros(1), torch.zeros(1)).item() == pytest.approx(
        -math.log2(norm.cdf(0.5, scale=0.11) - norm.cdf(-0.5, scale=0.11) + 1e-5), abs=1e-5)


def test_laplace_bits():
    values, scale = torch.meshgrid(torch.arange(-9.0, 10), torch.tensor([0.02, 0.3, 1, 7.0]), indexing="ij")
    values, scale = values.double(), scale.double()
    v, b = values.numpy(), scale.numpy()
    expected = -np.log2(laplace.cdf(v + 0.5, scale=b) - laplace.cdf(v - 0.5, scale=b) + 1e-5).clip(None, 0)
    bits = Laplace().bits(values, scale).numpy()
    assert bits == pytest.approx(expected, abs=1e-9)
    assert bits == pytest.approx(bits[::-1], abs=1e-9)


@pytest.mark.parametrize("model", ALL, ids=["gaussian", "smooth", "normal", "laplace"])
def test_bits_rise_towards_the_tails_and_sum_to_a_probability_of_one(model):
    for scale in (0.2, 0.9, 4, 30):
        values = torch.arange(-1000, 1001, dtype=torch.float64)
        bits = model.bits(values, torch.full_like(values, scale))
        assert (bits[1000:].diff() >= -1e-9).all() and torch.allclose(bits, bits.flip(0), atol=1e-3)
        spurious = 1e-5 if isinstance(model, Laplace | Normal) and isinstance(model.tail, Added) else 1e-9
        assert 0 <= (2 ** -bits).sum().item() - 1 < 1.01 * spurious * len(values) + 1e-9


@pytest.mark.parametrize("model", ALL, ids=["gaussian", "smooth", "normal", "laplace"])
def test_rates_are_bits_and_their_gradients_differences(model):
    generator = torch.Generator().manual_seed(0)
    values = (torch.randn(200, generator=generator, dtype=torch.float64) * 3).requires_grad_()
    scale = torch.empty(200, dtype=torch.float64).uniform_(0.5, 5, generator=generator).requires_grad_()
    rate = model.rate(values, scale)
    likely = model.bits(values, scale) < 15                         # the bounds' gradients are no differences
    assert likely.sum() > 150 and torch.allclose(rate[likely], model.bits(values, scale)[likely], rtol=1e-6)
    rate.sum().backward()
    for tensor in (values, scale):
        step = 1e-6
        with torch.no_grad():
            tensor += step
            above = model.bits(values, scale)
            tensor -= 2 * step
            below = model.bits(values, scale)
            tensor += step
        assert torch.allclose(tensor.grad[likely], ((above - below) / (2 * step))[likely], rtol=1e-4, atol=1e-6)


def test_tails_pass_the_gradient_that_makes_bits_fewer():
    p = torch.tensor([1e-12, 0.5], requires_grad=True)
    assert Bounded().rate(p).tolist() == pytest.approx([-math.log2(1e-9), 1])
    Bounded().rate(p).sum().backward()
    assert p.grad[0] < 0 and p.grad[1] == pytest.approx(-2 / math.log(2))
    p = torch.tensor([0.0, 0.5, 1.0], requires_grad=True)
    assert Added().rate(p).tolist() == pytest.approx([-math.log2(1e-5), -math.log2(0.50001), 0])
    assert Added().bits(p).tolist() == Added().rate(p).tolist()
    (Added().rate(p) * torch.tensor([1.0, 1, 1])).sum().backward()
    assert p.grad[0] < 0 and p.grad[2] == 0, "fewer bits than none cannot be"


@torch.no_grad()
def seeded_prior(channels: int, **options) -> Factorized:
    prior, generator = Factorized(channels, **options), torch.Generator().manual_seed(0)
    for parameter in prior.parameters():
        parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return prior


@torch.no_grad()
def test_the_factorised_distribution():
    prior = seeded_prior(3).double()
    values = torch.arange(-400.0, 401).double().view(1, 1, 1, -1).expand(1, 3, 1, -1)
    probability = prior.probability(values)
    assert (probability >= 0).all()
    assert probability.sum(-1).flatten().numpy() == pytest.approx(np.ones(3), abs=1e-6)
    assert torch.equal(prior.bits(values), -probability.clamp_min(1e-9).log2()) and prior.noise == 0.45
    other = seeded_prior(3, tail=Added(), noise=0.5).double()
    assert torch.equal(other.bits(values), -(probability + 1e-5).log2()) and other.noise == 0.5


def test_what_training_adds():
    """Noise and bounds come from the distribution, and from nowhere else."""
    from models.entropy.training import TrainingEstimator
    widths = []

    def noise(like: torch.Tensor, half: float) -> torch.Tensor:
        widths.append(half)
        return torch.full_like(like, 0.3)
    for prior in (seeded_prior(2), seeded_prior(2, tail=Added(), noise=0.5)):
        coder, z = TrainingEstimator(noise), torch.ones(1, 2, 1, 1) * 9
        coder.code_z(z, prior, (1, 1), "z")
        assert coder.bits["z"].item() == pytest.approx(prior.rate(z + 0.3).sum().item())
    for model in ALL:
        coder, scale = TrainingEstimator(noise), torch.tensor([[0.01, 2.0]])
        coder.code(torch.tensor([[0.2, 40.0]]), scale, model, "y")
        assert coder.bits["y"].item() == pytest.approx(model.rate(torch.tensor([[0.5, 40.3]]), scale).sum().item())
    assert widths == [0.45, 0.5, 0.5, 0.5, 0.5, 0.5]
