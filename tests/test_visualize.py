"""util/visualize.py: what the pictures show, the map of bits, and the contact sheet."""
import numpy as np
import pytest
import torch
from PIL import Image

from helpers import seeded_model, tiny_config
from models.codec import CodedFrame, FrameHeader, Latent, Memory
from models.entropy.coder import Estimator
from models.spatial_prior import INTER_SCHEDULE, passes
from seeded import seeded_video
from util.contact_sheet import CAPTIONS, KEY_WIDTH, THUMB, Row, colour_wheel, colours, contact_sheet, with_key
from util.visualize import SHEET_ROWS, BitMapper, Pictures, figures_of, frame_pictures

SIZE = (40, 56)
ALIGNED = (48, 64)


@pytest.fixture(scope="module", params=[("Motion", "Inter"), ("Motion_Explicit", "Inter_CRC_Explicit")],
                ids=["four passes", "one pass"])
def coded(request):
    """Latents, source, coders and outcome of an I- and a P-frame."""
    model = seeded_model(tiny_config(*request.param))
    clip = seeded_video(2, *ALIGNED, 1)[:, None]
    results, memory = [], None
    with torch.no_grad():
        for n, frame in enumerate(clip):
            header = FrameHeader(intra=n == 0, qp=2, size=ALIGNED)
            mapper, plain = BitMapper(), Estimator()
            frame_coded = model.code_frame(mapper, frame, memory, header)
            model.code_frame(plain, frame, memory, header)
            results.append((model.latents(n == 0), frame, mapper, plain, frame_coded))
            memory = frame_coded.memory
    return results


def test_maps_sum_up_to_the_bits(coded):
    for own, _, mapper, plain, _ in coded:
        total = sum(value.item() for value in plain.bits.values())
        assert sum(value.item() for value in mapper.bits.values()) == total
        bits = mapper.bits_map(own, ALIGNED)
        assert bits.shape == ALIGNED and bits.min() >= 0 and bits.sum().item() == pytest.approx(total, rel=1e-5)


def test_bits_lie_where_the_latent_lies():
    """A single expensive symbol, in each of the four passes: its 16x16 pixels, and nothing else."""
    latent = Latent("ry", 2, 16, None, passes=lambda size, device: passes(INTER_SCHEDULE, 2, size, device))
    for step, (row, column) in enumerate([(0, 0), (1, 1), (1, 0), (0, 1)]):
        mapper = BitMapper()
        for n in range(4):
            bits = torch.zeros(1, 2 * 4)                   # 2 channels, 4x4 latent: 4 positions per pass and channel
            if n == step:
                bits[0, 3] = 2                             # the last position of this class in the first channel
            mapper._count("ry", bits)
        bits = mapper.bits_map([latent], (64, 64))
        expected = torch.zeros(64, 64)
        expected[16 * (2 + row):16 * (3 + row), 16 * (2 + column):16 * (3 + column)] = 2 / 256
        assert torch.allclose(bits, expected)


def test_kinds_and_sizes(coded):
    pictures = [frame_pictures(frame[..., :SIZE[0], :SIZE[1]], result, mapper.bits_map(own, ALIGNED))
                for own, frame, mapper, _, result in coded]
    assert list(pictures[0]) == ["source", "decoded", "error", "bits"]
    masked = "mask" in coded[1][4].views
    absent = {"residual_offset", "offset_mask", "attention"} | (set() if masked else {"mask", "masked"})
    assert list(pictures[1]) == [kind for kind in CAPTIONS if kind not in absent]
    for kind, picture in pictures[1].items():
        assert picture.image.size == SIZE[::-1] and (picture.note or not picture.key)
        keyed = with_key(picture)
        if kind in ("error", "flow", "decoded_flow", "residual", "bits"):
            assert keyed.width == SIZE[1] + KEY_WIDTH and keyed.height >= SIZE[0]
        else:
            assert keyed.size == SIZE[::-1]


def made_up() -> tuple[torch.Tensor, CodedFrame]:
    original = torch.full((1, 3, *SIZE), 0.5)
    frame = torch.full((1, 3, *ALIGNED), 1.5)
    mask = torch.zeros(1, 1, *ALIGNED)
    mask[..., :10] = 1
    flow = torch.zeros(1, 2, *ALIGNED)
    flow[:, 1, :, :10] = 4
    views = {"flow": flow, "decoded_flow": 0.5 * flow, "mc": frame, "mask": mask,
             "prediction": 0.3 * mask.expand(1, 3, -1, -1)}
    return original, CodedFrame(frame, Memory(frame), views)


