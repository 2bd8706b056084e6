"""util/color.py against formulas written another way."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from util.color import (
    CHROMA,
    Color,
    PixelFormat,
    downsample,
    psnr_yuv,
    rgb_to_yuv,
    upsample,
    yuv_to_float_rgb,
    yuv_to_rgb,
)
from util.errors import InputError

COLORS = [Color(matrix, range_) for matrix in ("BT601", "BT709") for range_ in ("limited", "full")]
# R, G, B -> Y, Cb, Cr as printed in BT.601-7 (2.5.1, 2.5.2) and BT.709-6 (items 3.2, 3.3).
PRINTED = {"BT601": [[0.299, 0.587, 0.114], [-0.299 / 1.772, -0.587 / 1.772, 0.886 / 1.772],
                     [0.701 / 1.402, -0.587 / 1.402, -0.114 / 1.402]],
           "BT709": [[0.2126, 0.7152, 0.0722], [-0.2126 / 1.8556, -0.7152 / 1.8556, 0.9278 / 1.8556],
                     [0.7874 / 1.5748, -0.7152 / 1.5748, -0.0722 / 1.5748]]}


def random_planes(pixels: PixelFormat, height: int, width: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 2 ** pixels.depth, shape).astype(pixels.dtype)
            for shape in pixels.plane_shapes(height, width)]


def independent(planes: list[np.ndarray], pixels: PixelFormat, color: Color) -> np.ndarray:
    """RGB levels 0..255, unrounded: chroma by map_coordinates, matrix by inversion of the printed one."""
    height, width = planes[0].shape
    down, across = CHROMA[pixels.chroma]
    rows, columns = np.mgrid[:height, :width].astype(float)
    where = [(rows - 0.5) / 2 if down == 2 else rows, columns / across]
    y, u, v = planes[0].astype(float), *(map_coordinates(p.astype(float), where, order=1, mode="nearest")
                                         for p in planes[1:])
    if color.range == "limited":
        scale = 2 ** (pixels.depth - 8)
        ycc = np.stack([(y / scale - 16) / 219, (u / scale - 128) / 224, (v / scale - 128) / 224])
    else:
        peak = 2 ** pixels.depth - 1
        ycc = np.stack([y / peak, (u - 2 ** (pixels.depth - 1)) / peak, (v - 2 ** (pixels.depth - 1)) / peak])
    rgb = np.einsum("ij,jhw->ihw", np.linalg.inv(np.array(PRINTED[color.matrix])), ycc)
    return np.clip(rgb * 255, 0, 255)


@pytest.mark.parametrize("color", COLORS, ids=lambda c: f"{c.matrix}-{c.range}")
@pytest.mark.parametrize("chroma", ["420", "422", "444"])
@pytest.mark.parametrize("depth", [8, 10, 16])
@pytest.mark.parametrize("size", [(18, 22), (17, 21), (1, 1)])
def test_rgb_is_within_half_a_level_of_the_formula(chroma, depth, color, size):
    pixels = PixelFormat(chroma, depth)
    planes = random_planes(pixels, *size)
    expected = independent(planes, pixels, color)
    rgb = yuv_to_rgb(planes, pixels, color)
    assert rgb.dtype == np.uint8 and rgb.shape == (3, *size)
    assert np.abs(rgb - expected).max() <= 0.5 + 1e-9
    np.testing.assert_allclose(yuv_to_float_rgb(planes, pixels, color) * 255, expected, atol=1e-9)


@pytest.mark.parametrize("color, levels", [(COLORS[0], (16, 235)), (COLORS[1], (0, 255))])
def test_black_and_white_levels(color, levels):
    for level, rgb in zip(levels, (0, 255)):
        planes = [np.full((2, 2), level, np.uint8), *[np.full((1, 1), 128, np.uint8)] * 2]
        assert (yuv_to_rgb(planes, PixelFormat("420", 8), color) == rgb).all()


def test_known_colour_of_bt709():
    """100 % red of BT.709 in limited range is 63, 102, 240 (SMPTE RP 219 gives the same triple)."""
    red = np.zeros((3, 2, 2))
    red[0] = 1
    planes = rgb_to_yuv(red, PixelFormat("444", 8), Color("BT709", "limited"))
    assert [int(p[0, 0]) for p in planes] == [63, 102, 240]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from(COLORS), st.sampled_from([10, 12, 16]),
       st.integers(0, 2 ** 32))
def test_444_of_10_bits_and_more_keeps_8_bit_rgb(height, width, color, depth, seed):
    rgb = np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8)
    pixels = PixelFormat("444", depth)
    assert np.array_equal(yuv_to_rgb(rgb_to_yuv(rgb, pixels, color), pixels, color), rgb)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 11), st.integers(1, 11), st.sampled_from(["420", "422", "444"]), st.floats(-3, 3))
def test_filters_keep_size_and_constants(height, width, chroma, value):
    small = PixelFormat(chroma, 8).plane_shapes(height, width)[1]
    down = downsample(np.full((height, width), value), chroma)
    assert down.shape == small
    np.testing.assert_allclose(down, value, atol=1e-12)
    up = upsample(np.full(small, value), chroma, height, width)
    assert up.shape == (height, width)
    np.testing.assert_allclose(up, value, atol=1e-12)


def test_filters_do_not_shift():
    """A ramp along luma's coordinates comes back as it was, away from the edges."""
    rows, columns = np.mgrid[:16, :16].astype(float)
    for ramp in (rows, columns):
        again = upsample(downsample(ramp, "420"), "420", 16, 16)
        np.testing.assert_allclose(again[2:-2, 2:-2], ramp[2:-2, 2:-2], atol=1e-12)


def test_rgb_planes_of_ten_bits():
    planes = [np.array([[0, 1023, 512, 2]], dtype="<u2")] * 3
    assert yuv_to_rgb(planes, PixelFormat("rgb", 10), None)[0].tolist() == [[0, 255, 128, 0]]


def test_gray_is_neutral():
    rgb = yuv_to_rgb([np.array([[16, 126, 235]], np.uint8)], PixelFormat("400", 8), Color("BT709", "limited"))
    assert (rgb[0] == rgb[1]).all() and (rgb[0] == rgb[2]).all() and rgb[0].tolist() == [[0, 128, 255]]


@pytest.mark.parametrize("make, words", [
    (lambda: PixelFormat("411", 8), "pixel format 411"),
    (lambda: PixelFormat("420", 7), "bit depth 7 is outside 8..16"),
    (lambda: Color("BT2020", "full"), "colour matrix BT2020"), (lambda: Color("BT709", "tv"), "colour range tv")])
def test_unknown_formats_are_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_yuv_psnr():
    """An error in blue alone, checked by hand: dY = 0.0722 d, dCb = d/2, dCr = -0.0722/1.5748 d."""
    original = np.full((3, 4, 4), 0.5)
    decoded = original.copy()
    decoded[2] += 0.1
    y, u, v, weighted = psnr_yuv(original, decoded, Color("BT709", "limited"))
    expected = [-20 * np.log10(0.1 * gain) for gain in (0.0722, 0.5, 0.0722 / 1.5748)]
    np.testing.assert_allclose([y, u, v], expected, rtol=1e-9)
    assert weighted == pytest.approx((6 * expected[0] + expected[1] + expected[2]) / 8)
    assert psnr_yuv(original, original, Color("BT709", "full")) == (100, 100, 100, 100)
