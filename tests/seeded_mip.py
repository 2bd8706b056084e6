"""DCVC-MIP's golden numbers: the rule that makes its weights from names, and models that follow it.

What MIP adds follows seeded.py, all else seeded_hem.py; rooted names are `hem.video.` plus the name in the P-frame
model.
"""
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from models.catalogue import configure, find_model
from models.mip.codec import DCVCMIP
from models.mip.config import MipConfig
from seeded import seeded_tensor
from seeded_hem import seeded_entry

HERE = Path(__file__).parent
ROW_FILES = HERE.parent / "config" / "mip"

ADDED = ("align.", "refine.", "mv_condition_prior_encoder.", "mv_y_prior_rstb.", "y_prior_rstb.")
ROWS = ("A", "B", "B_flow", "C", "D", "D_offsets", "E", "D_tcr1", "D_tcr2", "D_od4", "D_entropy")


def seeded_value(name: str, like: torch.Tensor, salt: int = 0) -> torch.Tensor:
    """The seeded value of the entry with this name in the P-frame model."""
    if name.startswith(ADDED):
        return seeded_tensor(f"hem.video.{name}", like, salt)
    return seeded_entry(f"video.{name}", tuple(like.shape), salt)


def seeded_weight(released: str, like: torch.Tensor, salt: int = 0) -> torch.Tensor:
    """The seeded value of the entry of a whole codec with this released name."""
    root, rest = released.split(".", 1)
    return seeded_entry(released, tuple(like.shape), salt) if root == "image" else seeded_value(rest, like, salt)


def seeded_part(part: nn.Module, prefix: str) -> nn.Module:
    """A part that stands at `prefix` in the P-frame model, with seeded weights, frozen."""
    part.load_state_dict({name: seeded_value(prefix + name, value) for name, value in part.state_dict().items()})
    return part.eval().requires_grad_(False)


def row_config(row: str) -> MipConfig:
    """Of a row of the ablations, as it ships."""
    return configure(find_model(ROW_FILES / f"{row}.yml"))


def tiny_config(row: str) -> MipConfig:
    """The same mechanisms at tiny widths."""
    tiny, mip = configure(find_model(HERE / "tiny" / "dcvc-mip.yml")), row_config(row).MIP_Params
    return replace(tiny, MIP_Params=replace(mip, offset_groups=tiny.MIP_Params.offset_groups))


def seeded_mip(config: MipConfig, salt: int = 0) -> DCVCMIP:
    """A codec with seeded weights, frozen for evaluation."""
    return fill(DCVCMIP(config), salt)


def fill(codec: DCVCMIP, salt: int = 0) -> DCVCMIP:
    """The same, of a codec that is there."""
    codec.load_state_dict({name: seeded_weight(codec.released_name(name), value, salt)
                           for name, value in codec.state_dict().items()})
    return codec.eval().requires_grad_(False)
