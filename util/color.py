"""YUV <-> RGB in float64: the one conversion that every input and output goes through.

Formulas: ITU-R BT.601-7 section 2.5, BT.709-6 section 3 (matrices) and H.273 section 8.3 (quantisation, any bit depth):

    limited: Y = 2^(b-8) (219 E'Y + 16),  C = 2^(b-8) (224 E'C + 128)
    full:    Y = (2^b - 1) E'Y,           C = (2^b - 1) E'C + 2^(b-1)
    R = Y + 2(1-Kr) Cr        B = Y + 2(1-Kb) Cb        G = Y - 2 Kr(1-Kr)/Kg Cr - 2 Kb(1-Kb)/Kg Cb

Chroma sits where MPEG-2, H.264 and HEVC put it by default ("left": on every second luma column, halfway between two
luma rows), whatever the stream says. It is upsampled linearly, edges replicated:

    across:  c'[2i] = c[i]                      c'[2i+1] = (c[i] + c[i+1]) / 2
    down:    c'[2j] = (c[j-1] + 3 c[j]) / 4     c'[2j+1] = (3 c[j] + c[j+1]) / 4

and downsampled by (c[2i-1] + 2 c[2i] + c[2i+1]) / 4 across and (c[2j] + c[2j+1]) / 2 down. 8-bit RGB is rounded half
up. Shapes: H W are luma's; a subsampled side is rounded up, so odd sizes are fine. Planes are (H, W), RGB is (3, H, W).
"""
from dataclasses import dataclass

import numpy as np

from util.choices import RANGES
from util.errors import InputError

KR_KB = {"BT601": (0.299, 0.114), "BT709": (0.2126, 0.0722)}
CHROMA = {"400": (1, 1), "420": (2, 2), "422": (1, 2), "444": (1, 1), "rgb": (1, 1)}     # subsampling down, across


