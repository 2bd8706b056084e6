"""Where rows of the buffering tables start: from nothing, from another row, and all alike."""
import re
from dataclasses import replace

import pytest
import torch
from test_training_scratch import Exact, WithoutResidual, real_frames
from training_helpers import seeded_network

from helpers import tiny_config
from models.catalogue import configure, find_model
from models.codec import FrameHeader
from models.hytip.codec import HyTIP
from models.hytip.config import InterBuffer, ModelConfig, MotionBuffer
from models.hytip.initial import initialise
from models.hytip.memory import HybridMemory
from models.hytip.training import REMEMBERING
from util.training.losses import Distortion
from util.training.network import TrainedNetwork
from util.training.starting_points import start_from_checkpoint

MOTION = {"explicit": MotionBuffer(flow=True, feature=None, latent=False),
          "hybrid": MotionBuffer(flow=True, feature=2, latent=True),
          "implicit": MotionBuffer(flow=False, feature=34, latent=True)}
INTER = {"explicit": InterBuffer(frame=True, feature=None, latent=False),
         "hybrid": InterBuffer(frame=True, feature=2, latent=True),
         "implicit": InterBuffer(frame=False, feature=5, latent=True)}


def row(motion: str, inter: str, base: ModelConfig, framework: str = "masked_conditional_residual") -> ModelConfig:
    return replace(base, motion=replace(base.motion, buffer=MOTION[motion]),
                   inter=replace(base.inter, buffer=INTER[inter], framework=framework))


@pytest.mark.parametrize("motion, inter, framework", [
    ("explicit", "explicit", "conditional"), ("hybrid", "hybrid", "conditional"),
    ("implicit", "implicit", "conditional"), ("implicit", "implicit", "masked_conditional_residual")])
def test_rows_from_nothing_start_as_the_warped_reference(motion, inter, framework):
    """A picture that does not move, and gets brighter once: the difference is coded, remembered, and does not fade."""
    torch.manual_seed(0)
    codec = HyTIP(row(motion, inter, configure(find_model("small")), framework)).eval()
    initialise(codec)
    frame, = real_frames(1)
    header = FrameHeader(False, 30, tuple(frame.shape[-2:]))
    with torch.no_grad():
        memory = HybridMemory(0.8 * frame, explicit=codec.config.inter.buffer.frame)
        coded = codec.code_frame(Exact(), frame, memory, header)
        difference = Distortion()(0.8 * frame, frame)
        assert Distortion()(coded.frame, frame) < 0.1 * difference
        first = coded.frame
        for _ in range(3):
            coded = codec.code_frame(WithoutResidual(), frame, coded.memory, header)
    assert Distortion()(coded.frame, first) < 0.03 * difference, "it would be lost, or there twice"


def test_other_frameworks_start_with_finite_values():
    """Without a mask, what is clamped is the residual itself, as in the release: it cannot make a picture darker."""
    for inter, framework in (("hybrid", "residual"), ("implicit", "residual"), ("implicit", "conditional_residual")):
        torch.manual_seed(0)
        codec = HyTIP(row("hybrid", inter, tiny_config(), framework)).eval()
        initialise(codec)
        memory = HybridMemory(torch.rand(1, 3, 64, 64), explicit=codec.config.inter.buffer.frame)
        with torch.no_grad():
            for _ in range(2):
                coded = codec.code_frame(Exact(), torch.rand(1, 3, 64, 64), memory, FrameHeader(False, 30, (64, 64)))
                memory = coded.memory
        assert coded.frame.isfinite().all()


PRIORS = {"temp_prior_fusion_adaptor_0": "mv_y_prior_fusion_adaptor_temp_0", "prior_fusion": "PA"}
NEIGHBOURS = {                                   # (before, after) -> what starts anew, as regular expressions of names
    (("hybrid", "hybrid"), ("hybrid", "hybrid")): r"nothing",
    (("hybrid", "hybrid"), ("hybrid", "implicit")):
        r"CondMotion\.pred_prior\.0\.weight|Residual\.frame_feature_generator\.",
    (("hybrid", "hybrid"), ("explicit", "explicit")): r"CondMotion\.mv_y_prior_fusion_adaptor_temp_1\.",
    (("explicit", "explicit"), ("hybrid", "hybrid")):
        r"CondMotion\.(feature_generator|feature_extractor\.fusion|temp_prior_fusion_adaptor_1)\."
        r"|Residual\.(feature_adaptor|frame_feature_generator|y_prior_fusion_adaptor_1)\."}


def carried(before: tuple[str, str], after: tuple[str, str], restore: str, path) -> tuple[dict, dict, dict]:
    """Entries before, and after as they started and as they are then."""
    source = seeded_network(row(*before, tiny_config()))
    network = TrainedNetwork(HyTIP(row(*after, tiny_config())))
    torch.save(source.layout(epoch=1), path)
    fresh = {name: value.clone() for name, value in network.entries()}
    start_from_checkpoint(network, path, restore)
    return dict(source.entries()), fresh, dict(network.entries())


def origin(name: str, old: dict) -> str:
    """The name before: the priors of motion have two."""
    for one, other in (pair for names in PRIORS.items() for pair in (names, names[::-1])):
        if name not in old:
            name = re.sub(rf"^CondMotion\.{one}\.", f"CondMotion.{other}.", name)
    return name


@pytest.mark.parametrize("before, after", NEIGHBOURS)
def test_from_a_neighbour(before, after, tmp_path):
    old, fresh, now = carried(before, after, "neighbour", tmp_path / "a.pth.tar")
    for name, value in now.items():
        expected = fresh[name] if re.match(NEIGHBOURS[before, after], name) else old[origin(name, old)]
        assert torch.equal(value, expected), name


@pytest.mark.parametrize("after", [("explicit", "explicit"), ("hybrid", "hybrid"), ("hybrid", "implicit"),
                                   ("implicit", "explicit")])
def test_the_common_start(after, tmp_path):
    """Rows get the same of it, and the row that the weights come from no more than others."""
    old, fresh, now = carried(("hybrid", "hybrid"), after, "buffering", tmp_path / "a.pth.tar")
    new = {name for name in now if name.startswith(REMEMBERING)}
    assert new
    for name, value in now.items():
        assert torch.equal(value, fresh[name] if name in new else old[origin(name, old)]), name
