"""Pictures of what happens to each frame, and a contact sheet per sequence.

    source  decoded  flow  decoded_flow  mask  prediction  residual  bits        (I-frames: source, decoded, bits)

Flows share one scale per frame, given beside them with a colour wheel (Baker et al., IJCV 2011, as torchvision has it).
`prediction` is mask * mc_frame, `residual` is (source - prediction) / 2 + 1/2, so that gray is zero.
`bits` is the estimate of bits per pixel, spread over the pixels that a latent position stands for.
"""
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn.functional import interpolate

from dataloader.video_out import to_pixels
from models.codec import CodedFrame, Latent
from models.entropy.coder import Estimator
from models.layers.functional import crop
from util.files import atomic_path

KINDS = ("source", "decoded", "flow", "decoded_flow", "mask", "prediction", "residual", "bits")
KEY_WIDTH = 72
SHEET_ROWS = 8
THUMB = 160


class BitMapper(Estimator):
    """An estimator that also keeps where the bits go."""

    def __init__(self):
        super().__init__()
        self.latents: dict[str, list[Tensor]] = {}                 # bits of each symbol, B x n, a tensor per pass
        self.hypers: dict[str, Tensor] = {}                        # bits per position, h w

    def _count(self, name: str, bits: Tensor) -> None:
        super()._count(name, bits)
        bits = bits[0]
        if bits.dim() == 3:
            self.hypers[name] = bits.sum(0)
        else:
            self.latents.setdefault(name, []).append(bits)

    def bits_map(self, latents: Sequence[Latent], size: tuple[int, int]) -> Tensor:
        """Bits per pixel, H W, of the frame coded; it sums up to its bits.

        Args:
            latents: those of the frame's kind.
            size: height and width of the padded frame.
        """
        total = torch.zeros(size)
        for latent in latents:
            if latent.name in self.hypers:
                grid = self.hypers[latent.name]
            else:
                grid = _on_grid(self.latents[latent.name], latent, size)
            total += _spread(grid, size)
        return total


def _on_grid(parts: list[Tensor], latent: Latent, size: tuple[int, int]) -> Tensor:
    """Bits of a latent per position, h w, from those of its passes."""
    values, shape = torch.cat(parts), latent.shape(size)
    if latent.passes is not None:
        where = torch.cat(latent.passes(shape[1:], values.device))
        values = torch.zeros_like(values).index_copy(0, where, values)
    return values.view(shape).sum(0)


