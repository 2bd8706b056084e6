"""Every buffering strategy of HyTIP's Tables A1 and A2, and the four frameworks: what is kept, and that it suffices."""
import csv
import io
import math
from dataclasses import replace
from functools import lru_cache

import pytest
import torch

from helpers import ROOT, seeded_model, tiny_config
from models.catalogue import build_codec, configure, find_model
from models.codec import FrameHeader
from models.entropy.coder import Estimator, Recorder, Replayer
from models.entropy.training import TrainingEstimator, no_noise
from models.hytip.codec import HyTIP
from models.hytip.config import FRAMEWORKS, InterBuffer, MotionBuffer
from seeded import seeded_video
from util.arithmetic import choose_arithmetic
from util.coding.codec import Codec
from util.coding.gop import CodingPlan
from util.evaluation.complexity import buffer_size, count_macs, parameters

FOLDER = ROOT / "config" / "hytip" / "buffering"
ROWS = sorted(path.stem for path in FOLDER.glob("*.yml"))
SIZE = (64, 96)


def numbers(row: str) -> tuple[float, float]:
    """Full-resolution channels of motion and frame that a row's name counts."""
    return tuple(sum(map(float, part.split("_")[1].split("+"))) for part in row.split("__"))


def tiny(motion: MotionBuffer, inter: InterBuffer, framework: str = "masked_conditional_residual") -> HyTIP:
    config = tiny_config()
    return seeded_model(replace(config, motion=replace(config.motion, buffer=motion),
                                inter=replace(config.inter, buffer=inter, framework=framework)))


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def tiny_row(row: str) -> HyTIP:
    """The row at the widths of the tests; what it remembers is as wide as in the table."""
    config = configure(find_model(FOLDER / f"{row}.yml"))
    return tiny(config.motion.buffer, config.inter.buffer)


def header(n: int) -> FrameHeader:
    return FrameHeader(intra=n == 0, qp=30, size=SIZE, frame_type=(0, 1, 0, 2)[n % 4])


@torch.no_grad()
def recorded(model: HyTIP, frames: int = 4):
    memory, coded, recorders = None, [], [Recorder() for _ in range(frames)]
    for n, frame in enumerate(seeded_video(frames, *SIZE, 1)[:, None]):
        coded.append(model.code_frame(recorders[n], frame, memory, header(n)))
        memory = coded[-1].memory
    return coded, recorders


def test_there_are_the_seventeen_rows_of_the_tables():
    motion, inter = zip(*(row.split("__") for row in ROWS))
    assert len(ROWS) == 17
    assert set(motion) == {"explicit_2+0", *(f"hybrid_2+{n}" for n in ("4", "0.1875", "0.125", "0.0625")),
                           *(f"implicit_0+{n}" for n in ("4", "2.1875", "2.125", "2.0625"))}
    assert set(inter) == {"explicit_3+0", *(f"hybrid_3+{n}" for n in (48, 3, 2, 1)),
                          *(f"implicit_0+{n}" for n in (51, 6, 5, 4))}
    assert all("explicit_3+0" in row or row.startswith("hybrid_2+0.125__") for row in ROWS)


@pytest.mark.parametrize("row", ROWS)
def test_the_decoder_keeps_what_the_row_counts(row):
    parts = buffer_size(tiny_row(row)).parts
    kept = {"motion": ("flow", "ref_mv_feature"), "inter": ("frame", "ref_feature")}
    for (network, names), channels in zip(kept.items(), numbers(row)):
        assert sum(parts.get(name, 0) for name in names) == channels, network
    explicit = [part.startswith("explicit") for part in row.split("__")]
    assert ("ref_mv_y" in parts, "ref_y" in parts) == tuple(not name for name in explicit)


@pytest.mark.parametrize("row", ROWS)
def test_nothing_else_is_needed_to_decode(row):
    model = tiny_row(row)
    coded, recorders = recorded(model)
    memory = None
    with torch.no_grad():
        for n, recorder in enumerate(recorders):
            if n > 1:                                             # before that the I-frame is there, for every row
                lost = memory.tensors().keys() - memory.tensors(decoder=True).keys()
                assert (lost == {"frame"}) == row.split("__")[1].startswith("implicit")
                memory = replace(memory, **{name: torch.full_like(getattr(memory, name), math.nan) for name in lost})
            again = model.code_frame(Replayer(recorder.symbols), None, memory, header(n))
            assert torch.equal(again.frame, coded[n].frame)
            memory = again.memory


@pytest.mark.parametrize("row", ROWS)
def test_gradients_reach_the_first_implicit_feature(row):
    """Of the third P-frame's loss; through what is remembered, and through it alone."""
    model = tiny_row(row)
    buffers = model.config.inter.buffer, model.config.motion.buffer
    memory, features = None, []
    for n, frame in enumerate(seeded_video(4, *SIZE, 2)[:, None]):
        coded = model.code_frame(Estimator() if n == 0 else TrainingEstimator(no_noise), frame, memory, header(n))
        memory = replace(coded.memory, frame=coded.memory.frame.detach())
        if memory.flow is not None:
            memory = replace(memory, flow=memory.flow.detach())
        if n == 1:
            features = [x.requires_grad_() for x in (memory.ref_feature, memory.ref_mv_feature) if x is not None]
    assert len(features) == sum(buffer.feature is not None for buffer in buffers)
    if features:
        coded.frame.square().mean().backward()
        assert all(x.grad.any() and x.grad.isfinite().all() for x in features)
    else:
        assert not coded.frame.requires_grad


