"""What DCVC-MIP adds to DCVC-HEM: which weights make it vanish, what is carried along, what it costs."""
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from models.codec import FrameHeader
from models.entropy.coder import Estimator, Recorder, Replayer
from models.hem.config import HemConfig
from models.layers import offset_diversity, windows
from models.layers.functional import warp
from models.layers.offset_diversity import OffsetDiversity
from models.layers.windows import ResidualWindowBlock, WindowLayer, attend
from models.mip.codec import DCVCMIP
from seeded import seeded_video
from seeded_hem import seeded_hem
from seeded_mip import ROWS, row_config, seeded_mip, tiny_config
from util.checkpoint import fingerprint
from util.evaluation.complexity import buffer_size, count_macs
from util.formats import half_copy, portable_copy

SIZE = (64, 64)
HEADER = FrameHeader(False, 30, SIZE)


def code(codec, frames: int = 3, coder=Recorder):
    """An I-frame and P-frames: the coded frames and their coders."""
    memory, coded, coders = None, [], []
    for n, frame in enumerate(seeded_video(frames, *SIZE, 31)):
        coders.append(coder())
        frame = frame[None].to(next(codec.parameters()).dtype)
        with torch.no_grad():
            coded.append(codec.code_frame(coders[-1], frame, memory, replace(HEADER, intra=n == 0)))
        memory = coded[-1].memory
    return coded, coders


def equal_symbols(one: list[Recorder], other: list[Recorder]) -> bool:
    return all(a == b and torch.equal(x, y) for first, second in zip(one, other, strict=True)
               for (a, x), (b, y) in zip(first.symbols, second.symbols, strict=True))


def share(target: nn.Module, source: nn.Module) -> None:
    """Give a codec all weights of another that it has, too."""
    own = source.state_dict()
    target.load_state_dict({name: own.get(name, value) for name, value in target.state_dict().items()})


def test_row_a_is_the_base():
    base, row = seeded_hem(), DCVCMIP(tiny_config("A"))
    row.load_state_dict(base.state_dict())
    (expected, symbols), (actual, own) = code(base), code(row.eval())
    assert equal_symbols(symbols, own)
    assert all(torch.equal(a.frame, b.frame) for a, b in zip(expected, actual))
    assert list(actual[2].memory.tensors()) == list(expected[2].memory.tensors())


