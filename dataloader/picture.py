"""FFmpeg's pictures as integer planes, and back; how a picture is to be turned.

Nothing is converted: planar YUV, gray and RGB are taken as they are; other layouts (packed, interleaved, big-endian,
palettes) are only rearranged, by FFmpeg, without changing a sample. Alpha is left out.
"""
import re

import av
import numpy as np

from util.color import PixelFormat
from util.errors import InputError

PLANAR = re.compile(r"(gray|gbra?p|yuvj?a?(420|422|444)p)(9|10|12|14|16)?(?:le)?")
BY_CHROMA_SIZE = {(8, 8): "yuv420p", (8, 16): "yuv422p", (16, 16): "yuv444p"}
"""Planar formats by columns and rows of the chroma of 16x16 pixels."""
BITS = (8, 9, 10, 12, 14, 16)


def planar_name(form: av.VideoFormat, video: str) -> str:
    """The planar format that holds the same samples, in FFmpeg's words: its own name, where it is one.

    Raises:
        InputError: there is none.
    """
    if PLANAR.fullmatch(form.name):
        return form.name
    colors = [component for component in form.components if not component.is_alpha]
    bits = {component.bits for component in colors}
    if form.has_palette:
        return "gbrp"
    if form.is_rgb:
        base = "gbrp"
    elif len(colors) == 1:
        base = "gray"
    else:
        base = BY_CHROMA_SIZE.get((form.chroma_width(16), form.chroma_height(16)))
    if form.is_bayer or "xyz" in form.name or base is None or len(bits) > 1 or min(bits) not in BITS:
        raise InputError(f"video {video} has pixel format {form.name}; convert it, for example with "
                         f"ffmpeg -i {video} -pix_fmt yuv444p -c:v ffv1 out.mkv")
    return base if bits == {8} else f"{base}{min(bits)}le"


def pixel_format(name: str) -> PixelFormat:
    """Of the name of a planar format."""
    match = PLANAR.fullmatch(name)
    chroma = match[2] or {"gray": "400", "gbrp": "rgb", "gbrap": "rgb"}[match[1]]
    return PixelFormat(chroma, int(match[3] or 8))


def has_alpha(form: av.VideoFormat) -> bool:
    return any(component.is_alpha for component in form.components)


def frame_planes(frame: av.VideoFrame, pixels: PixelFormat) -> list[np.ndarray]:
    """Integer planes (Y, U, V or R, G, B) of a decoded picture, without padding and alpha."""
    name = planar_name(frame.format, "")
    if name != frame.format.name:
        frame = frame.reformat(format=name, src_color_range=frame.color_range,      # several threads race in FFmpeg 8
                               dst_color_range=frame.color_range, threads=1)
    planes = []
    for plane in frame.planes[:1 if pixels.chroma == "400" else 3]:
        rows = np.frombuffer(plane, dtype=pixels.dtype).reshape(plane.height, -1)
        planes.append(rows[:, :plane.width].copy())
    return [planes[2], planes[0], planes[1]] if pixels.chroma == "rgb" else planes        # gbrp stores G, B, R


class Orientation:
    """How a picture is to be turned before it is shown, by the display matrix that phones write.

    The matrix sends column p and row q of the stored picture to column a p + c q and row b p + d q of the shown one.

    Raises:
        InputError: it is no turn by a multiple of 90 degrees, with or without a mirror.
    """

    def __init__(self, frame: av.VideoFrame, video: str):
        a, b, c, d = 1, 0, 0, 1
        for data in frame.side_data:
            if data.type.name == "DISPLAYMATRIX":
                matrix = np.frombuffer(bytes(data), "<i4")[:9]
                a, b, c, d = (int(round(value / 65536)) for value in matrix[[0, 1, 3, 4]])
        self._signs = (a, d) if a else (c, b)
        self.transposed = not a
        if sorted(map(abs, (a, b, c, d))) != [0, 0, 1, 1] or abs(a) != abs(d):
            raise InputError(f"video {video} is to be shown turned by {frame.rotation} degrees, and only multiples of "
                             f"90 are known; convert it, for example with ffmpeg -i {video} -c:v ffv1 out.mkv")

    @property
    def trivial(self) -> bool:
        return not self.transposed and self._signs == (1, 1)

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Turn (..., rows, columns)."""
        if self.transposed:
            image = image.swapaxes(-1, -2)
        across, down = self._signs
        return np.ascontiguousarray(image[..., ::down, ::across])