@pytest.mark.parametrize("row", ROWS[::3])
@pytest.mark.parametrize("portable, precision", [(False, "float32"), (True, "float32"), (False, "bfloat16")])
def test_streams(row, portable, precision):
    codec = Codec(tiny_row(row), choose_arithmetic("cpu", threads=1, precision=precision))
    frames = [(frame * 255).round().byte() for frame in seeded_video(4, 40, 56, 3)]
    parts = list(codec.encode(frames, CodingPlan(qp=30, intra_qp=30, reset_interval=3), portable=portable))
    decoded = list(codec.decode(io.BytesIO(b"".join(part.data for part in parts))))
    assert all(torch.equal(a.frame, b.frame) for a, b in zip(parts[1:-1], decoded, strict=True))


STRATEGIES = {"explicit": (MotionBuffer(flow=True, feature=None, latent=False),
                           InterBuffer(frame=True, feature=None, latent=False)),
              "hybrid": (MotionBuffer(flow=True, feature=2, latent=True),
                         InterBuffer(frame=True, feature=2, latent=True)),
              "implicit": (MotionBuffer(flow=False, feature=34, latent=True),
                           InterBuffer(frame=False, feature=5, latent=True))}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_frameworks(framework, strategy):
    """They code, and replay; what is subtracted, and what sees the contexts, is what the name says."""
    model = tiny(*STRATEGIES[strategy], framework)
    coded, recorders = recorded(model, 3)
    memory = None
    with torch.no_grad():
        for n, recorder in enumerate(recorders):
            again = model.code_frame(Replayer(recorder.symbols), None, memory, header(n))
            assert torch.equal(again.frame, coded[n].frame)
            memory = again.memory
    views = coded[2].views
    assert ("mask" in views) == (framework == "masked_conditional_residual")
    assert ("prediction" in views) == (framework != "conditional")
    encoder, first = model.inter.contextual_encoder, model.inter.recon_generation_net.first_conv
    adaptor = model.inter.y_prior_fusion_adaptor_0.block[0]
    widths = encoder.conv1.in_channels, first.in_channels, adaptor.conv2.in_channels
    c = model.config.inter
    assert widths == ((3, c.recon_channel, c.g_ch_16x) if framework == "residual" else
                      (3 + c.g_ch_1x, c.recon_channel + c.g_ch_1x, 2 * c.g_ch_16x))


@pytest.mark.parametrize("motion", STRATEGIES)
@pytest.mark.parametrize("inter", STRATEGIES)
def test_the_other_pairs_build_and_code(motion, inter):
    model = tiny(STRATEGIES[motion][0], STRATEGIES[inter][1])
    coded, _ = recorded(model, 3)
    assert all(frame.frame.isfinite().all() for frame in coded)
    sees = 3 * STRATEGIES[inter][1].frame + 2 * STRATEGIES[motion][0].flow
    assert (model.motion.pred_prior is None) == (sees == 0)
    assert sees == 0 or model.motion.pred_prior[0].in_channels == sees


def pinned() -> dict[str, dict[str, float]]:
    """Of each row at full width: parameters, kMAC/pixel of encoding and decoding, full-resolution channels kept."""
    with (ROOT / "tests" / "data" / "hytip_buffering.tsv").open(newline="") as file:
        return {row.pop("row"): {key: float(value) for key, value in row.items()}
                for row in csv.DictReader(file, delimiter="\t")}


@pytest.mark.parametrize("row", ROWS)
def test_parameters_of_rows(row):
    with torch.device("meta"):                                    # shapes without values
        model = build_codec(find_model(FOLDER / f"{row}.yml"))
    assert sum(parameters(model).values()) == pinned()[row]["parameters"]


@pytest.mark.parametrize("row", ["implicit_0+4__explicit_3+0", "hybrid_2+0.125__implicit_0+5"])
def test_complexity_of_rows(row):
    """At full width, of small frames: figures per pixel are the same."""
    model = build_codec(find_model(FOLDER / f"{row}.yml")).eval().requires_grad_(False)
    known, size = pinned()[row], (64, 64)
    assert count_macs(model, size=size).total == pytest.approx(known["encode"], abs=1e-3)
    assert count_macs(model, decode=True, size=size).total == pytest.approx(known["decode"], abs=1e-3)
    buffer = buffer_size(model, size)
    assert (buffer.encoder, buffer.decoder) == (known["encoder_buffer"], known["decoder_buffer"])


def test_what_a_channel_of_the_feature_costs():
    """By hand: 3x3 from 48 channels with a bias, and one more input of a 1x1 to 48; at 1/4 for motion, 64 channels."""
    rows = pinned()
    for key in ("encode", "decode"):
        inter = rows["hybrid_2+0.125__hybrid_3+48"][key] - rows["hybrid_2+0.125__hybrid_3+2"][key]
        assert inter == pytest.approx(46 * (9 * 48 + 1 + 48) / 1000, abs=2e-3)
        motion = rows["hybrid_2+0.1875__explicit_3+0"][key] - rows["hybrid_2+0.125__explicit_3+0"][key]
        assert motion == pytest.approx((9 * 64 + 1 + 9 * 64) / 16 / 1000, abs=2e-3)


def test_rows_are_listed_with_their_size(hytip):
    status, out, _ = hytip("--list_models")
    assert status == 0
    for row, known in pinned().items():
        size = find_model(FOLDER / f"{row}.yml").size
        assert size["parameters"] == pytest.approx(known["parameters"] / 1e6, abs=6e-4)
        for key, own in (("encode", "encode"), ("decode", "decode"), ("buffer", "decoder_buffer")):
            assert size[key] == pytest.approx(known[own], abs=0.06 if key != "buffer" else 1e-6)
        line, = (line.split() for line in out.splitlines() if line.startswith(f"config/hytip/buffering/{row}.yml"))
        assert line[1:] == [f"{size['parameters']:.1f}", f"{size['encode']:.0f}", f"{size['decode']:.0f}",
                            f"{size['buffer']:.3f}"]
