"""What a configuration file of ST-XCT may say beyond what DCVC-HEM's says."""
from dataclasses import dataclass

from config.fields import one_of, require
from models.hem.config import HemConfig

PRINTED_UP1 = 100
"""Channels of the decoder's first convolution as the supplement prints them."""


@dataclass(frozen=True, kw_only=True)
class LargePlace:
    """Transformer blocks where features are at 1/2 (supplement, Table S1).

    Attributes:
        blocks: how many.
        heads: of attention; must divide the channels.
        FFG_factor: hidden channels of the gated feed-forward network, as a multiple of the channels.
    """
    blocks: int = 4
    heads: int = 2
    FFG_factor: int = 1


@dataclass(frozen=True, kw_only=True)
class SmallPlace(LargePlace):
    """At 1/4."""
    blocks: int = 6


@dataclass(frozen=True, kw_only=True)
class PriorPlace(LargePlace):
    """At 1/16, in the entropy model."""
    blocks: int = 16
    heads: int = 6
    FFG_factor: int = 3


@dataclass(frozen=True, kw_only=True)
class XctParams:
    """Where transformers stand and what they are. What is absent is as in DCVC-HEM.

    Attributes:
        Add_TFE: in the contextual encoder, with `TFE_large` and `TFE_small`.
        Add_THEM: in the parameters of the frame's latent, with `THEM`.
        Add_TFD: in the contextual decoder, with `TFD_large` and `TFD_small`.
        conv3d: the 3x3x3 convolutions: `dense`, as the supplement reads, or `depthwise`, as those of the method's
            ancestors (docs/fidelity.md).
        bias: give 3D convolutions biases.
        up1_conv: channels of the decoder's first convolution: 256 stands for DCVC-HEM's, four times channel_N; 100 is
            what the supplement prints.
    """
    Add_TFE: bool = False
    Add_THEM: bool = False
    Add_TFD: bool = False
    TFE_large: LargePlace = LargePlace()
    TFE_small: SmallPlace = SmallPlace()
    TFD_large: LargePlace = LargePlace()
    TFD_small: SmallPlace = SmallPlace()
    THEM: PriorPlace = PriorPlace()
    conv3d: str = one_of("dense", "depthwise", default="dense")
    bias: bool = False
    up1_conv: int = one_of(256, PRINTED_UP1, default=256)

    def __post_init__(self):
        require(self.up1_conv != PRINTED_UP1 or self.Add_TFD,
                f"XCT_Params.up1_conv {PRINTED_UP1} needs Add_TFD: True; without it up1_conv must be 256")


@dataclass(frozen=True, kw_only=True)
class XctConfig(HemConfig):
    """Widths as in DCVC-HEM, and the transformers."""
    architecture = "ST-XCT"
    XCT_Params: XctParams = XctParams()

    def __post_init__(self):
        super().__post_init__()
        params = self.XCT_Params
        _, half, quarter, _ = self.scales
        named = "channel_N" if self.scale_channels is None else "scale_channels"
        for switch, name, channels, width in (
                ("Add_TFE", "TFE_large", half, named), ("Add_TFE", "TFE_small", quarter, named),
                ("Add_TFD", "TFD_large", half, named), ("Add_TFD", "TFD_small", quarter, named),
                ("Add_THEM", "THEM", 2 * self.channel_M, "2 channel_M")):
            heads = getattr(params, name).heads
            require(not getattr(params, switch) or channels % heads == 0,
                    f"XCT_Params.{name}.heads {heads} must divide the {channels} channels there ({width})")
