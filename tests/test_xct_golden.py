"""ST-XCT against tensors of an independent implementation: seeded weights, salt 0, float32 on a CPU.

Joint features there are B C 2 H W, here B 2C H W, slot 0 first.
"""
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.entropy.coder import Recorder
from models.hem.inter import Prediction
from models.hem.latent import dual_passes
from models.hem.memory import HemMemory
from models.layers import bands
from models.st_xct.blocks import GatedFeedForward, TransformerBlock
from models.st_xct.config import LargePlace, XctConfig
from models.st_xct.inter import TransformingDecoder, TransformingEncoder, TransformingInterCodec
from models.st_xct.slots import rows_of
from seeded_xct import ALL, FEW_BLOCKS, SMALL_XCT, XctParams, noise, seed_module, with_params

DATA = Path(__file__).parent / "data" / "xct"
TOLERANCE = 1e-5                                               # of a tensor's range

BLOCKS = {"block_c16_h2_f1_dense": (16, LargePlace(heads=2, FFG_factor=1), False, "contextual_encoder.xct_large.0."),
          "block_c24_h6_f3_dense": (24, LargePlace(heads=6, FFG_factor=3), False, "xct_prior.0."),
          "block_c24_h6_f3_depthwise": (24, LargePlace(heads=6, FFG_factor=3), True, "xct_prior.0.")}
GATES = {"ffg_c16_f1_dense": (16, 1, 2, "contextual_encoder.xct_large.0.ffg."),
         "ffg_c12_f3_dense": (12, 3, 2, "xct_prior.0.ffg."), "ffg_c12_f3_depthwise": (12, 3, 24, "xct_prior.0.ffg.")}


@pytest.fixture(params=["whole", "in bands"], autouse=True)
def band(request, monkeypatch):
    """Everything at once, and a row at a time."""
    if request.param == "in bands":
        monkeypatch.setitem(bands.BAND_BYTES, "cpu", 1)


def golden(case: str) -> dict[str, np.ndarray]:
    with np.load(DATA / f"{case}.npz") as file:
        return dict(file)


def inputs(file: dict[str, np.ndarray], *names: str) -> list[Tensor]:
    return [torch.from_numpy(file[name]) for name in names]


def assert_close(actual: Tensor, expected: np.ndarray, what: str) -> None:
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=0, atol=TOLERANCE * np.ptp(expected),
                               err_msg=what)


def stacked(joint: Tensor) -> Tensor:
    return joint.transpose(1, 2).flatten(1, 2)


def apart(x: Tensor) -> Tensor:
    return x.unflatten(1, (2, -1)).transpose(1, 2)


@pytest.mark.parametrize("case", BLOCKS)
def test_block(case):
    channels, place, depthwise, prefix = BLOCKS[case]
    file, block = golden(case), TransformerBlock(channels, place, depthwise, bias=False)
    seed_module(block, prefix)
    joint, = inputs(file, "joint")
    x = stacked(joint)
    assert_close(apart(block.norm1(x)), file["norm1"], "norm1")
    attention = block.attn.applied(block.attn.weights([rows_of(x, 0, x.shape[2]).map(block.norm1)]))
    assert_close(apart(attention(rows_of(x, 0, x.shape[2]).map(block.norm1))), file["attn"], "attn")
    with torch.no_grad():
        assert_close(apart(block(x)), file["out"], "out")
    block.requires_grad_(True)
    x = joint.requires_grad_()
    (apart(block(stacked(x))) * noise("cotangent", *joint.shape)).sum().backward()
    assert_close(x.grad, file["grad_joint"], "grad_joint")
    for name, parameter in block.named_parameters():
        expected = float(file[f"gradnorm:{prefix}{name}"])
        assert parameter.grad.norm().item() == pytest.approx(expected, rel=1e-5), name


@pytest.mark.parametrize("case", GATES)
def test_gate(case):
    channels, factor, groups, prefix = GATES[case]
    file, gate = golden(case), GatedFeedForward(channels, factor, groups, bias=False)
    seed_module(gate, prefix)
    x = stacked(*inputs(file, "joint"))
    network = gate.network()
    rows = [network(rows_of(x, top, top + 2)) for top in range(0, x.shape[2], 2)]
    assert_close(apart(torch.cat(rows, 2)), file["out"], "out")


