"""Own layers and probability models beside CompressAI's, which the program does not need: values and gradients."""
import pytest
import torch
from torch import Tensor

from models.entropy.distributions import Factorized, Gaussian
from models.layers.bound import LowerBound
from models.layers.gdn import GDN

layers = pytest.importorskip("compressai.layers")
ops = pytest.importorskip("compressai.ops")
entropy_models = pytest.importorskip("compressai.entropy_models")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def with_gradients(function, *inputs: Tensor, seed: int = 9) -> list[Tensor]:
    """The output, and the gradients of the inputs for a random one of the output."""
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    output = function(*inputs)
    return [output.detach(), *torch.autograd.grad(output, inputs, normal(*output.shape, seed=seed))]


def agree(ours: list[Tensor], theirs: list[Tensor], tolerance: float = 2e-6) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("channels", [1, 7])
def test_gdn(channels):
    """Also where parameters have run into their bounds; and it loads the weights of the other by their names."""
    ours, theirs = GDN(channels), layers.GDN(channels)
    assert all(map(torch.equal, ours.state_dict().values(), theirs.state_dict().values()))
    for module in (ours, theirs):
        with torch.no_grad():
            module.beta.copy_(normal(channels, seed=1))
            module.gamma.copy_(0.5 * normal(channels, channels, seed=2))
    theirs.load_state_dict(ours.state_dict())
    x = normal(2, channels, 5, 6)

    def applied(module, x: Tensor, beta: Tensor, gamma: Tensor) -> Tensor:
        return torch.func.functional_call(module, {"beta": beta, "gamma": gamma}, x)
    assert (ours.beta < 0).any() or channels == 1
    results = [with_gradients(lambda *inputs, module=module: applied(module, *inputs), x, module.beta, module.gamma)
               for module in (ours, theirs)]
    agree(*results)


def test_the_gradient_below_a_bound():
    x = torch.tensor([-3.0, 0.1, 0.11, 0.2, 5.0])
    seen = set()
    for seed in range(6):
        ours, theirs = (with_gradients(bound, x, seed=seed) for bound in (LowerBound(0.11), ops.LowerBound(0.11)))
        assert all(map(torch.equal, ours, theirs))
        seen.add(bool(ours[1][0] == 0))
    assert seen == {True, False}                                    # gradients of both signs


SCALES = torch.tensor([-1.0, 0.0, 1e-6, 0.1, 0.11, 0.5, 3.0, 40.0, 300.0])


def test_gaussian_of_integers():
    """Down to the bounds: 0.11 of the scale, 1e-9 of the likelihood."""
    values, scales = torch.meshgrid(torch.arange(-40.0, 41.0), SCALES, indexing="ij")
    theirs = entropy_models.GaussianConditional(None, scale_bound=0.11)
    _, likelihood = theirs.eval()(values[None, None], scales[None, None], training=False)
    ours = Gaussian().bits(values, scales)
    torch.testing.assert_close(ours, -likelihood[0, 0].log2(), rtol=1e-5, atol=1e-6)
    assert ours.max() == pytest.approx(29.897, abs=1e-3) and ours.min() < 1e-4


def test_gaussian_of_noisy_values_and_its_gradients():
    values, scales = normal(40, len(SCALES)) * 4, SCALES.expand(40, -1)
    model = entropy_models.GaussianConditional(None, scale_bound=0.11)
    theirs = with_gradients(lambda v, s: -model.likelihood_lower_bound(model._likelihood(v, s)).log2(), values, scales)
    agree(with_gradients(Gaussian().rate, values, scales), theirs, 1e-4)


def test_factorised_prior():
    """With one filter per stage CompressAI's bottleneck is ours."""
    channels = 5
    ours, theirs = Factorized(channels), entropy_models.EntropyBottleneck(channels, filters=(1, 1, 1))
    with torch.no_grad():
        for n, stage in enumerate((ours.f1, ours.f2, ours.f3, ours.f4)):
            for k, (mine, other) in enumerate(((stage.h, theirs.matrices), (stage.b, theirs.biases),
                                               (stage.a, theirs.factors))):
                if mine is not None:
                    mine.copy_(normal(1, channels, 1, 1, seed=10 * n + k))
                    other[n].copy_(mine.view_as(other[n]))
    values = torch.arange(-12.0, 13.0).expand(1, channels, 1, -1)

    def likelihood(v: Tensor) -> Tensor:
        by_channel = v.permute(1, 0, 2, 3).reshape(channels, 1, -1)
        found, *_ = theirs._likelihood(by_channel)
        return theirs.likelihood_lower_bound(found).reshape(1, channels, 1, -1)
    agree(with_gradients(ours.rate, values), with_gradients(lambda v: -likelihood(v).log2(), values), 1e-4)
    torch.testing.assert_close(ours.bits(values), -likelihood(values).log2(), rtol=1e-4, atol=1e-5)
