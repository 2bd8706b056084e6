"""ST-XCT as a codec: it is DCVC-HEM where transformers are off or new; what a block keeps to; what there is to see."""
import copy
from dataclasses import replace

import pytest
import torch

from benchmarks.machine import peak_memory
from config.loader import build_config
from helpers import ROOT, tiny_codec_model
from models.catalogue import configure, find_model
from models.codec import FrameHeader
from models.entropy.coder import Recorder
from models.entropy.training import TrainingEstimator, no_noise
from models.hem.config import HemConfig
from models.layers import bands
from models.st_xct.blocks import Fuse, TransformerBlock
from models.st_xct.codec import STXCT
from models.st_xct.config import LargePlace, PriorPlace, SmallPlace, XctConfig, XctParams
from models.st_xct.slots import SlotConv, rows_of
from seeded import seeded_video
from seeded_hem import seeded_hem
from seeded_xct import ALL, FEW_BLOCKS, SMALL_XCT, seeded_value, seeded_xct, with_params
from util.errors import InputError
from util.formats import half_copy, half_inside, portable_copy

SIZE = (64, 64)
SWITCHES = {"none": {}, "all": ALL, "TFE": {"Add_TFE": True}, "THEM": {"Add_THEM": True}, "TFD": {"Add_TFD": True}}
BASE = HemConfig(**{key: getattr(SMALL_XCT, key) for key in HemConfig.__dataclass_fields__})


@pytest.fixture(scope="module")
def clip():
    return seeded_video(3, *SIZE, 31)


def code(codec, clip, coder=Recorder):
    memory, coded, coders = None, [], []
    with torch.no_grad():
        for n, frame in enumerate(clip):
            coders.append(coder())
            coded.append(codec.code_frame(coders[-1], frame[None], memory, FrameHeader(n == 0, 30, SIZE)))
            memory = coded[-1].memory
    return coded, coders


@pytest.fixture(scope="module")
def base(clip):
    return code(seeded_hem(BASE), clip)


def identities(codec):
    """Every block's last convolutions at zero, as in new ones."""
    for name, parameter in codec.named_parameters():
        if ".xct_" in f".{name}" and ".project_out." in name:
            parameter.zero_()
    return codec


@pytest.mark.parametrize("conv3d", ["dense", "depthwise"])
@pytest.mark.parametrize("places", SWITCHES)
def test_without_transformers_or_with_new_ones_it_is_the_base(clip, base, places, conv3d):
    params = XctParams(**SWITCHES[places], **FEW_BLOCKS, conv3d=conv3d, bias=conv3d == "depthwise")
    codec = identities(seeded_xct(replace(SMALL_XCT, XCT_Params=params)))
    assert any(".xct_" in name for name in codec.state_dict()) == (places != "none")
    (expected, recorders), (actual, own) = base, code(codec, clip)
    for a, b, symbols, others in zip(expected, actual, recorders, own):
        assert torch.equal(a.frame, b.frame)
        assert all(torch.equal(x, y) for (_, x), (_, y) in zip(symbols.symbols, others.symbols, strict=True))
        assert symbols.bits == others.bits


@pytest.mark.parametrize("places", ["TFE", "THEM", "TFD"])
def test_each_place_matters(clip, base, places):
    codec = seeded_xct(replace(SMALL_XCT, XCT_Params=XctParams(**SWITCHES[places], **FEW_BLOCKS)))
    coded, coders = code(codec, clip[:2])
    changed = {"TFE": "y", "THEM": "bits", "TFD": "frame"}[places]
    assert torch.equal(coded[0].frame, base[0][0].frame)
    assert not torch.equal(coded[1].frame, base[0][1].frame)
    symbols, before = coders[1].symbols, base[1][1].symbols
    assert torch.equal(symbols[3][1], before[3][1]) == (changed != "y"), "the hyper latent follows from y alone"
    assert (coders[1].bits["ry"] == base[1][1].bits["ry"]) == (changed == "frame")


def test_a_new_codec_starts_as_the_base():
    torch.manual_seed(0)
    codec = STXCT(SMALL_XCT)
    codec.for_training().initialise(codec, None)
    for name, value in codec.state_dict().items():
        if ".xct_" in f".{name}":
            expected = {"temperature": 1, "bias": 0}.get(name.split(".")[-1], 0 if "project_out" in name else None)
            expected = 1 if "norm" in name and name.endswith("weight") else expected
            assert bool(value.std() > 0) if expected is None else bool((value == expected).all()), name


def test_weights_of_the_base_fill_all_but_the_transformers():
    codec = STXCT(SMALL_XCT)
    own = {f"{codec.plain_roots()[root]}.{rest}" for root, rest in (n.split(".", 1) for n in codec.state_dict())}
    filled = set()
    image, video = codec.for_training().pretrained(False)
    for name in seeded_hem(BASE).state_dict():
        file, rest = codec.released_name(name).split(".", 1)
        offered = [new for new in (image if file == "image" else video).rule(rest) if new in own]
        assert len(offered) == 1, name
        filled.update(offered)
    assert {name for name in own if ".xct_" not in name} == filled


