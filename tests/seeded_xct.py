"""ST-XCT's golden numbers: the rule that makes its weights from names, and the models that follow it.

Names begin with `video.`; those of the base have the values of DCVC-HEM's golden numbers, so that both share weights.
"""
import zlib
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from models.st_xct.codec import STXCT
from models.st_xct.config import LargePlace, PriorPlace, SmallPlace, XctConfig, XctParams
from seeded import seeded_tensor
from seeded_hem import seeded_entry

ALL = {"Add_TFE": True, "Add_THEM": True, "Add_TFD": True}

FEW_BLOCKS = {"TFE_large": LargePlace(blocks=1), "TFE_small": SmallPlace(blocks=2), "THEM": PriorPlace(blocks=2),
              "TFD_small": SmallPlace(blocks=2), "TFD_large": LargePlace(blocks=1)}

SMALL_XCT = XctConfig(intra_channel=16, intra_recon_channel=4, channel_mv=8, channel_N=16, channel_M=24,
                      recon_channel=8, unet_channels=(8, 16, 32), flow_channels=(4, 8, 4, 4),
                      XCT_Params=XctParams(**ALL, **FEW_BLOCKS))
"""The widths and blocks of the golden P-frame."""


def with_params(config: XctConfig = SMALL_XCT, **changes) -> XctConfig:
    """The configuration with other `XCT_Params`."""
    return replace(config, XCT_Params=replace(config.XCT_Params, **changes))


def seeded_value(name: str, like: torch.Tensor, salt: int = 0) -> torch.Tensor:
    """The seeded value of the entry with this released name, its root first."""
    if ".xct_" in name:
        return seeded_tensor(f"hem.{name}", like, salt)
    return seeded_entry(name, tuple(like.shape), salt)


def seed_module(module: nn.Module, prefix: str, salt: int = 0) -> nn.Module:
    """Seed a part of the P-frame model that stands under this name, its dot included; frozen for evaluation."""
    module.load_state_dict({name: seeded_value(f"video.{prefix}{name}", value, salt)
                            for name, value in module.state_dict().items()})
    return module.eval().requires_grad_(False)


def seeded_xct(config: XctConfig = SMALL_XCT, salt: int = 0) -> STXCT:
    """A codec with seeded weights, frozen for evaluation."""
    codec = STXCT(config)
    codec.load_state_dict({name: seeded_value(codec.released_name(name), value, salt)
                           for name, value in codec.state_dict().items()})
    return codec.eval().requires_grad_(False)


def noise(name: str, *shape: int) -> torch.Tensor:
    """The random inputs of the golden numbers: a standard normal draw."""
    return torch.from_numpy(np.random.default_rng(zlib.crc32(f"0:{name}".encode()))
                            .standard_normal(shape, dtype=np.float32))
