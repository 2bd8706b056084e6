"""Pictures of what happens to each frame, and a contact sheet per sequence.

    source  decoded  error  flow  decoded_flow  residual_offset  offset_mask  prediction  mask  masked  residual  bits

I-frames have source, decoded, error and bits; a codec without a mask has neither mask nor masked, and only one
with offset diversity has residual_offset and offset_mask, each the mean over all offsets.

Flows share one scale per frame, given beside them with a colour wheel (Baker et al., IJCV 2011, as torchvision has it);
residual offsets, which are short, have their own.
`masked` is mask * prediction, which is what the source is coded less of: `residual` is (source - masked) / 2 + 1/2, so
that grey is zero. `error` is the mean over R, G and B of |decoded - source|. `bits` is the estimate of bits per pixel,
spread over the pixels that a latent position stands for. A codec with attention between channels has `attention`, too:
how much channels (rows) take of each other (columns), not where.
"""
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from dataloader.frames_out import to_pixels
from models.codec import CodedFrame, Latent
from models.entropy.coder import Estimator
from models.layers.functional import crop
from util.contact_sheet import Picture, Row, colours, contact_sheet, thumbnail, with_key
from util.evaluation.metrics import psnr
from util.files import atomic_path

SHEET_ROWS = 8
WORST_ERROR = 32 / 255
"""The brightest end of the error's scale: the same in all pictures, so that they compare."""


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


def frame_pictures(original: Tensor, coded: CodedFrame, bits_map: Tensor | None = None) -> dict[str, Picture]:
    """The pictures of one frame, by kind.

    Args:
        original: 1 3 H W in [0, 1], without padding.
        coded: of the aligned frame.
        bits_map: bits per pixel of the aligned frame, H W; None leaves `bits` out.
    """
    size = tuple(original.shape[-2:])
    original = original.detach().float().cpu()

    def cut(x: Tensor) -> Tensor:
        return crop(x.detach().float().cpu(), size)

    def rgb(x: Tensor, note: str = "", key: str = "") -> Picture:
        return Picture(Image.fromarray(to_pixels(x.clamp(0, 1)[0].expand(3, *size))), key, note)

    decoded = cut(coded.frame).clamp(0, 1)
    error = (decoded - original).abs().mean(1)[0]
    pictures = {"source": rgb(original), "decoded": rgb(decoded),
                "error": _in_colours(error / WORST_ERROR, "magma", f"0 to {255 * WORST_ERROR:.0f}; of 255")}
    views = coded.views
    flows = {name: cut(views[name]) for name in ("flow", "decoded_flow") if name in views}
    if flows:
        pictures |= _flow_pictures(flows)
    if "residual_offset" in views:
        pictures |= _flow_pictures({"residual_offset": cut(_enlarged(views["residual_offset"], coded.frame))})
    if "offset_mask" in views:
        pictures["offset_mask"] = rgb(cut(_enlarged(views["offset_mask"], coded.frame)), "black 0; white 1")
    if "mc" in views:
        pictures["prediction"] = rgb(cut(views["mc"]))
    if "mask" in views:
        pictures["mask"] = rgb(cut(views["mask"]), "black 0; white 1")
        pictures["masked"] = rgb(cut(views["prediction"]))
    if "prediction" in views:
        pictures["residual"] = rgb((original - cut(views["prediction"])) / 2 + 0.5, "-1 to 1; grey 0", "gray")
    if bits_map is not None:
        bits = cut(bits_map[None, None])[0, 0]
        highest = bits.max().item()
        pictures["bits"] = _in_colours(bits / (highest or 1), "viridis", f"0 to {highest:.2f}; bit per pixel")
    if "attention" in views:
        weights = views["attention"][0, 0].detach().float().cpu()
        highest = weights.max().item()
        pictures["attention"] = _in_colours(weights / (highest or 1), "cividis", f"0 to {highest:.2f}; weight")
    return pictures


def _in_colours(values: Tensor, key: str, note: str) -> Picture:
    return Picture(Image.fromarray(colours(values.clamp(0, 1).numpy(), key)), key, note)


def _enlarged(x: Tensor, frame: Tensor) -> Tensor:
    """A view at a fraction of the frame, at its size."""
    return interpolate(x.float(), size=tuple(frame.shape[-2:]), mode="nearest")


def _flow_pictures(flows: dict[str, Tensor]) -> dict[str, Picture]:
    """Flows, 1 2 H W in pixels, on the scale of the longest vector of all, which the note names."""
    from torchvision.utils import flow_to_image  # slow to load
    stacked = torch.cat(list(flows.values()))
    longest = stacked.square().sum(1).sqrt().max().item()
    return {name: Picture(Image.fromarray(to_pixels(picture)), "flow", f"up to; {longest:.2f} pixels")
            for name, picture in zip(flows, flow_to_image(stacked))}


def figures_of(original: Tensor, coded: CodedFrame, bits_map: Tensor | None) -> tuple[float, float]:
    """Bits per pixel (0 without a map) and PSNR in dB, as a report has them. Arguments as for `frame_pictures`."""
    height, width = original.shape[-2:]
    rate = 0.0 if bits_map is None else bits_map.sum().item() / (height * width)
    return rate, psnr(crop(coded.frame, (height, width)).clamp(0, 1), original)


class Pictures:
    """Writes `{folder}/{kind}/frame_{n}.png` and, when the block ends, `{folder}/contact_sheet.png`.

    The sheet has at most SHEET_ROWS frames, evenly spread, whatever the length: memory stays bounded.

    Args:
        title: of the sheet; the means over all frames are added.
    """

    def __init__(self, folder: str | Path, title: str = ""):
        self.folder, self.title = Path(folder), title
        self.rows: dict[int, Row] = {}
        self.stride = 1
        self.seen, self.rate, self.quality = 0, 0.0, 0.0

    def __enter__(self) -> Callable[[int, Tensor, CodedFrame, Tensor | None], None]:
        return self.add

    def __exit__(self, kind, error, traceback) -> None:
        if kind is None and self.rows:
            frames = f"{self.seen} frame{'s' if self.seen > 1 else ''}"
            title = f"{self.title}{': ' if self.title else ''}{frames}, {self.rate / self.seen:.4f} bpp, " \
                    f"{self.quality / self.seen:.2f} dB"
            _save(contact_sheet(title, list(self.rows.values())), self.folder / "contact_sheet.png")

    def add(self, number: int, original: Tensor, coded: CodedFrame, bits_map: Tensor | None = None) -> None:
        """Write the pictures of frame `number` (from 1); the rest as for `frame_pictures`.

        Raises:
            InputError: the folder cannot be written.
        """
        pictures = frame_pictures(original, coded, bits_map)
        for kind, picture in pictures.items():
            _save(with_key(picture), self.folder / kind / f"frame_{number}.png")
        rate, quality = figures_of(original, coded, bits_map)
        if self.seen % self.stride == 0:
            kind = "P" if coded.views else "I"
            self.rows[number] = Row(f"frame {number} ({kind})\n{rate:.4f} bpp\n{quality:.2f} dB",
                                    {kind: thumbnail(picture) for kind, picture in pictures.items()})
            if len(self.rows) > SHEET_ROWS:
                self.rows = {number: self.rows[number] for number in list(self.rows)[::2]}
                self.stride *= 2
        self.seen, self.rate, self.quality = self.seen + 1, self.rate + rate, self.quality + quality


def _save(picture: Image.Image, path: Path) -> None:
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG")
