"""Half precision: what computes in it, streams that record it, and what it costs."""
import io
from dataclasses import replace

import pytest
import torch
from stream_helpers import clip, decode, encode_parts, exact_model
from torch import nn

from helpers import STEPS, full_config, seeded_model, tiny_config
from models.catalogue import build_codec, find_model
from models.codec import FrameHeader
from models.entropy.coder import Estimator
from models.hytip.codec import HyTIP
from models.layers import bands
from models.layers.blocks import GateBlock, PlainBlock, SumBlock
from models.layers.formats import compute_in
from seeded import seeded_video
from util.arithmetic import Arithmetic
from util.checkpoint import fingerprint
from util.choices import PRECISIONS
from util.coding.codec import Codec
from util.coding.gop import CodingPlan
from util.coding.reader import StreamReader
from util.errors import InputError
from util.formats import half_copy, half_inside

HALF = PRECISIONS[1:]
CPU = torch.device("cpu")


def half_codec(precision: str) -> Codec:
    torch.set_num_threads(1)
    return Codec(exact_model(), Arithmetic(CPU, getattr(torch, precision)))


def code(network: HyTIP, frames: torch.Tensor, header_of) -> list:
    memory, outcomes = None, []
    with torch.inference_mode():
        for n, frame in enumerate(frames):
            coder = Estimator()
            coded = network.code_frame(coder, frame, memory, header_of(n, tuple(frame.shape[-2:])))
            memory = coded.memory
            outcomes.append((coded, coder.bits))
    return outcomes


def p_frames(n: int, size: tuple[int, int]) -> FrameHeader:
    return FrameHeader(intra=n == 0, qp=40, size=size, frame_type=n % 3)


def anchor_p_frames(n: int, size: tuple[int, int]) -> FrameHeader:
    return FrameHeader(intra=n == 0, qp=3, size=size)


@pytest.mark.parametrize("precision", HALF)
def test_streams_record_their_precision(precision):
    codec, frames = half_codec(precision), clip(5, 33, 47)
    parts = encode_parts(codec, frames, CodingPlan(qp=30, intra_qp=30, gop=4, reset_interval=3))
    data = b"".join(part.data for part in parts)
    assert StreamReader(io.BytesIO(data)).header.arithmetic == precision
    reader = Codec(exact_model(), Arithmetic(CPU))                 # of another precision by default: the stream decides
    decoded = decode(reader, data)
    coded = [part for part in parts if part.number is not None]
    assert len(decoded) == len(coded) == 5
    assert all(torch.equal(a.frame, b.frame) for a, b in zip(coded, decoded))
    assert reader.arithmetic.name == "float32"
    assert encode_parts(reader, frames)[1].data != encode_parts(codec, frames)[1].data


@pytest.mark.parametrize("motion, inter", STEPS)
def test_every_configuration_runs_in_half_precision(motion, inter):
    config = tiny_config(motion, inter)
    frames = seeded_video(3, 64, 64, 1)[:, None]
    header_of = p_frames if config.variable_rate else anchor_p_frames
    exact = code(Arithmetic(CPU).place(seeded_model(config)), frames, header_of)
    half = code(Arithmetic(CPU, torch.bfloat16).place(seeded_model(config)), frames, header_of)
    for (a, a_bits), (b, b_bits) in zip(exact, half):
        assert (a.frame - b.frame).abs().mean() < 0.02
        assert sum(b_bits.values()).item() == pytest.approx(sum(a_bits.values()).item(), rel=0.05)
    memory = half[-1][0].memory
    for name in ("frame", "flow", "ref_y", "ref_mv_y"):
        value = getattr(memory, name)
        assert value is None or value.dtype == torch.float32, name
    for name in ("ref_feature", "ref_mv_feature"):
        value = getattr(memory, name)
        assert value is None or value.dtype == torch.bfloat16, name


def test_a_configuration_can_keep_networks_in_float32():
    """The intra codec, and what makes contexts of the memory; streams of the same weights without that are others."""
    plain = tiny_config()
    kept = replace(plain, intra=replace(plain.intra, float32=True), inter=replace(plain.inter, float32_contexts=True))
    models = [seeded_model(config) for config in (plain, kept, replace(kept, intra=plain.intra))]
    assert len({fingerprint(model) for model in models}) == 3
    assert build_codec(find_model("small-mip")).settings == {"intra_float32": True}
    halves = [dict(half_copy(model, torch.bfloat16).named_parameters()) for model in models[:2]]
    formats = [{name.split(".")[0] + "." + name.split(".")[1]: value.dtype for name, value in half.items()
                if name.startswith(("intra.dec.", "inter.feature_adaptor", "inter.feature_extractor.",
                                    "inter.context_fusion_net.", "inter.contextual_encoder.conv1."))}
               for half in halves]
    assert set(formats[0].values()) == {torch.bfloat16} and len(formats[0]) == 6
    assert {name for name, dtype in formats[1].items() if dtype == torch.bfloat16} == {"inter.contextual_encoder"}
    frames = seeded_video(3, 64, 64, 1)[:, None]
    exact, half = (code(Arithmetic(CPU, dtype).place(models[1]), frames, p_frames)
                   for dtype in (torch.float32, torch.bfloat16))
    intra, inter = ((half[n][0].frame - exact[n][0].frame).abs().mean().item() for n in (0, 2))
    assert intra < 1e-6 < 1e-5 < inter


