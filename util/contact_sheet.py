"""Sheets of pictures with titles, captions and the keys of their colours (matplotlib, no display needed)."""
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

CAPTIONS = {"source": "source", "decoded": "decoded", "error": "|decoded - source|", "flow": "estimated flow",
            "decoded_flow": "decoded flow", "residual_offset": "mean residual offset",
            "offset_mask": "mean offset mask", "prediction": "predicted frame", "mask": "mask",
            "masked": "mask x predicted", "residual": "source - mask x predicted", "bits": "bits per pixel",
            "attention": "attention between channels"}
"""Kinds of pictures, in their order, and what stands above them."""

LEGENDS = {"flow": "flows: where pixels come from,\nup to the length below\neach picture",
           "magma": "error: from nothing to 32 of 255,\nmean over red, green and blue",
           "gray": "residual: from -1 to 1",
           "viridis": "bits: from nothing to the\nlargest, below each picture",
           "cividis": "attention: what channels (rows) take\nof others (columns), up to the largest"}
"""What stands at the keys at the foot of a sheet."""

THUMB = 256
"""Width of a picture on a sheet, in pixels."""

KEY_WIDTH = 96
"""Width of the strip with the key beside a picture of its own."""

LEFT, GAP, HEAD, CAPTION, NOTE, FOOT = 120, 6, 44, 24, 18, 96
DPI = 100


class Picture(NamedTuple):
    """Attributes:
        image: of the size of the frame, where it shows places in it.
        key: its colours: "flow", a colour map of matplotlib, or "" for those of the frame itself.
        note: what the ends of the key mean.
    """
    image: Image.Image
    key: str = ""
    note: str = ""


class Row(NamedTuple):
    """One frame of a sheet: what stands beside it, and its pictures by kind."""
    label: str
    pictures: Mapping[str, Picture]


def colours(values: np.ndarray, name: str) -> np.ndarray:
    """Values in [0, 1] in a colour map of matplotlib, uint8 (..., 3)."""
    import matplotlib  # slow to load
    return (255 * matplotlib.colormaps[name](values)[..., :3]).round().astype(np.uint8)


def colour_wheel(side: int) -> np.ndarray:
    """The key of flows, uint8 (side, side, 3): the colour of each vector from the centre, up to length 1."""
    import torch
    from torchvision.utils import flow_to_image  # slow to load
    axis = torch.linspace(-1, 1, side)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    inside = x.square() + y.square() <= 1
    drawn = flow_to_image(torch.stack([x, y]) * inside)                     # the longest vector there has length 1
    return torch.where(inside, drawn, torch.full_like(drawn, 255)).permute(1, 2, 0).numpy()


def key_of(picture: Picture, width: int, height: int) -> np.ndarray:
    """The key's own picture: a wheel of the smaller side, or a ramp; uint8 (h, w, 3)."""
    if picture.key == "flow":
        return colour_wheel(min(width, height))
    return np.broadcast_to(colours(np.linspace(0, 1, width), picture.key), (height, width, 3))


def with_key(picture: Picture) -> Image.Image:
    """The picture with its key and note on a strip at the right; as it is where it needs none."""
    if not picture.key:
        return picture.image
    from PIL import ImageDraw, ImageFont
    side = KEY_WIDTH - 16
    key = Image.fromarray(np.ascontiguousarray(key_of(picture, side, side if picture.key == "flow" else 12)))
    lines = picture.note.split("; ")
    canvas = Image.new("RGB", (picture.image.width + KEY_WIDTH, max(picture.image.height, key.height + 16 + 14 * len(
        lines))), "white")
    canvas.paste(picture.image, (0, 0))
    canvas.paste(key, (picture.image.width + 8, 8))
    draw = ImageDraw.Draw(canvas)
    for n, line in enumerate(lines):
        draw.text((picture.image.width + 8, key.height + 12 + 14 * n), line, "black", ImageFont.load_default(11))
    return canvas


def thumbnail(picture: Picture) -> Picture:
    """At most THUMB wide."""
    small = picture.image.copy()
    small.thumbnail((THUMB, THUMB), Image.Resampling.LANCZOS)
    return picture._replace(image=small)


def contact_sheet(title: str, rows: Sequence[Row], kinds: Sequence[str] | None = None) -> Image.Image:
    """A row per frame, a column per kind, and the keys below.

    Args:
        kinds: which, in this order; all that there are by default.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to load
    from matplotlib.figure import Figure

    kinds = [kind for kind in kinds or CAPTIONS if any(kind in row.pictures for row in rows)]
    tall = max(picture.image.height for row in rows for picture in row.pictures.values())
    width, height = LEFT + len(kinds) * (THUMB + GAP), HEAD + CAPTION + len(rows) * (tall + NOTE) + FOOT
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)

    def write(x: float, y: float, text: str, size: float = 9, **kwargs) -> None:
        figure.text(x / width, 1 - y / height, text, fontsize=size, va="top", **kwargs)

    def draw(pixels: np.ndarray, x: float, y: float, w: float, h: float) -> None:
        axes = figure.add_axes((x / width, 1 - (y + h) / height, w / width, h / height))
        axes.imshow(pixels, aspect="auto")
        axes.axis("off")

    write(GAP, 10, title, 14)
    keys: dict[str, Picture] = {}
    for column, kind in enumerate(kinds):
        x = LEFT + column * (THUMB + GAP)
        write(x, HEAD, CAPTIONS[kind], 11)
        for line, row in enumerate(rows):
            if (picture := row.pictures.get(kind)) is None:
                continue
            y = HEAD + CAPTION + line * (tall + NOTE)
            draw(np.asarray(picture.image), x, y, *picture.image.size)
            write(x, y + picture.image.height + 1, picture.note.replace("; ", ", "), 7, color="0.3")
            if picture.key:
                keys.setdefault(picture.key, picture)
    for line, row in enumerate(rows):
        write(GAP, HEAD + CAPTION + line * (tall + NOTE), row.label, 10, linespacing=1.4)
    for n, (key, picture) in enumerate(keys.items()):
        x, y = LEFT + n * (THUMB + GAP), height - FOOT + 8
        ramp = key_of(picture, 64 if key == "flow" else THUMB - 60, 64 if key == "flow" else 14)
        draw(ramp, x, y, ramp.shape[1], ramp.shape[0])
        write(*((x + 72, y + 8) if key == "flow" else (x, y + 20)), LEGENDS[key], 8)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
