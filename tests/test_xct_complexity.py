"""Parameters and multiply-adds of ST-XCT, at full widths on tensors without values."""
from itertools import product

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from helpers import ROOT, TINY
from models.catalogue import build_codec, find_model
from models.hem.inter import InterCodec
from models.st_xct.blocks import Fuse
from models.st_xct.config import XctConfig, XctParams
from models.st_xct.inter import TransformingInterCodec
from util.evaluation.complexity import count_macs

FINENESS = {"TFE_large": 4, "TFE_small": 16, "THEM": 256, "TFD_large": 4, "TFD_small": 16}
"""Pixels per position."""
FORMS = ("dense", "depthwise")

# Of the specification: parameters, and nominal and effective kMAC per pixel.
PLACES = {("TFE", "dense"): (5_818_900, 1610.752, 1103.872), ("THEM", "dense"): (149_827_680, 1171.968, 798.720),
          ("TFE", "depthwise"): (375_700, 113.872, 105.952), ("THEM", "depthwise"): (7_246_944, 58.056, 56.112)}
PLACES |= {("TFD", form): PLACES["TFE", form] for form in FORMS}
# Its rounded sums: millions of parameters, and effective kMAC to encode and to decode, dense and depthwise.
VARIANTS = {"": ((17.523,) * 2, (1658.7,) * 2, (1237.8,) * 2),
            "TFE": ((23.342, 17.899), (2762.6, 1764.6), (1237.8, 1237.8)),
            "THEM": ((167.351, 24.770), (2457.4, 1714.8), (2036.5, 1293.9)),
            "TFD": ((23.342, 17.899), (2762.6, 1764.6), (2341.6, 1343.7)),
            "TFE THEM": ((173.170, 25.146), (3561.3, 1820.7), (2036.5, 1293.9)),
            "THEM TFD": ((173.170, 25.146), (3561.3, 1820.7), (3140.4, 1399.8)),
            "TFE TFD": ((29.161, 18.275), (3866.4, 1870.6), (2341.6, 1343.7)),
            "TFE THEM TFD": ((178.989, 25.522), (4665.1, 1926.7), (3140.4, 1399.8))}
HEM_PARAMETERS, HEM_MACS = 17_523_323, (1658.685, 1237.776)


def places_of(place: str, form: str) -> dict[str, Fuse]:
    params = XctParams(conv3d=form)
    with torch.device("meta"):
        return {name: Fuse(192 if place == "THEM" else 64, getattr(params, name), params)
                for name in FINENESS if name.startswith(place)}


def effective(fuse: Fuse, pixels: int, channels: int) -> float:
    """kMAC per pixel as they are computed; all blocks of a place are alike."""
    x = torch.empty(1, 2 * channels, 8, 8, device="meta")
    with FlopCounterMode(display=False) as counter:
        fuse[0].eval()(x)
    return len(fuse) * counter.get_total_flops() / 2 / 64 / pixels / 1000


@pytest.fixture(scope="module")
def measured() -> dict[tuple[str, str], tuple[int, float]]:
    """Parameters and effective kMAC of each place."""
    found = {}
    for place, form in product(("TFE", "THEM", "TFD"), FORMS):
        parts = places_of(place, form)
        found[place, form] = (sum(p.numel() for fuse in parts.values() for p in fuse.parameters()),
                              sum(effective(fuse, FINENESS[name], 192 if place == "THEM" else 64)
                                  for name, fuse in parts.items()))
    return found