def _spread(grid: Tensor, size: tuple[int, int]) -> Tensor:
    """Bits per position as bits per pixel, keeping the sum although some grids reach beyond the frame."""
    stride = max(-(-size[0] // grid.shape[0]), -(-size[1] // grid.shape[1]))
    stride = 1 << (stride - 1).bit_length()
    dense = interpolate(grid.detach().cpu().float()[None, None], scale_factor=stride, mode="nearest")[0, 0]
    shown = crop(dense[None, None], size)[0, 0]
    return shown * (grid.sum().item() / max(shown.sum().item(), 1e-12))


def frame_pictures(original: Tensor, coded: CodedFrame, bits_map: Tensor | None = None) -> dict[str, Image.Image]:
    """The pictures of one frame, by kind.

    Args:
        original: 1 3 H W in [0, 1], without padding.
        coded: of the aligned frame.
        bits_map: bits per pixel of the aligned frame, H W; None leaves `bits` out.
    """
    size = tuple(original.shape[-2:])

    def cut(x: Tensor) -> Tensor:
        return crop(x.detach().float().cpu(), size)

    def rgb(x: Tensor) -> Image.Image:
        return Image.fromarray(to_pixels(cut(x).clamp(0, 1)[0].expand(3, *size)))

    pictures = {"source": rgb(original), "decoded": rgb(coded.frame)}
    views = coded.views
    flows = {name: cut(views[name]) for name in ("flow", "decoded_flow") if name in views}
    if flows:
        pictures |= _flow_pictures(flows)
    if "mask" in views:
        pictures["mask"] = rgb(views["mask"])
    if "prediction" in views:
        pictures["prediction"] = rgb(views["prediction"])
        pictures["residual"] = rgb((original.cpu() - cut(views["prediction"])) / 2 + 0.5)
    if bits_map is not None:
        pictures["bits"] = _bits_picture(cut(bits_map[None, None])[0, 0].numpy())
    return pictures


def _flow_pictures(flows: dict[str, Tensor]) -> dict[str, Image.Image]:
    """Flows, 1 2 H W in pixels, on the scale of the longest vector of all, which the key names."""
    from torchvision.utils import flow_to_image  # slow to load
    stacked = torch.cat(list(flows.values()))
    longest = stacked.square().sum(1).sqrt().max().item()
    wheel = Image.fromarray(to_pixels(colour_wheel(KEY_WIDTH - 16)))
    images = {}
    for name, picture in zip(flows, flow_to_image(stacked)):
        images[name] = _with_key(Image.fromarray(to_pixels(picture)), wheel, f"{longest:.2f} px")
    return images


def colour_wheel(side: int) -> Tensor:
    """The key of flows, uint8 (3, side, side): the colour of each vector from the centre, up to length 1."""
    from torchvision.utils import flow_to_image
    axis = torch.linspace(-1, 1, side)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    inside = x.square() + y.square() <= 1
    colours = flow_to_image(torch.stack([x, y]) * inside)                  # the longest vector there has length 1
    return torch.where(inside, colours, torch.full_like(colours, 255))


def _bits_picture(bits: np.ndarray) -> Image.Image:
    """A map of bits per pixel in viridis from 0 to its largest value, which the key names."""
    import matplotlib  # slow to load
    colours = matplotlib.colormaps["viridis"]
    highest = float(bits.max())
    ramp = np.tile(np.linspace(0, 1, KEY_WIDTH - 16), (12, 1))
    shown = colours(bits / highest if highest else bits)
    picture, key = ((255 * values[..., :3]).round().astype(np.uint8) for values in (shown, colours(ramp)))
    return _with_key(Image.fromarray(picture), Image.fromarray(key), f"0..{highest:.2f} bpp")


def _with_key(picture: Image.Image, key: Image.Image, text: str) -> Image.Image:
    """The picture with its key on a strip at the right."""
    canvas = Image.new("RGB", (picture.width + KEY_WIDTH, max(picture.height, key.height + 28)), "white")
    canvas.paste(picture, (0, 0))
    canvas.paste(key, (picture.width + 8, 8))
    ImageDraw.Draw(canvas).text((picture.width + 4, key.height + 12), text, fill="black")
    return canvas


class Pictures:
    """Writes `{folder}/{kind}/frame_{n}.png` and, when the block ends, `{folder}/contact_sheet.png`.

    The sheet has at most SHEET_ROWS frames, evenly spread, whatever the length: memory stays bounded.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.rows: dict[int, dict[str, Image.Image]] = {}
        self.stride = 1
        self.seen = 0

    def __enter__(self) -> Callable[[int, Tensor, CodedFrame, Tensor | None], None]:
        return self.add

    def __exit__(self, kind, error, traceback) -> None:
        if kind is None and self.rows:
            _save(contact_sheet(self.rows), self.folder / "contact_sheet.png")

    def add(self, number: int, original: Tensor, coded: CodedFrame, bits_map: Tensor | None = None) -> None:
        """Write the pictures of frame `number` (from 1); the rest as for `frame_pictures`.

        Raises:
            InputError: the folder cannot be written.
        """
        pictures = frame_pictures(original, coded, bits_map)
        for kind, picture in pictures.items():
            _save(picture, self.folder / kind / f"frame_{number}.png")
        if self.seen % self.stride == 0:
            self.rows[number] = {kind: _thumbnail(picture) for kind, picture in pictures.items()}
            if len(self.rows) > SHEET_ROWS:
                self.rows = {number: self.rows[number] for number in list(self.rows)[::2]}
                self.stride *= 2
        self.seen += 1


def _thumbnail(picture: Image.Image) -> Image.Image:
    small = picture.copy()
    small.thumbnail((THUMB, THUMB), Image.Resampling.LANCZOS)
    return small


def contact_sheet(rows: dict[int, dict[str, Image.Image]]) -> Image.Image:
    """Thumbnails: a row per frame number, a column per kind."""
    kinds = [kind for kind in KINDS if any(kind in row for row in rows.values())]
    height = max(picture.height for row in rows.values() for picture in row.values()) + 4
    sheet = Image.new("RGB", (40 + len(kinds) * (THUMB + 4), 16 + len(rows) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for column, kind in enumerate(kinds):
        draw.text((40 + column * (THUMB + 4), 2), kind, fill="black")
    for line, (number, row) in enumerate(rows.items()):
        draw.text((4, 16 + line * height), str(number), fill="black")
        for column, kind in enumerate(kinds):
            if kind in row:
                sheet.paste(row[kind], (40 + column * (THUMB + 4), 16 + line * height))
    return sheet


def _save(picture: Image.Image, path: Path) -> None:
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG")
