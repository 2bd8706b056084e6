"""Convolutions to few channels, several pixels at a time: the same results, only where there is something to gain."""
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from helpers import seeded_model, tiny_config
from models.layers import narrow
from models.layers.float64 import FastConv2d
from models.layers.narrow import PackedConv2d, use_packed_rows
from util.formats import fast_layout, portable_copy


def pair(inputs: int, outputs: int, side: int = 3, bias: bool = True) -> tuple[nn.Conv2d, nn.Conv2d]:
    """A convolution, and the same one packed."""
    plain, packed = (nn.Conv2d(inputs, outputs, side, padding=side // 2, bias=bias) for _ in range(2))
    packed.load_state_dict(plain.state_dict())
    use_packed_rows(packed)
    return plain, packed


def pixels_at_a_time(module: nn.Module, x: torch.Tensor, monkeypatch) -> int:
    strides, real = [], narrow.F.conv2d
    with monkeypatch.context() as patch:
        patch.setattr(narrow.F, "conv2d", lambda *args: strides.append(args[3]) or real(*args))
        module(x)
    return strides[0][1]


@settings(deadline=None)
@given(inputs=st.integers(1, 9), outputs=st.integers(1, 8), side=st.sampled_from([3, 5, 7]), bias=st.booleans(),
       batch=st.integers(1, 2), height=st.integers(1, 9), columns=st.integers(1, 4), lanes=st.sampled_from([8, 16]))
def test_results_are_the_same(inputs, outputs, side, bias, batch, height, columns, lanes):
    plain, packed = pair(inputs, outputs, side, bias)
    x = torch.randn(batch, inputs, height, 8 * columns).contiguous(memory_format=torch.channels_last)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(narrow, "LANES", dict.fromkeys(["DEFAULT", "NO AVX", "AVX2", "AVX512"], lanes))
        expected, result = plain(x), packed(x)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)
    if inputs > 1:                                              # of one channel the two layouts are one
        assert result.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("side", [3, 5, 7])
@pytest.mark.parametrize("inputs", [2, 8, 12])
def test_half_precision_is_as_exact_as_its_format(inputs, side, dtype):
    """At sizes of real frames: libraries have kernels of their own for them, and one of them was wrong."""
    for outputs in (2, 3, 8):
        _, packed = pair(inputs, outputs, side)
        x = torch.randn(1, inputs, 48, 104).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            exact = nn.functional.conv2d(x.double(), packed.weight.double(), packed.bias.double(), padding=side // 2)
            result = packed.to(dtype)(x.to(dtype)).double()
        assert (result - exact).norm() < 0.02 * exact.norm(), outputs


@pytest.mark.parametrize("outputs, width, lanes, pixels", [
    (8, 16, 16, 2), (8, 16, 8, 1), (6, 16, 16, 2), (3, 16, 16, 4), (1, 16, 16, 8), (1, 12, 16, 4), (1, 15, 16, 1),
    (2, 16, 0, 1)])
def test_pixels_fill_a_register(monkeypatch, outputs, width, lanes, pixels):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "this one")
    monkeypatch.setattr(narrow, "LANES", {"this one": lanes} if lanes else narrow.LANES)
    module = pair(4, outputs)[0]
    module.__class__ = PackedConv2d
    x = torch.randn(1, 4, 5, width).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        assert pixels_at_a_time(module, x, monkeypatch) == pixels


def test_only_without_gradients_and_in_channels_last(monkeypatch):
    monkeypatch.setattr(narrow, "LANES", {torch.backends.cpu.get_cpu_capability(): 16})
    _, module = pair(4, 8)
    x = torch.randn(1, 4, 5, 16)
    last = x.contiguous(memory_format=torch.channels_last)
    assert pixels_at_a_time(module, last, monkeypatch) == 1
    with torch.no_grad():
        assert pixels_at_a_time(module, x, monkeypatch) == 1
        assert pixels_at_a_time(module, last, monkeypatch) == 2
        assert pixels_at_a_time(module.double(), last.double(), monkeypatch) == 1


def test_what_is_not_packed():
    others = [nn.Conv2d(4, 16, 3, padding=1), nn.Conv2d(4, 8, 1), nn.Conv2d(4, 8, 3, padding=1, stride=2),
              nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Conv2d(4, 8, 3), nn.Conv2d(4, 8, 4, padding=2),
              nn.Conv2d(4, 8, 3, padding=2, dilation=2), nn.Conv2d(4, 8, 3, padding=1, padding_mode="reflect")]
    for module in others:
        use_packed_rows(module)
        assert type(module) is nn.Conv2d


def test_a_model_keeps_its_names_and_its_portable_form():
    model = seeded_model(tiny_config())
    names = set(model.state_dict())
    fast = fast_layout(model)
    packed = {name for name, module in fast.named_modules() if type(module) is PackedConv2d}
    assert packed and set(fast.state_dict()) == names
    portable = dict(portable_copy(fast).named_modules())
    assert all(type(portable[name]) is FastConv2d for name in packed)