@dataclass(frozen=True)
class PixelFormat:
    """What the planes of a frame are.

    Attributes:
        chroma: "400" (luma only), "420", "422", "444" (Y, U, V), or "rgb" (R, G, B, full range).
        depth: bits per sample, 8 to 16.

    Raises:
        InputError: anything else.
    """
    chroma: str
    depth: int

    def __post_init__(self):
        if self.chroma not in CHROMA:
            raise InputError(f"pixel format {self.chroma} is unknown; choose from {', '.join(CHROMA)}")
        if not 8 <= self.depth <= 16:
            raise InputError(f"bit depth {self.depth} is outside 8..16; convert the video")

    @property
    def dtype(self) -> np.dtype:
        """Of one sample in memory and in raw files (little endian)."""
        return np.dtype("u1" if self.depth == 8 else "<u2")

    def plane_shapes(self, height: int, width: int) -> list[tuple[int, int]]:
        """(rows, columns) of each plane of a frame whose luma is height x width."""
        down, across = CHROMA[self.chroma]
        chroma = (-(-height // down), -(-width // across))
        return [(height, width)] + [chroma] * (0 if self.chroma == "400" else 2)


@dataclass(frozen=True)
class Color:
    """How YUV stands for RGB. `matrix`: a key of KR_KB; `range`: one of RANGES.

    Raises:
        InputError: anything else.
    """
    matrix: str
    range: str

    def __post_init__(self):
        if self.matrix not in KR_KB:
            raise InputError(f"colour matrix {self.matrix} is unknown; choose from {', '.join(KR_KB)}")
        if self.range not in RANGES:
            raise InputError(f"colour range {self.range} is unknown; choose from {', '.join(RANGES)}")

    def scales(self, depth: int) -> tuple[float, float, float, float]:
        """(luma offset, luma gain, chroma offset, chroma gain) of H.273 at a bit depth."""
        unit = 2.0 ** (depth - 8)
        peak = 2.0 ** depth - 1
        if self.range == "full":
            return 0, peak, 128 * unit, peak
        return 16 * unit, 219 * unit, 128 * unit, 224 * unit


def yuv_to_rgb(planes: list[np.ndarray], pixels: PixelFormat, color: Color | None) -> np.ndarray:
    """8-bit RGB, uint8 (3, H, W), of one frame's integer planes (`color` is not looked at for RGB planes)."""
    return to_8_bit(yuv_to_float_rgb(planes, pixels, color))


def yuv_to_float_rgb(planes: list[np.ndarray], pixels: PixelFormat, color: Color | None) -> np.ndarray:
    """The same before rounding: float64 (3, H, W), clipped to [0, 1]."""
    height, width = planes[0].shape
    if pixels.chroma == "rgb":
        return np.stack(planes) / (2.0 ** pixels.depth - 1)
    offset, gain, chroma_offset, chroma_gain = color.scales(pixels.depth)
    y = (planes[0] - np.float64(offset)) / gain
    if pixels.chroma == "400":
        return np.stack([y] * 3).clip(0, 1)
    kr, kb = KR_KB[color.matrix]
    kg = 1 - kr - kb
    cb, cr = ((upsample(plane.astype(np.float64), pixels.chroma, height, width) - chroma_offset) / chroma_gain
              for plane in planes[1:])
    return np.stack([y + 2 * (1 - kr) * cr,
                     y - 2 * kb * (1 - kb) / kg * cb - 2 * kr * (1 - kr) / kg * cr,
                     y + 2 * (1 - kb) * cb]).clip(0, 1)


def rgb_to_yuv(rgb: np.ndarray, pixels: PixelFormat, color: Color | None) -> list[np.ndarray]:
    """Integer planes, dtype `pixels.dtype`, of a frame (3, H, W): uint8, or float in [0, 1]."""
    values = rgb / 255.0 if rgb.dtype == np.uint8 else rgb.astype(np.float64)
    peak = 2.0 ** pixels.depth - 1
    if pixels.chroma == "rgb":
        levels = list(values * peak)
    else:
        offset, gain, chroma_offset, chroma_gain = color.scales(pixels.depth)
        y, *chroma = _to_ycbcr(values, color)
        levels = [y * gain + offset]
        if pixels.chroma != "400":
            levels += [downsample(plane * chroma_gain + chroma_offset, pixels.chroma) for plane in chroma]
    return [np.clip(np.floor(plane + 0.5), 0, peak).astype(pixels.dtype) for plane in levels]


def _to_ycbcr(rgb: np.ndarray, color: Color) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """E'Y in [0, 1] and E'Cb, E'Cr in [-0.5, 0.5] of RGB in [0, 1], each (H, W)."""
    kr, kb = KR_KB[color.matrix]
    red, green, blue = rgb
    y = kr * red + (1 - kr - kb) * green + kb * blue
    return y, (blue - y) / (2 * (1 - kb)), (red - y) / (2 * (1 - kr))


def upsample(plane: np.ndarray, chroma: str, height: int, width: int) -> np.ndarray:
    """A chroma plane at luma's size, by the filter at the head of this file."""
    down, across = CHROMA[chroma]
    if down == 2:
        above, below = np.vstack([plane[:1], plane[:-1]]), np.vstack([plane[1:], plane[-1:]])
        plane = np.stack([(above + 3 * plane) / 4, (3 * plane + below) / 4], axis=1).reshape(-1, plane.shape[1])
    if across == 2:
        right = np.hstack([plane[:, 1:], plane[:, -1:]])
        plane = np.stack([plane, (plane + right) / 2], axis=2).reshape(plane.shape[0], -1)
    return plane[:height, :width]


def downsample(plane: np.ndarray, chroma: str) -> np.ndarray:
    """A full-size chroma plane at chroma's size, by the filter at the head of this file."""
    down, across = CHROMA[chroma]
    if across == 2:
        padded = np.pad(plane, ((0, 0), (1, 1 + plane.shape[1] % 2)), mode="edge")
        plane = (padded[:, :-2:2] + 2 * padded[:, 1:-1:2] + padded[:, 2::2]) / 4
    if down == 2:
        padded = np.pad(plane, ((0, plane.shape[0] % 2), (0, 0)), mode="edge")
        plane = (padded[::2] + padded[1::2]) / 2
    return plane


def to_8_bit(rgb: np.ndarray) -> np.ndarray:
    """uint8 of float RGB in [0, 1], rounded half up."""
    return np.clip(np.floor(rgb * 255.0 + 0.5), 0, 255).astype(np.uint8)


def psnr_yuv(original: np.ndarray, decoded: np.ndarray, color: Color) -> tuple[float, float, float, float]:
    """(Y, U, V, 6:1:1) PSNR in dB of two frames (3, H, W), as DCVC-FM and DCVC-RT report it.

    RGB (uint8, or float in [0, 1]) is turned into full-size, unrounded Y'CbCr of peak 1 in the given matrix; the
    weighted figure is (6 Y + U + V) / 8. Equal planes give 100 dB. The range of `color` does not matter here.
    """
    first, second = (_to_ycbcr(x / 255.0 if x.dtype == np.uint8 else x.astype(np.float64), color)
                     for x in (original, decoded))
    errors = [float(np.mean((a - b) ** 2)) for a, b in zip(first, second)]
    y, u, v = (min(100.0, -10 * np.log10(error)) if error else 100.0 for error in errors)
    return y, u, v, (6 * y + u + v) / 8
