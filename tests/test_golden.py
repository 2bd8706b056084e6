"""The networks against tensors of the released system: seeded weights, salt 0, float32 on a CPU."""
from pathlib import Path

import numpy as np
import pytest
import torch

from config import load_config
from helpers import INTER_CONFIGS, MOTION_CONFIGS, ROOT, full_config
from models.entropy.coder import Estimator
from models.flow.spynet import MotionEstimation
from models.hytip.codec import HyTIP
from models.hytip.config import InterConfig, IntraConfig, MotionConfig, MotionEstimationConfig
from models.hytip.inter import InterCodec
from models.hytip.memory import HybridMemory as Memory
from models.hytip.motion import MotionCodec
from models.intra.dcvc_dc import IntraCodec
from seeded import seeded_state, seeded_video

DATA = Path(__file__).parent / "data"
TENSORS, BITS = 1e-4, 1e-4          # largest absolute error of a tensor, relative error of bits


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(DATA / "golden" / f"{name}.npz") as file:
        return dict(file)


def seeded(network: torch.nn.Module, root: str) -> torch.nn.Module:
    network.load_state_dict(seeded_state(network.state_dict(), f"{root}.net."))
    return network.eval().requires_grad_(False)


def assert_close(actual: torch.Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(actual.numpy(), expected, rtol=0, atol=TENSORS)


def assert_bits(coder: Estimator, prefix: str, expected: dict, t: int) -> None:
    for part in "yz":
        assert coder.bits[prefix + part].item() == pytest.approx(expected[f"bits_{part}"][t], rel=BITS)


def test_seeded_clip_is_the_golden_one():
    assert np.array_equal(seeded_video(4, 64, 96, 0).numpy(), golden("spynet")["clip"])


def test_motion_estimation():
    expected = golden("spynet")
    network = seeded(MotionEstimation(load_config(ROOT / "config" / "MENet.yml", MotionEstimationConfig)), "MENet")
    clip = torch.from_numpy(expected["clip"])
    assert_close(network(clip[1:], clip[:-1]), expected["flow"])


def test_intra_codec():
    expected = golden("intra")
    network = seeded(IntraCodec(load_config(ROOT / "config" / "Intra.yml", IntraConfig)), "if_model")
    for t, qp in enumerate(expected["q_index"]):
        coder = Estimator()
        decoded = network(coder, torch.from_numpy(expected["frame"]), (64, 96), int(qp))
        assert_close(decoded[0], expected["x_hat"][t])
        assert_bits(coder, "i", expected, t)


@pytest.mark.parametrize("name", MOTION_CONFIGS)
def test_motion_codec(name):
    expected = golden(f"motion_{name}")
    network = seeded(MotionCodec(load_config(ROOT / "config" / f"{name}.yml", MotionConfig)), "CondMotion")
    coded = None
    for t, (flow, reference) in enumerate(zip(expected["flow"], expected["ref"])):
        memory = Memory(torch.from_numpy(reference)[None])
        if coded is not None:
            memory = Memory(memory.frame, flow=coded.flow_hat, ref_mv_feature=coded.feature, ref_mv_y=coded.y_hat)
        coder = Estimator()
        coded = network(coder, torch.from_numpy(flow)[None], memory, int(expected["qp"][0]))
        assert_close(coded.flow_hat[0], expected["flow_hat"][t])
        assert_close(coded.feature[0], expected["ref_mv_feature"][t])
        assert_close(coded.y_hat[0], expected["ref_mv_y"][t])
        assert_bits(coder, "m", expected, t)


@pytest.mark.parametrize("name", INTER_CONFIGS)
def test_inter_codec(name):
    expected = golden(f"inter_{name}")
    network = seeded(InterCodec(load_config(ROOT / "config" / f"{name}.yml", InterConfig)), "Residual")
    clip = torch.from_numpy(expected["clip"])
    memory = Memory(clip[:1])
    for t, (flow, frame_type) in enumerate(zip(expected["mv_hat"], expected["fa_idx"])):
        prediction = network.predict(memory, torch.from_numpy(flow)[None], int(frame_type))
        coder = Estimator()
        coded = network(coder, clip[t + 1:t + 2], prediction, memory, int(expected["qp"][0]))
        assert_close(coded.frame[0], expected["rec"][t])
        assert_close(prediction.mc_frame[0], expected["mc_frame"][t])
        assert_bits(coder, "r", expected, t)
        assert (prediction.mask is None) == ("mask" not in expected)
        if prediction.mask is not None:
            assert_close(prediction.mask[0], expected["mask"][t])
        assert (coded.feature is None) == ("ref_feature" not in expected)
        if coded.feature is not None:
            assert_close(coded.feature[0], expected["ref_feature"][t])
            assert_close(coded.y_hat[0], expected["ref_y"][t])
        memory = Memory(coded.frame.clamp(0, 1), ref_feature=coded.feature,
                        ref_y=coded.y_hat if network.config.buffer.latent else None)


def entries(network: torch.nn.Module, root: str) -> list[str]:
    return ["\t".join((f"{root}.net.{name}", str(value.dtype).removeprefix("torch."),
                       "x".join(map(str, value.shape)) or "scalar")) for name, value in network.state_dict().items()]


@pytest.mark.parametrize("name", MOTION_CONFIGS + INTER_CONFIGS)
def test_state_dict_of_a_configuration(name):
    network, root = ((MotionCodec(load_config(ROOT / "config" / f"{name}.yml", MotionConfig)), "CondMotion")
                     if name in MOTION_CONFIGS else
                     (InterCodec(load_config(ROOT / "config" / f"{name}.yml", InterConfig)), "Residual"))
    expected = (DATA / "state_dicts" / f"{name}.tsv").read_text().splitlines()
    assert sorted(entries(network, root)) == sorted(expected)


def test_state_dict_of_the_whole_model():
    model = HyTIP(full_config())
    actual = [line for name, root in HyTIP.plain_roots().items() for line in entries(getattr(model, name), root)]
    expected = (DATA / "state_dicts" / "full_model.tsv").read_text().splitlines()
    assert len(expected) == 1193
    assert sorted(actual) == sorted(expected)