# Blocks

def block_and_input(depthwise=False, batch=2, channels=16):
    torch.manual_seed(3)
    block = TransformerBlock(channels, LargePlace(heads=2, FFG_factor=2), depthwise, bias=True)
    for name, parameter in block.named_parameters():
        parameter.data = seeded_value(f"video.contextual_encoder.xct_large.0.{name}", parameter.data)
    return block, torch.randn(batch, 2 * channels, 7, 5)


@pytest.mark.parametrize("depthwise", [False, True])
def test_planar_convolutions_are_three_dimensional_ones(depthwise):
    torch.manual_seed(0)
    first = SlotConv(6, 12, 1, bias=True)
    second = SlotConv(12, 4, 3, 4 if depthwise else 2, bias=True)
    x = torch.randn(2, 6, 2, 5, 4)
    expected = second(first(x)).chunk(2, 1)
    rows = rows_of(x.transpose(1, 2).flatten(1, 2), 0, 5)
    for part in range(2):
        found = second.spatial(part, 2)(rows.map(first.pointwise(part, 2)))
        torch.testing.assert_close(found.unflatten(1, (2, -1)).transpose(1, 2), expected[part])


@pytest.mark.parametrize("depthwise", [False, True])
def test_bands_and_batches_change_nothing(monkeypatch, depthwise):
    block, x = block_and_input(depthwise)
    with torch.no_grad():
        whole = block(x)
        monkeypatch.setitem(bands.BAND_BYTES, "cpu", 2 * 32 * 5 * 4)         # two rows of one sample
        torch.testing.assert_close(block(x), whole)
        torch.testing.assert_close(torch.cat([block(sample) for sample in x.split(1)]), block(x))


@pytest.mark.parametrize("depthwise", [False, True])
def test_a_block_holds_its_input_its_output_and_one_more(monkeypatch, depthwise):
    """In joint features; all else is bands. Without them it takes ten (dense), thirteen (depthwise)."""
    monkeypatch.setitem(bands.BAND_BYTES, "cpu", 1 << 20)
    block = TransformerBlock(64, LargePlace(), depthwise, bias=False).requires_grad_(False)
    x = torch.randn(1, 128, 192, 384)
    size = x.numel() * 4 / 2 ** 30
    with torch.inference_mode():
        block(x[..., :8])
        with peak_memory(torch.device("cpu")) as before:
            pass
        with peak_memory(torch.device("cpu")) as peak:
            block(x)
    if peak.GiB is None:
        pytest.skip("this system does not tell the memory of a process")
    assert 1 < (peak.GiB - before.GiB) / size < 3


@pytest.mark.parametrize("depthwise", [False, True])
def test_in_float64_convolutions_are_pytorchs(depthwise):
    block, x = block_and_input(depthwise)
    block, x = block.double(), x.double()
    with torch.no_grad():
        fast = block(x)
    torch.testing.assert_close(block(x.requires_grad_()), fast)             # gradients need PyTorch's own


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_forgetting_changes_no_gradient(dtype):
    """In training, blocks are computed again for gradients; under autocast, too."""
    params = XctParams(**ALL)
    place = Fuse(16, LargePlace(blocks=2), params)
    for name, parameter in place.named_parameters():
        parameter.data = seeded_value(f"video.contextual_encoder.xct_large.{name}", parameter.data)
    a, b = torch.randn(2, 2, 16, 6, 5, generator=torch.Generator().manual_seed(1))

    def gradients(module):
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            out = module(a, b)
        out.float().square().sum().backward()
        return out, [parameter.grad for parameter in module.parameters()]
    out, kept = gradients(copy.deepcopy(place).eval())
    again, forgotten = gradients(place.train())
    assert torch.equal(out, again)
    for x, y in zip(kept, forgotten, strict=True):
        assert x.any() and torch.equal(x, y)


def test_half_precision_sums_in_float32():
    """The squares of large queries would overflow float16."""
    block, _ = block_and_input()
    x = torch.randn(1, 32, 24, 24, generator=torch.Generator().manual_seed(0))
    block.requires_grad_(False)
    block.attn.qkv.weight *= 50
    exact = block.attn.weights([rows_of(x, 0, 24).map(block.norm1)])
    for dtype in (torch.float16, torch.bfloat16):
        half = copy.deepcopy(block).to(dtype)
        rough = half.attn.weights([rows_of(x.to(dtype), 0, 24).map(half.norm1)])
        assert rough.dtype == torch.float32 and half.norm1(x.to(dtype)).dtype == dtype
        assert (rough - exact).abs().max() < 0.01 * exact.max()


def test_training_in_half_precision_reaches_every_gate(clip):
    """Gradients come to temperatures, both slots and both branches of each place."""
    codec = tiny_codec_model("st-xct").train().requires_grad_(True)
    coder, memory = TrainingEstimator(no_noise), codec.remember_frame(clip[:1])
    with half_inside(codec, torch.bfloat16):
        coded = codec.code_frame(coder, clip[1:2], memory, FrameHeader(False, 30, SIZE))
    (coded.frame.sum() + sum(bits.sum() for bits in coder.bits.values())).backward()
    for name, parameter in codec.inter.named_parameters():
        if "xct_" in name:
            parts = {"temperature": 1, "branch_in": 2, "branch_conv": 2, "qkv": 3, "qkv_conv": 3}
            part = next((count for key, count in parts.items() if f".{key}" in name), 1)
            assert all(piece.any() and piece.isfinite().all() for piece in parameter.grad.chunk(part)), name