def test_what_is_shown():
    original, result = made_up()
    pixels = {kind: np.array(picture.image) for kind, picture in frame_pictures(original, result).items()}
    assert (pixels["source"] == 128).all() and (pixels["decoded"] == 255).all()            # ties round to even; clamped
    assert (pixels["mask"][:, :10] == 255).all() and (pixels["mask"][:, 10:] == 0).all()
    assert (pixels["prediction"] == 255).all()
    assert (pixels["masked"][:, :10] == 76).all() and (pixels["masked"][:, 10:] == 0).all()
    assert len(np.unique(pixels["error"].reshape(-1, 3), axis=0)) == 1                    # 0.5 everywhere: the far end
    assert pixels["error"].sum(2).min() > 600
    assert np.unique(pixels["residual"][:, :10]).tolist() == [153]                        # (0.5 - 0.3) / 2 + 0.5
    assert np.unique(pixels["residual"][:, 10:]).tolist() == [191]
    # the two flows share a scale: the halved one is paler, and no motion is white
    moving, halved = pixels["flow"][0, 0].astype(int), pixels["decoded_flow"][0, 0].astype(int)
    assert (pixels["flow"][0, 20] == 255).all() and halved.min() > moving.min()


def test_offsets_have_a_scale_of_their_own_and_the_size_of_the_frame():
    original, result = made_up()
    offset = torch.zeros(1, 2, ALIGNED[0] // 2, ALIGNED[1] // 2)
    offset[:, 1, :, :5] = 0.25
    views = {**result.views, "residual_offset": offset, "offset_mask": torch.where(offset[:, 1:] > 0, 0.6, 0.2)}
    pictures = frame_pictures(original, result._replace(views=views))
    moved = np.array(pictures["residual_offset"].image)
    assert moved.shape == (*SIZE, 3) and "0.25" in pictures["residual_offset"].note
    assert (moved[:, :10] == np.array(pictures["flow"].image)[0, 0]).all() and (moved[:, 10:] == 255).all()
    mask = np.array(pictures["offset_mask"].image)
    assert (mask[:, :10] == 153).all() and (mask[:, 10:] == 51).all()


def test_attention_has_a_size_of_its_own():
    original, result = made_up()
    weights = torch.zeros(1, 1, 9, 20)
    weights[..., 4] = 0.5
    picture = frame_pictures(original, result._replace(views={"attention": weights}))["attention"]
    pixels = np.array(picture.image)
    assert pixels.shape == (9, 20, 3) and "0.50" in picture.note
    assert (pixels[:, 4] == colours(np.ones(1), picture.key)).all()
    assert (pixels[:, :4] == colours(np.zeros(1), picture.key)).all()
    sheet = contact_sheet("", [Row("frame 1", {"attention": picture})])
    assert sheet.width > THUMB


def test_the_wheel_is_the_key():
    """The colour of the lowest point of the wheel is that of the longest flow downwards."""
    original, result = made_up()
    flow = np.array(frame_pictures(original, result)["flow"].image)
    wheel = colour_wheel(57)
    assert np.abs(wheel[56, 28].astype(int) - flow[0, 0]).max() <= 1
    assert (wheel[0, 0] == 255).all() and (wheel[28, 28] >= 254).all()


def test_files_and_contact_sheet(tmp_path):
    original, result = made_up()
    intra = CodedFrame(result.frame, result.memory)
    with Pictures(tmp_path / "clip", "clip, QP 3") as add:
        for n in range(1, 31):
            add(n, original, intra if n == 1 else result, torch.rand(ALIGNED))
    kinds = CAPTIONS.keys() - {"residual_offset", "offset_mask", "attention"}
    assert {path.name for path in (tmp_path / "clip").iterdir()} == kinds | {"contact_sheet.png"}
    assert len(list((tmp_path / "clip" / "flow").iterdir())) == 29
    assert len(list((tmp_path / "clip" / "bits").iterdir())) == 30
    with Image.open(tmp_path / "clip" / "contact_sheet.png") as sheet:
        assert sheet.width > len(kinds) * THUMB and sheet.height > SHEET_ROWS // 2 * SIZE[0]


def test_a_sheet_shows_the_pictures_with_title_label_and_keys():
    original, result = made_up()
    pictures = frame_pictures(original, result, torch.rand(ALIGNED))
    sheet = np.asarray(contact_sheet("a title", [Row("frame 1", pictures)], ["masked", "bits"])).astype(int)
    white = (sheet == 255).all(2)
    assert not white[:40, :200].all() and not white[68:100, :100].all()                   # title, label
    assert (sheet[68:68 + SIZE[0], 120:130] == 76).all()                                  # masked, its left columns
    assert len(np.unique(sheet[-80:-60].reshape(-1, 3), axis=0)) > 100                    # the ramp of bits


def test_rate_and_quality_of_a_frame_are_those_of_the_report():
    original, result = made_up()
    rate, quality = figures_of(original, result, torch.full(ALIGNED, 0.25))
    assert rate == 0.25 * 48 * 64 / (40 * 56) and quality == pytest.approx(6.0206, abs=1e-3)


def test_memory_of_the_sheet_is_bounded(tmp_path):
    original, result = made_up()
    pictures = Pictures(tmp_path)
    for n in range(1, 40):
        pictures.add(n, original, CodedFrame(result.frame, result.memory))
        assert len(pictures.rows) <= SHEET_ROWS
    assert list(pictures.rows) == [1, 9, 17, 25, 33]


def test_no_sheet_after_a_failure(tmp_path):
    original, result = made_up()
    with pytest.raises(RuntimeError), Pictures(tmp_path) as add:
        add(1, original, result, None)
        raise RuntimeError
    assert not (tmp_path / "contact_sheet.png").exists()
