"""dataloader/raw.py: names, layouts and refusals."""
from fractions import Fraction

import numpy as np
import pytest
import torch

from dataloader.open import VideoOptions, open_sink, open_source
from dataloader.raw import RawLayout, RawVideo, parse_name
from dataloader.sequences import all_sequences
from util.color import Color, PixelFormat, yuv_to_rgb
from util.errors import InputError
from util.video import ColorTags

BT709 = Color("BT709", "limited")
OPTIONS = VideoOptions(matrix="BT709", range="limited")


@pytest.mark.parametrize("stem, layout", [
    ("Beauty_1920x1080_120", (1920, 1080, 120, None, None)),
    ("Beauty_1920x1080_120fps_420_8bit_YUV", (1920, 1080, 120, "420", 8)),
    ("EBURainFruits_1920x1080_50_10bit_444", (1920, 1080, 50, "444", 10)),
    ("AAA_3840x2176_25fps_10bit_420", (3840, 2176, 25, "420", 10)),
    ("x_64x48_29.97_yuv422p10le", (64, 48, Fraction("29.97"), "422", 10)),
    ("x_64x48_gbr", (64, 48, None, "gbr", None)),
    ("no_size_here_420", (None, None, None, None, None))])
def test_names(stem, layout):
    assert parse_name(stem) == RawLayout(*layout)


def test_every_name_of_the_table_is_understood():
    for sequence in (sequence for sequence in all_sequences() if sequence.raw_file_stem):
        layout = parse_name(sequence.raw_file_stem)
        assert (layout.width, layout.height, layout.rate) == (sequence.width, sequence.height, sequence.fps)
        assert (layout.chroma, layout.depth) == (("444", 10) if sequence.dataset == "HEVC-RGB" else (None, None))


@pytest.mark.parametrize("chroma, depth", [("420", 8), ("420", 10), ("422", 8), ("444", 10), ("400", 12), ("rgb", 10)])
@pytest.mark.parametrize("size", [(6, 8), (5, 7)])
def test_planes_are_read_where_they_lie(tmp_path, chroma, depth, size):
    pixels = PixelFormat(chroma, depth)
    rng = np.random.default_rng(1)
    frames = [[rng.integers(0, 2 ** depth, shape).astype(pixels.dtype) for shape in pixels.plane_shapes(*size)]
              for _ in range(3)]
    path = tmp_path / f"a_{size[1]}x{size[0]}_30_{depth}bit_{chroma}.yuv"
    path.write_bytes(b"".join(plane.tobytes() for frame in frames for plane in frame))
    source = open_source(path, OPTIONS)
    assert (source.height, source.width, source.length, source.rate) == (*size, 3, 30)
    for _ in range(2):                                                   # it can be read again
        for frame, planes in zip(source, frames, strict=True):
            assert torch.equal(frame, torch.from_numpy(yuv_to_rgb(planes, pixels, BT709)))


def test_gbr_is_rgb_in_another_order(tmp_path):
    frame = torch.arange(3 * 4 * 4, dtype=torch.uint8).reshape(3, 4, 4)
    for order in ("rgb", "gbr"):
        options = VideoOptions(size=(4, 4), chroma=order)
        with open_sink(tmp_path / f"{order}.yuv", 4, 4, options) as write:
            write(frame)
        assert torch.equal(next(iter(open_source(tmp_path / f"{order}.yuv", options))), frame)
    rgb, gbr = ((tmp_path / f"{order}.yuv").read_bytes() for order in ("rgb", "gbr"))
    assert gbr == rgb[16:] + rgb[:16]


def test_flags_go_before_the_name(tmp_path):
    path = tmp_path / "a_8x8_30_10bit_444.yuv"
    path.write_bytes(bytes(4 * 4 * 3 // 2))
    source = open_source(path, VideoOptions((4, 4), "420", 8, "BT601", "full", Fraction(5)))
    assert (source.width, source.height, source.length, source.rate, source.color) == (4, 4, 1, 5, "BT601")


@pytest.mark.parametrize("name, size, options, words", [
    ("a_8x8_30.yuv", 8 * 8 * 3 // 2 * 2 + 1, OPTIONS, "193 bytes, no whole number of frames of 96 bytes"),
    ("a_8x8_30.yuv", 0, OPTIONS, "has 0 bytes"),
    ("a.yuv", 96, OPTIONS, "size of raw video .* is unknown.*--video_size"),
    ("a_8x8.rgb", 96, OPTIONS, "plane order.*--pixel_format"),
    ("a_8x8_9999bit.yuv", 96, OPTIONS, "bit depth 9999 is outside 8..16")])
def test_refusals(tmp_path, name, size, options, words):
    path = tmp_path / name
    path.write_bytes(bytes(size))
    with pytest.raises(InputError, match=words):
        open_source(path, options)


def test_a_missing_file_and_a_short_one(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        open_source(tmp_path / "a_8x8_30.yuv", OPTIONS)
    path = tmp_path / "b.yuv"
    path.write_bytes(bytes(96))
    with pytest.raises(InputError, match="has 1 frames, but 2 are needed"):
        RawVideo(path, width=8, height=8, chroma="420", depth=8, color=ColorTags.of(BT709), length=2)


def test_samples_beyond_the_depth_are_refused(tmp_path):
    path = tmp_path / "a_2x2_30_10bit_444.yuv"
    path.write_bytes(np.full(12, 1024, "<u2").tobytes())
    with pytest.raises(InputError, match="sample of 1024, above 10 bits"):
        list(open_source(path, OPTIONS))


def test_first_frames(tmp_path):
    path = tmp_path / "a_2x2_30.yuv"
    path.write_bytes(bytes(6 * 5))
    source = open_source(path, VideoOptions(matrix="BT709", range="full", frames=3))
    assert source.length == len(list(source)) == 3
    assert open_source(path, VideoOptions(matrix="BT709", range="full", frames=9)).length == 5
    with pytest.raises(InputError, match="0 frames"):
        open_source(path, VideoOptions(matrix="BT709", range="full", frames=0))
