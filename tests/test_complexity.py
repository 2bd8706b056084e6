"""Complexity against the released figures and against a count by hand."""
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers import full_config, seeded_model, tiny_config
from util.evaluation.complexity import (
    ACTIVATIONS,
    CONVENTION,
    PLAIN,
    POOLS,
    PRODUCTS,
    SIZE,
    _count,
    _sum,
    aten,
    buffer_size,
    count_macs,
    parameters,
)

SMALL = (64, 64)
"""Figures are per pixel: the same as at 384x192."""


@pytest.fixture(scope="module")
def model():
    return seeded_model(full_config())


@pytest.mark.parametrize("decode, total, convolutions", [(False, 1265.8, 1256.9), (True, 845.1, 837.8)])
def test_multiply_adds(model, decode, total, convolutions):
    macs = count_macs(model, decode, size=SMALL)
    assert macs.total == pytest.approx(total, rel=0.01)
    # GDN's 1x1 convolutions (128 x 128 at 1/4, 1/16 and 1/64 of the pixels) escaped the released hooks.
    gdn = 128 * 128 * (1 / 4 + 1 / 16 + 1 / 64) / 1000
    assert macs.convolutions - gdn == pytest.approx(convolutions, abs=0.06)
    assert sum(macs.parts.values()) == pytest.approx(macs.total)
    assert ("motion_estimation" in {name for name, value in macs.parts.items() if value}) == (not decode)


def test_parameters(model):
    sizes = {name: round(value / 1e6, 3) for name, value in parameters(model).items()}
    assert sizes == {"intra": 30.998, "motion_estimation": 1.200, "motion": 2.819, "inter": 12.574}


@pytest.mark.parametrize("motion, inter, channels", [
    ("Motion", "Inter", 2 + 0.125 + 3 + 2 + 128 / 256 + 64 / 256),
    ("Motion_Explicit", "Inter_MCR_Explicit", 2 + 3),
    ("Motion_Hybrid_B=6", "Inter_MCR_Hybrid_B=51", 2 + 4 + 3 + 48 + 128 / 256 + 64 / 256)])
def test_buffer_size(motion, inter, channels):
    size = buffer_size(seeded_model(full_config(motion, inter)), SMALL)
    assert size.encoder == size.decoder == sum(size.parts.values()) == channels


def test_count_by_hand():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.LeakyReLU(), nn.ConvTranspose2d(4, 2, 2, 2, bias=False))
    network.requires_grad_(False)
    x = torch.zeros(1, 3, *SIZE)
    pixels = SIZE[0] * SIZE[1]
    holder = seeded_model(tiny_config())
    counts, _ = _count(lambda: network(x), holder, PLAIN)
    by_hand = pixels / 4 * 4 * 27 + pixels / 4 * 4 * 2 * 4
    assert _sum(counts, aten.convolution) == pytest.approx(by_hand / pixels / 1000) and _sum(counts, *PRODUCTS) == 0
    counts, _ = _count(lambda: network(x), holder, CONVENTION)
    total = _sum(counts, aten.convolution, *ACTIVATIONS)
    assert total == pytest.approx((by_hand + 2 * pixels / 4 * 4) / pixels / 1000)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_matrix_products_and_pools_by_hand(device):
    """Attention counts alike, whichever kernel computes it: 4 heads, 16 tokens and 8 channels per head."""
    shape = (SIZE[0] * SIZE[1] // 16, 4, 16, 8)
    q, pooled = torch.zeros(shape, device=device), torch.zeros(1, 2, *SIZE, device=device)
    counts, _ = _count(lambda: (F.scaled_dot_product_attention(q, q, q), F.max_pool2d(pooled, 2)),
                       seeded_model(tiny_config()), CONVENTION)
    assert _sum(counts, *PRODUCTS) == pytest.approx(2 * 4 * 16 * 8 / 1000)
    assert _sum(counts, *POOLS) == pytest.approx(2 / 1000)