@pytest.mark.parametrize("row", ROWS)
def test_a_decoder_comes_to_the_same_frames(row):
    codec = seeded_mip(tiny_config(row))
    coded, coders = code(codec, 4)
    memory = None
    for n, (frame, coder) in enumerate(zip(coded, coders)):
        replayer = Replayer(coder.symbols)
        with torch.no_grad():
            decoded = codec.code_frame(replayer, None, memory, replace(HEADER, intra=n == 0))
        replayer.finish()
        assert torch.equal(decoded.frame, frame.frame)
        memory = decoded.memory
    has_condition = tiny_config(row).MIP_Params.motion_condition != "none"
    assert ("condition" in memory.tensors()) == has_condition
    if has_condition:
        assert memory.condition.shape == (1, 8, SIZE[0] // 2, SIZE[1] // 2)


@pytest.mark.parametrize("row, others", [("E", {"offset_magnitude": 20}), ("E", {"context_refine_scale": 1}),
                                         ("E", {"context_refine_scale": 2}), ("D", {"motion_condition": "offsets"})])
def test_the_fingerprint_knows_what_no_weight_shows(row, others):
    """The same weights, other frames: a stream of one must not be taken by the other."""
    config = tiny_config(row)
    one, other = (seeded_mip(replace(config, MIP_Params=replace(config.MIP_Params, **changes)))
                  for changes in ({}, others))
    assert {name: x.shape for name, x in one.state_dict().items()} == {
        name: x.shape for name, x in other.state_dict().items()}
    assert not torch.equal(code(one)[0][-1].frame, code(other)[0][-1].frame)
    assert fingerprint(one) != fingerprint(other)


def test_without_offsets_it_is_a_plain_warp():
    torch.manual_seed(0)
    block = OffsetDiversity(64, 2, 16, 2, 40)
    block.start_as_warp()
    x, flow, guidance = torch.randn(2, 64, 8, 12), 5 * torch.randn(2, 2, 8, 12), torch.randn(2, 2, 4, 6)
    torch.testing.assert_close(block(x, flow, guidance).feature, warp(x, flow), rtol=0, atol=2e-6)
    with torch.no_grad():
        block.offset.bias[0] = 0.1                                      # the first group moves by 4 pixels
    moved = block(x, flow, guidance).feature
    assert not torch.allclose(moved[:, :4], warp(x, flow)[:, :4], atol=1e-3)
    torch.testing.assert_close(moved[:, 4:], warp(x, flow)[:, 4:], rtol=0, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_groups_at_a_time_do_not_matter(monkeypatch, dtype):
    torch.manual_seed(0)
    block = OffsetDiversity(12, 0, 3, 2, 40).to(dtype)
    x, flow = torch.randn(2, 12, 8, 12, dtype=dtype), torch.randn(2, 2, 8, 12, dtype=dtype)
    expected = block(x, flow)
    for limit in (1, 2 * 4 * 2 * 2 * 4 * 8 * 12, 1 << 30):
        monkeypatch.setattr(offset_diversity, "CHUNK_BYTES", limit)
        with torch.no_grad():                                           # but for the last bits of the convolutions
            tolerance = 8 * torch.finfo(dtype).eps
            torch.testing.assert_close(tuple(block(x, flow)), tuple(expected), rtol=tolerance, atol=tolerance)


def test_the_order_of_pairs():
    """Pair g N + n is offset n of group g, x before y; masks follow all offsets; fusion stays in its group."""
    block = OffsetDiversity(4, 0, 2, 2, 8)
    nn.init.zeros_(block.offset.weight), nn.init.zeros_(block.offset.bias), nn.init.zeros_(block.fusion.bias)
    with torch.no_grad():
        block.offset.bias[2 * 3] = 100.0                                # pair 3, x: 8 pixels to the right
        block.offset.bias[2 * 4 + 3] = 100.0                            # its mask: 1
        block.fusion.weight.copy_(torch.tensor((0, 0, 1, 0) * 2 + (0, 0, 0, 1) * 2).view(4, 4, 1, 1).float())
    x = torch.randn(1, 4, 8, 32, generator=torch.Generator().manual_seed(1))
    aligned = block(x, torch.zeros(1, 2, 8, 32)).feature
    torch.testing.assert_close(aligned[:, 0], 0.5 * x[:, 0])            # offset 1 of group 0 stays, mask 1/2
    torch.testing.assert_close(aligned[:, 2, :, :24], x[:, 3, :, 8:])   # offset 1 of group 1, its second channel


def test_zeros_make_the_refinement_vanish_bit_for_bit():
    with_refinement, without = seeded_mip(tiny_config("E")), DCVCMIP(tiny_config("D")).eval()
    nn.init.zeros_(with_refinement.inter.refine.conv_out.weight)
    nn.init.zeros_(with_refinement.inter.refine.conv_out.bias)
    share(without, with_refinement)
    (expected, symbols), (actual, own) = code(without), code(with_refinement)
    assert equal_symbols(symbols, own)
    assert all(torch.equal(a.frame, b.frame) for a, b in zip(expected, actual))


def test_windows_do_not_see_each_other_but_by_the_shift():
    torch.manual_seed(0)
    plain, shifted = (WindowLayer(8, 2, 4, shift, 2) for shift in (0, 2))
    x = torch.randn(1, 12, 16, 8)
    for layer, reached in ((plain, (slice(0, 4), slice(4, 8))), (shifted, (slice(0, 2), slice(2, 6)))):
        y = x.clone()
        y[0, 1, 5, 0] += 1                                              # norms do not see a shift of all channels
        changed = (layer(x) != layer(y)).any(-1)[0]
        inside = torch.zeros(12, 16, dtype=torch.bool)
        inside[reached] = True
        assert changed[inside].all() and not changed[~inside].any()


@pytest.mark.parametrize("size", [(8, 16), (10, 13)])
def test_bands_of_windows_do_not_matter(monkeypatch, size):
    torch.manual_seed(0)
    block = ResidualWindowBlock(8, 2, 4, 2, 1).double()
    x = torch.randn(2, 8, *size, dtype=torch.float64)
    expected = block(x)
    monkeypatch.setitem(windows.CHUNK_BYTES, "cpu", 1)
    with torch.no_grad():
        torch.testing.assert_close(block(x), expected, rtol=1e-12, atol=1e-12)


def test_written_out_attention_equals_the_fused_kernel():
    torch.manual_seed(0)
    q, k, v, bias = torch.randn(3, 5, 4, 16, 2), *torch.randn(2, 5, 4, 16, 2), torch.randn(5, 4, 16, 16)
    q = q[0]
    written = attend(*(x.double() for x in (q, k, v, bias)))
    torch.testing.assert_close(attend(q, k, v, bias), written.float(), rtol=1e-5, atol=1e-6)


def test_the_motion_codec_knows_the_last_refinement():
    """Condition and third prior: another condition, other motion bits; zeros stand for none."""
    codec = seeded_mip(tiny_config("E"))
    coded, _ = code(codec, 2)
    frame, memory = seeded_video(3, *SIZE, 31)[2:], coded[1].memory

    def bits(condition):
        coder = Estimator()
        codec.code_frame(coder, frame, replace(memory, condition=condition), HEADER)
        return coder.bits["my"].item()
    assert bits(None) == bits(torch.zeros_like(memory.condition)) != bits(memory.condition)
    hyper, flow = torch.zeros(1, 16, 4, 4), torch.zeros(1, 2, *SIZE)
    for seen in (partial(codec.motion.known, hyper), partial(codec.motion.analyse, flow)):
        assert not torch.equal(seen(memory), seen(replace(memory, condition=None)))


def test_an_i_frame_forgets_the_condition():
    coded, _ = code(seeded_mip(tiny_config("E")), 1)
    assert list(coded[0].memory.tensors()) == ["frame"]


def test_what_there_is_to_see():
    coded, _ = code(seeded_mip(tiny_config("B")), 2)
    offset, mask = coded[1].views["residual_offset"], coded[1].views["offset_mask"]
    assert offset.shape == (1, 2, 32, 32) and offset.abs().max() <= 40 and offset.any()
    assert mask.shape == (1, 1, 32, 32) and mask.min() > 0 and mask.max() < 1
    assert not {"residual_offset", "offset_mask"} & code(seeded_mip(tiny_config("A")), 2)[0][1].views.keys()


@pytest.mark.parametrize("row", ["D_offsets", "D_od4", "D_entropy", "E"])
def test_number_formats(row):
    """Offsets stay in float32 where features are not; all that is remembered in portable streams is float64."""
    codec = seeded_mip(tiny_config(row))
    expected, _ = code(codec)
    portable, _ = code(portable_copy(codec))
    assert all(x.dtype == torch.float64 for x in portable[1].memory.tensors().values())
    torch.testing.assert_close(portable[1].frame.float(), expected[1].frame, rtol=0, atol=0.02)
    half, _ = code(half_copy(codec, torch.bfloat16))
    assert half[1].views["residual_offset"].dtype == torch.float32 and half[1].frame.dtype == torch.float32
    torch.testing.assert_close(half[1].frame, expected[1].frame, rtol=0, atol=0.1)


PAPER = {"A": 3269.16, "B": 3333.89, "B_flow": 3334.45, "C": 3352.01, "D": 3368.10, "D_offsets": 3368.10, "E": 3386.25,
         "D_tcr1": 3658.52, "D_tcr2": 3440.71, "D_od4": 3373.28, "D_entropy": 3394.59}
DECODE = {"A": 1241.12, "D": 1288.88, "E": 1298.11, "D_entropy": 1302.35}


def shapes_of(row: str) -> DCVCMIP:
    """A codec of full width without values: counts need shapes only."""
    with torch.device("meta"):
        return DCVCMIP(row_config(row)).eval().requires_grad_(False)


@pytest.mark.parametrize("row", [row if row in ("E", "D_od4") else pytest.param(row, marks=pytest.mark.slow)
                                 for row in ROWS])
def test_complexity_in_the_counting_of_the_paper(row):
    """Multiply-adds in G at 1920x1024, from the count per pixel at another multiple of 64."""
    codec = shapes_of(row)
    assert count_macs(codec).ptflops * 1920 * 1024 / 1e6 == pytest.approx(PAPER[row], abs=0.01)
    if row in DECODE:
        assert count_macs(codec, decode=True).ptflops == pytest.approx(DECODE[row], abs=0.01)


def test_buffer():
    for row, encoder, decoder in (("A", 67.625, 64.625), ("C", 67.625, 64.625), ("E", 83.625, 80.625)):
        size = buffer_size(shapes_of(row))
        assert (size.encoder, size.decoder) == (encoder, decoder)


def test_widths_are_those_of_the_base():
    base = HemConfig()
    assert all(getattr(row_config(row), key) == value for row in ROWS for key, value in vars(base).items())