def test_nearly_all_arithmetic_is_in_half_precision():
    """Multiply-adds of a conditional P-frame by the format of the weights, from hooks."""
    model = Arithmetic(CPU, torch.bfloat16).place(HyTIP(full_config()))
    counts = {torch.bfloat16: 0, torch.float32: 0}

    def count(module, _, output):
        weight = module.weight
        counts[weight.dtype] += output.shape[-2] * output.shape[-1] * weight.numel()

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    memory = None
    with torch.inference_mode():
        for n, frame in enumerate(torch.zeros(3, 1, 3, 64, 64)):
            counts.update(dict.fromkeys(counts, 0))
            memory = model.code_frame(_Rounding(), frame, memory, p_frames(n, (64, 64))).memory
    assert counts[torch.bfloat16] > 0.94 * sum(counts.values())


class _Rounding:
    def code(self, residual, scale, distribution, name):
        return residual.round()

    def code_z(self, z, prior, size, name):
        return z.round()


def test_placing_half_precision_leaves_the_model_alone():
    model = exact_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    Arithmetic(CPU, torch.bfloat16).place(model)
    after = model.state_dict()
    assert all(after[name].dtype == value.dtype and torch.equal(after[name], value) for name, value in before.items())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_device_without_the_format_is_refused(monkeypatch):
    monkeypatch.setattr("util.arithmetic.is_supported", lambda dtype, device: False)
    with pytest.raises(InputError, match="--precision float16: this cpu device has no convolutions in float16"):
        Arithmetic(CPU, torch.float16).place(exact_model())


def test_parts_with_a_format_of_their_own():
    layer = nn.Linear(3, 2).double()
    x = torch.randn(4, 3, dtype=torch.float64)
    compute_in(torch.float32, [layer], outside=torch.float64)
    assert layer.weight.dtype == torch.float32 and layer(x).dtype == torch.float64
    assert torch.equal(layer(x), nn.functional.linear(x.float(), layer.weight, layer.bias).double())


@pytest.mark.parametrize("block", [GateBlock, PlainBlock, SumBlock])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("outputs", [8, 6])
def test_bands_change_nothing(block, layout, outputs, monkeypatch):
    torch.manual_seed(0)
    network = block(8, outputs).requires_grad_(False).to(memory_format=layout)
    x = torch.randn(2, 8, 37, 16).to(memory_format=layout)
    whole = network(x)                                             # gradients are on: no bands
    for limit in (1, 2 * 32 * 16 * 4 * 5, 1 << 30):                # a row, five rows or all at a time
        monkeypatch.setitem(bands.BAND_BYTES, "cpu", limit)
        with torch.no_grad():
            torch.testing.assert_close(network(x), whole, rtol=1e-6, atol=1e-6)


def test_bands_keep_hidden_tensors_small(monkeypatch):
    """No tensor within a block exceeds the limit by more than its rows at the border."""
    limit = 1 << 16
    monkeypatch.setitem(bands.BAND_BYTES, "cpu", limit)
    network, largest = SumBlock(8), []
    network.block[1].conv.register_forward_hook(lambda *args: largest.append(args[-1].numel() * 4))
    with torch.no_grad():
        network(torch.zeros(1, 8, 128, 64))
    assert max(largest) <= limit and len(largest) > 10


@pytest.mark.parametrize("motion, inter", STEPS[::4])
def test_training_in_half_precision_sees_what_evaluation_sees(motion, inter):
    """Frames, flows and latents in float32, and the same numbers but for roundings; weights stay as they were."""
    config = tiny_config(motion, inter)
    frames = seeded_video(3, 64, 64, 1)[:, None]
    header_of = p_frames if config.variable_rate else anchor_p_frames
    expected = code(Arithmetic(CPU, torch.bfloat16).place(seeded_model(config)), frames, header_of)
    trained = seeded_model(config)
    with half_inside(trained, torch.bfloat16, intra=True), torch.inference_mode():
        first = trained.code_frame(Estimator(), frames[0], None, header_of(0, (64, 64)))
    assert first.frame.dtype == torch.float32 and (first.frame - expected[0][0].frame).abs().mean() < 0.005
    memory = expected[0][0].memory
    with half_inside(trained, torch.bfloat16), torch.inference_mode():
        for n in (1, 2):
            coded = trained.code_frame(Estimator(), frames[n], memory, header_of(n, (64, 64)))
            for name, value in {"flow": coded.views["flow"], **coded.memory.tensors()}.items():
                if value is not None:
                    assert value.dtype == (torch.bfloat16 if "feature" in name else torch.float32), name
            assert (coded.frame - expected[n][0].frame).abs().mean() < 0.005
            memory = coded.memory
    assert {value.dtype for value in trained.parameters()} == {torch.float32}
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in trained.modules())