@pytest.mark.parametrize("make", [lambda codec: half_copy(codec, torch.bfloat16), portable_copy])
def test_other_formats_are_close(clip, make):
    codec = seeded_xct()
    expected, _ = code(codec, clip[:2])
    other = make(codec)
    dtype = torch.float64 if make is portable_copy else torch.float32
    actual, _ = code(other, clip[:2].to(dtype))
    assert actual[1].frame.dtype == dtype and (actual[1].frame - expected[1].frame).abs().mean() < 0.02


def test_attention_can_be_seen(clip):
    codec = seeded_xct()
    memory = code(codec, clip[:1])[0][0].memory
    with torch.no_grad(), codec.watched_attention() as maps:
        views = codec.code_frame(Recorder(), clip[1:2], memory, FrameHeader(False, 30, SIZE)).views
    assert {place: (len(found), *found[0].shape) for place, found in maps.items()} == {
        "contextual_encoder.xct_large": (1, 1, 2, 8, 8), "contextual_encoder.xct_small": (2, 1, 2, 8, 8),
        "contextual_decoder.xct_large": (1, 1, 2, 8, 8), "contextual_decoder.xct_small": (2, 1, 2, 8, 8),
        "xct_prior": (2, 1, 6, 8, 8)}
    for found in maps.values():
        assert all(torch.allclose(weights.sum(-1), torch.ones(())) for weights in found)
    assert views["attention"].shape == (1, 1, 17, 17 + 9 + 17 + 9 + 53)
    for place, left in {"contextual_decoder.xct_small": 0, "contextual_decoder.xct_large": 26, "xct_prior": 52}.items():
        assert torch.equal(views["attention"][0, 0, :8, left:left + 8], maps[place][0][0, 0]), place
    assert not any(block._forward_hooks for block in codec.modules())


# Configuration

def test_absent_parameters_are_the_base_and_present_ones_those_of_the_table():
    assert build_config("x.yml", "model_params", {}, XctConfig).XCT_Params == XctParams()
    params = build_config("x.yml", "model_params", {"XCT_Params": {"Add_THEM": True, "THEM": {"heads": 3}}}, XctConfig)
    assert params.XCT_Params == XctParams(Add_THEM=True, THEM=PriorPlace(blocks=16, heads=3, FFG_factor=3))
    assert (LargePlace(), SmallPlace(), PriorPlace()) == (
        LargePlace(blocks=4, heads=2, FFG_factor=1), SmallPlace(blocks=6, heads=2, FFG_factor=1),
        PriorPlace(blocks=16, heads=6, FFG_factor=3))


@pytest.mark.parametrize("given, message", [
    ({"Add_TFX": True}, "unknown key 'Add_TFX' in model_params.XCT_Params"),
    ({"THEM": {"head": 2}}, "unknown key 'head' in model_params.XCT_Params.THEM"),
    ({"Add_TFE": True, "TFE_small": {"heads": 5}}, "TFE_small.heads 5 must divide the 64 channels"),
    ({"Add_THEM": True, "THEM": {"heads": 5}}, "THEM.heads 5 must divide the 192 channels"),
    ({"conv3d": "separable"}, "XCT_Params.conv3d: 'separable' is not allowed; use one of dense, depthwise"),
    ({"up1_conv": 128}, "XCT_Params.up1_conv: 128 is not allowed"),
    ({"up1_conv": 100}, "up1_conv 100 needs Add_TFD"),
    ({"TFE_large": {"blocks": 0}}, "TFE_large.blocks: 0 is not allowed")])
def test_bad_parameters_are_named(given, message):
    with pytest.raises(InputError, match=message):
        build_config("x.yml", "model_params", {"XCT_Params": given}, XctConfig)


def test_the_shipped_configurations():
    shipped = {path.stem: configure(find_model(path)) for path in (ROOT / "config" / "st_xct").glob("*.yml")}
    for name, config in shipped.items():
        params, places = config.XCT_Params, set(name.removesuffix("_depthwise").split("_"))
        on = {place for place in ("TFE", "THEM", "TFD") if getattr(params, f"Add_{place}")}
        assert on == ({"TFE", "THEM", "TFD"} if places == {"all"} else places - {"base"})
        assert config == replace(XctConfig(), XCT_Params=XctParams(
            **{f"Add_{place}": True for place in on}, conv3d="depthwise" if "depthwise" in name else "dense"))
    assert shipped.keys() == {"base", "all", "all_depthwise", "TFE", "THEM", "TFD", "TFE_THEM", "THEM_TFD", "TFE_TFD"}
    assert with_params(up1_conv=100).XCT_Params.up1_conv == 100