@pytest.mark.parametrize("place, form", PLACES)
def test_places(measured, place, form):
    parameters, macs = measured[place, form]
    expected, nominal, computed = PLACES[place, form]
    assert parameters == expected
    assert macs == pytest.approx(computed, abs=0.001)
    # Nominal: as Conv3d is counted, with the third of the 3x3x3 products that meet zeros beyond the slots.
    spatial = sum(module.weight.numel() * 2 / FINENESS[name] / 1000 for name, fuse in places_of(place, form).items()
                  for module in fuse.modules() if isinstance(module, torch.nn.Conv3d) and module.kernel_size[0] == 3)
    assert macs + spatial / 3 == pytest.approx(nominal, abs=0.001)


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants(measured, variant):
    for n, form in enumerate(FORMS):
        on = [(place, measured[place, form]) for place in variant.split()]
        parameters = HEM_PARAMETERS + sum(count for _, (count, _) in on)
        encode = HEM_MACS[0] + sum(macs for _, (_, macs) in on)
        decode = HEM_MACS[1] + sum(macs for place, (_, macs) in on if place != "TFE")
        millions, encoding, decoding = VARIANTS[variant]
        assert parameters / 1e6 == pytest.approx(millions[n], abs=0.00051)
        assert (encode, decode) == pytest.approx((encoding[n], decoding[n]), abs=0.051)


def test_parameters_of_whole_codecs():
    def count(codec: type, config: XctConfig) -> int:
        with torch.device("meta"):
            return sum(p.numel() for p in codec(config).parameters())
    on = {"Add_TFE": True, "Add_THEM": True, "Add_TFD": True}
    base = count(InterCodec, XctConfig())
    assert count(TransformingInterCodec, XctConfig()) == base
    added = count(TransformingInterCodec, XctConfig(XCT_Params=XctParams(**on))) - base
    assert added == 2 * PLACES["TFE", "dense"][0] + PLACES["THEM", "dense"][0]
    printed = count(TransformingInterCodec, XctConfig(XCT_Params=XctParams(**on, up1_conv=100))) - base
    assert added - printed == 224_796


@pytest.mark.parametrize("path", sorted((ROOT / "config" / "st_xct").glob("*.yml")), ids=lambda path: path.stem)
def test_the_figures_of_the_list_of_models(measured, path):
    """Convolutions and matrix products, plus biases and activations (GELU here) as all codecs are counted, less
    attention's products."""
    form = "depthwise" if "depthwise" in path.stem else "dense"
    on = {"all": ("TFE", "THEM", "TFD"), "base": ()}.get(path.stem.removesuffix("_depthwise"), path.stem.split("_"))
    size, counted = find_model(path).size, [1662.686, 1241.020]
    for place in on:
        for name in (name for name in FINENESS if name.startswith(place)):
            blocks, channels = getattr(XctParams(), name).blocks, 192 if place == "THEM" else 64
            gelus_less_products = 2 * blocks * (channels - 2 * channels * 32) / FINENESS[name] / 1000
            counted[0] += gelus_less_products
            counted[1] += gelus_less_products * (place != "TFE")
        counted[0] += measured[place, form][1]
        counted[1] += measured[place, form][1] * (place != "TFE")
    assert (size["encode"], size["decode"]) == pytest.approx(counted, abs=0.06)
    assert size["parameters"] == pytest.approx(
        48.692_290 + sum(measured[place, form][0] for place in on) / 1e6, abs=6e-4)


def test_count_of_a_whole_frame():
    """The count of the command line sees what the places compute."""
    with torch.device("meta"):
        codec = build_codec(find_model(TINY / "st-xct.yml")).eval().requires_grad_(False)
    places = [fuse for fuse in codec.inter.modules() if isinstance(fuse, Fuse)]
    assert len(places) == 5
    products = sum(2 * len(fuse) * 2 * channels * head / pixels / 1000 for fuse, channels, head, pixels in (
        (codec.inter.contextual_encoder.xct_large, 8, 4, 4), (codec.inter.contextual_encoder.xct_small, 8, 4, 16),
        (codec.inter.contextual_decoder.xct_large, 8, 4, 4), (codec.inter.contextual_decoder.xct_small, 8, 4, 16),
        (codec.inter.xct_prior, 24, 8, 256)))
    assert count_macs(codec).attention == pytest.approx(products, abs=0.01)
