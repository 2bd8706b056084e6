"""Contextual codec of ST-XCT: DCVC-HEM's, with transformers where it concatenates features with contexts.

Three places, each on its own: the encoder (MS-TFE), the parameters of the latent (THEM), the decoder (MS-TFD).
"""
from torch import Tensor

from models.hem.inter import ContextualDecoder, ContextualEncoder, InterCodec
from models.layers.blocks import subpel
from models.st_xct.blocks import Fuse
from models.st_xct.config import PRINTED_UP1, XctConfig


class _Joining:
    """Features meet contexts in transformers, at half and at a quarter of the frame's height and width."""
    xct_large: Fuse
    xct_small: Fuse

    def join_half(self, x: Tensor, context: Tensor) -> Tensor:
        return self.xct_large(x, context)

    def join_quarter(self, x: Tensor, context: Tensor) -> Tensor:
        return self.xct_small(x, context)


class TransformingEncoder(_Joining, ContextualEncoder):
    """MS-TFE: the outputs of the first two convolutions meet contexts in transformers."""

    def __init__(self, c: XctConfig):
        super().__init__(c)
        p = c.XCT_Params
        self.xct_large = Fuse(c.scales[1], p.TFE_large if p.Add_TFE else None, p)
        self.xct_small = Fuse(c.scales[2], p.TFE_small if p.Add_TFE else None, p)


class TransformingDecoder(_Joining, ContextualDecoder):
    """MS-TFD: likewise, on the way back."""

    def __init__(self, c: XctConfig):
        super().__init__(c)
        p = c.XCT_Params
        if p.up1_conv == PRINTED_UP1:
            self.up1 = subpel(c.channel_M, PRINTED_UP1 // 4, 3)
            self.up2 = subpel(PRINTED_UP1 // 4, c.scales[2], 3)
        self.xct_small = Fuse(c.scales[2], p.TFD_small if p.Add_TFD else None, p)
        self.xct_large = Fuse(c.scales[1], p.TFD_large if p.Add_TFD else None, p)


class TransformingInterCodec(InterCodec):
    """THEM: temporal prior and hyper features meet in transformers; the previous latent joins them afterwards."""
    make_encoder = TransformingEncoder
    make_decoder = TransformingDecoder

    def __init__(self, c: XctConfig):
        super().__init__(c)
        p = c.XCT_Params
        self.xct_prior = Fuse(2 * c.channel_M, p.THEM if p.Add_THEM else None, p)

    def join_prior(self, temporal: Tensor, hyper: Tensor) -> Tensor:
        return self.xct_prior(temporal, hyper)
