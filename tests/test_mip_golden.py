"""DCVC-MIP against golden tensors: seeded weights, salt 0, float32 on a CPU.

No weights of the authors are public; the numbers are of another implementation of the same text, whose row A equals
the released DCVC-HEM.
"""
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from models.codec import FrameHeader
from models.entropy.coder import Recorder
from models.layers.functional import halve_flow, warp
from models.layers.offset_diversity import OffsetDiversity
from models.layers.windows import ResidualWindowBlock
from models.mip.inter import ContextRefinement
from models.mip.motion import MipMotionCodec
from seeded import seeded_video
from seeded_mip import ROWS, row_config, seeded_mip, seeded_part

DATA = Path(__file__).parent / "data" / "mip"
TENSORS, BITS = 1e-5, 2e-5                       # of a tensor's range; relative
PARAMETERS = {"A": 17_523_323, "B": 17_653_147, "B_flow": 17_654_299, "C": 17_690_011, "D": 18_450_171,
              "D_offsets": 18_450_171, "E": 18_595_523, "D_tcr1": 18_595_523, "D_tcr2": 18_595_523,
              "D_od4": 18_616_859, "D_entropy": 21_873_691}


@cache
def golden(case: str) -> dict[str, np.ndarray]:
    with np.load(DATA / f"{case}.npz") as file:
        return dict(file)


def tensor(case: str, key: str) -> torch.Tensor:
    return torch.from_numpy(golden(case)[key])


def assert_close(actual: torch.Tensor, expected: np.ndarray, what: str = "") -> None:
    np.testing.assert_allclose(actual.numpy(), expected, rtol=0, atol=TENSORS * np.ptp(expected), err_msg=what)


@pytest.mark.parametrize("kind, channels", [("none", 0), ("flow", 2), ("feature", 64)])
def test_offset_diversity(kind, channels):
    case, feature, flow = "offset_diversity", *(tensor("offset_diversity", key) for key in ("feature", "flow"))
    assert_close(warp(feature, flow), golden(case)["warped"])
    guidance = {"none": None, "flow": halve_flow(flow), "feature": tensor(case, "motion_feature")}[kind]
    block = seeded_part(OffsetDiversity(64, channels, 16, 2, 40), "align.")
    aligned = block(feature, flow, guidance)
    assert_close(aligned.feature, golden(case)[f"context_{kind}"], "context")
    assert_close(aligned.hidden, golden(case)[f"H_{kind}"], "H")
    assert_close(block.residual_offsets(aligned.raw[:, :64]), golden(case)[f"R_{kind}"], "R")


@pytest.mark.parametrize("case", ["tcr", "tcr_odd"])
def test_context_refinement(case):
    part, seen = seeded_part(ContextRefinement(row_config("E")), "refine."), []
    part.rstb.register_forward_hook(lambda _, args, output: seen.append(output))
    assert_close(part(tensor(case, "x")), golden(case)["y"], "y")
    assert_close(seen[0], golden(case)["after_rstb"], "after_rstb")


def test_condition_prior_encoder():
    part = seeded_part(MipMotionCodec(row_config("E")).mv_condition_prior_encoder, "mv_condition_prior_encoder.")
    assert_close(part(tensor("condition_prior_encoder", "condition")), golden("condition_prior_encoder")["prior"])


def test_motion_encoder():
    part = seeded_part(MipMotionCodec(row_config("E")).mv_encoder, "mv_encoder.")
    assert_close(part(tensor("mv_encoder", "flow"), tensor("mv_encoder", "condition")), golden("mv_encoder")["mv_y"])


def test_window_attention_of_priors():
    part = seeded_part(ResidualWindowBlock(256, 8, 4, 2, 0), "mv_y_prior_rstb.")
    assert_close(part(tensor("rstb_entropy", "x")), golden("rstb_entropy")["y"])


def code_p_frames(row: str, size: tuple[int, int], salt: int):
    """Three P-frames after a reference that was not coded, at anchor 1: unclamped frames, coded frames, coders."""
    codec = seeded_mip(replace(row_config(row), rate_points=4, intra_channel=16))    # no I-frame is coded
    assert PARAMETERS[row] == sum(value.numel() for name, value in codec.named_parameters()
                                  if codec.released_name(name).startswith("video."))
    clip, rec, coded, coders = seeded_video(4, *size, salt), [], [], []
    codec.inter.recon_generation_net.register_forward_hook(lambda _, args, output: rec.append(output[0]))
    memory = codec.remember_frame(clip[:1])
    with torch.no_grad():
        for frame in clip[1:]:
            coders.append(Recorder())
            coded.append(codec.code_frame(coders[-1], frame[None], memory, FrameHeader(False, 1, size)))
            memory = coded[-1].memory
    return rec, coded, coders


def assert_bits(coders: list[Recorder], expected: np.ndarray) -> None:
    bits = [[coder.bits[name].item() for name in ("my", "mz", "ry", "rz")] for coder in coders]
    np.testing.assert_allclose(bits, expected, rtol=BITS)


def test_p_frames():
    expected = golden("pframes")
    rec, coded, coders = code_p_frames("E", (64, 128), int(expected["clip_salt"]))
    assert_bits(coders, expected["bits"])
    for n, (unclamped, frame) in enumerate(zip(rec, coded, strict=True)):
        assert_close(unclamped[0], expected["rec"][n], "rec")
        assert_close(frame.views["decoded_flow"][0], expected["flow"][n], "flow")
        assert_close(frame.memory.condition[0, :8], expected["H"][n], "H")
        assert_close(frame.memory.ref_y[0], expected["y"][n], "y")
        assert_close(frame.memory.ref_mv_y[0], expected["mv_y"][n], "mv_y")


@pytest.mark.parametrize("row", ROWS)
def test_rows_of_the_ablations(row):
    expected = golden("variants")
    rec, _, coders = code_p_frames(row, (64, 64), int(expected[f"{row}.clip_salt"]))
    assert_bits(coders, expected[f"{row}.bits"])
    assert_close(rec[-1], expected[f"{row}.rec"], "rec")