def joined(part) -> dict[str, Tensor]:
    """What the places of a part return, once it has run."""
    found = {}
    for name in ("large", "small"):
        place = getattr(part, f"xct_{name}")
        place.register_forward_hook(lambda _, args, output, name=name: found.update({name: output}))
    return found


@pytest.mark.parametrize("case", ["full", "small"])
def test_encoder(case):
    file = golden(f"ms_tfe_{case}")
    encoder = TransformingEncoder(XctConfig(XCT_Params=XctParams(**ALL)) if case == "full" else SMALL_XCT)
    seed_module(encoder, "contextual_encoder.")
    found = joined(encoder)
    frame, *contexts = inputs(file, "x", "context1", "context2", "context3")
    with torch.no_grad():
        found["y"] = encoder(frame, tuple(contexts))
    for what in ("large", "small", "y"):
        assert_close(found[what], file[what], what)


@pytest.mark.parametrize("case, config", [("full", XctConfig(XCT_Params=XctParams(**ALL))), ("small", SMALL_XCT),
                                          ("printed_up1", with_params(up1_conv=100))], ids=lambda x: str(x)[:12])
def test_decoder(case, config):
    file = golden(f"ms_tfd_{case}")
    decoder = TransformingDecoder(config)
    seed_module(decoder, "contextual_decoder.")
    found = joined(decoder)
    y_hat, *contexts = inputs(file, "y_hat", "context2", "context3")
    with torch.no_grad():
        found["out"] = decoder(y_hat, (None, *contexts))
    for what in ("small", "large", "out"):
        assert_close(found[what], file[what], what)


@pytest.mark.parametrize("conv3d", ["dense", "depthwise"])
def test_prior(conv3d):
    file = golden("them_2blocks" if conv3d == "dense" else "them_2blocks_depthwise")
    params = XctParams(Add_THEM=True, **FEW_BLOCKS, conv3d=conv3d)
    codec = seed_module(TransformingInterCodec(XctConfig(XCT_Params=params)), "")
    z_hat, context, ref_y = inputs(file, "z_hat", "context3", "ref_y")
    memory = HemMemory(frame=None, ref_y=ref_y)
    with torch.no_grad():
        known = codec.known(codec.temporal_prior_encoder(context), codec.contextual_hyper_prior_decoder(z_hat), memory)
        assert_close(known[:, :384], file["joint"], "joint")
        assert_close(codec.fuse_priors(known), file["params"], "params")


def test_p_frame():
    """The whole contextual part, at given contexts."""
    file = golden("pframe_small_all")
    codec = seed_module(TransformingInterCodec(SMALL_XCT), "")
    frame, *contexts, ref_y = inputs(file, "x", "context1", "context2", "context3", "ref_y")
    seen = {}
    codec.y_prior_fusion.register_forward_hook(lambda _, args, output: seen.update(parameters=output))
    coder, memory = Recorder(), HemMemory(frame=frame, ref_y=ref_y)
    with torch.no_grad():
        coded = codec(coder, frame, Prediction(tuple(contexts)), memory, torch.tensor(0.5).view(1, 1, 1))
    for what, values in zip(("step", "scale", "mean"), seen["parameters"].chunk(3, 1)):
        assert_close(values, file[what], what)
    (_, z_hat), *both = coder.symbols
    assert np.array_equal(z_hat.numpy(), file["z_hat"])
    where = dual_passes(24)((4, 4), torch.device("cpu"))
    symbols = torch.empty(1, 24 * 4 * 4).index_copy(1, torch.cat(where), torch.cat([part for _, part in both], 1))
    assert np.array_equal(symbols.view(1, 24, 4, 4).numpy(), file["symbols"])
    for name in ("y", "z"):
        assert coder.bits[f"r{name}"].item() == pytest.approx(file[f"bits_{name}"].item(), rel=1e-6)
    assert_close(coded.y_hat, file["y_hat"], "y_hat")
    assert_close(coded.frame, file["x_hat"], "x_hat")
