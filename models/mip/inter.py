"""Contextual codec of DCVC-MIP (CVPR 2023, section 3): DCVC-HEM's, with features aligned by offset diversity and a
context refined by window attention.

    F^0, flow_hat, guidance -> align -> finest context, what it was predicted from
    a context -> refine -> a context

Everything else is DCVC-HEM's, the stream, too.
"""
from typing import NamedTuple

from torch import Tensor, nn

from models.context_mining import Pyramid
from models.hem.inter import InterCodec
from models.layers.blocks import conv, leaky
from models.layers.functional import halve_flow, warp
from models.layers.offset_diversity import OffsetDiversity
from models.layers.windows import ResidualWindowBlock
from models.mip.config import MipConfig
from models.mip.motion import GuidingMotion, fuse_with, prior_block


class RefinedPrediction(NamedTuple):
    """Attributes:
        contexts: features of the aligned reference at 1/1, 1/2 and 1/4.
        condition: what the next frame's motion is conditioned on, B C H/2 W/2 with the channels of 1/1, or None.
        offset: the mean residual offset in pixels, B 2 H/2 W/2, or None.
        mask: the mean mask, B 1 H/2 W/2 in (0, 1), or None.
    """
    contexts: Pyramid
    condition: Tensor | None = None
    offset: Tensor | None = None
    mask: Tensor | None = None


class ContextRefinement(nn.Module):
    """x + convolutions around a residual block of window attention (TCR). B C h w in and out."""

    def __init__(self, c: MipConfig):
        super().__init__()
        mip = c.MIP_Params
        n = c.scales[(1, 2, 4).index(c.MIP_Params.refined_scale)]
        before, inside, after = mip.context_refine_kernels
        self.conv_in = conv(n, n, before)
        self.act = leaky(0.1)
        self.rstb = ResidualWindowBlock(n, mip.context_refine_heads, mip.swin_window, mip.swin_mlp_ratio, inside)
        self.conv_out = conv(n, n, after)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_out(self.rstb(self.act(self.conv_in(x))))


class MipInterCodec(InterCodec):
    """Codes a frame, given what the memory says about it."""
    config: MipConfig

    def __init__(self, c: MipConfig):
        super().__init__(c)
        mip = c.MIP_Params
        guidance = {"none": 0, "flow": 2, "feature": c.channel_mv}[mip.motion_guidance]

        def diversity(channels: int) -> OffsetDiversity:
            return OffsetDiversity(channels, guidance, mip.offset_groups, mip.offset_num, mip.offset_magnitude)

        if mip.offset_diversity:
            self.align = diversity(c.scales[0])
        if mip.context_refine == "offset_diversity":
            self.refine = diversity(c.scales[2])
        elif mip.context_refine == "tcr":
            self.refine = ContextRefinement(c)
        if mip.entropy_rstb:
            self.y_prior_rstb = prior_block(c, c.prior_width)

    def align_features(self, features: Pyramid, motion: GuidingMotion) -> RefinedPrediction:
        mip, flow = self.config.MIP_Params, motion.flow_hat
        half = halve_flow(flow)
        quarter = halve_flow(half)
        seen = {}
        if mip.offset_diversity:
            aligned = self.align(features[0], flow, motion.guidance)
            finest = aligned.feature
            seen = {"condition": self._condition(aligned.hidden, aligned.raw), "offset": aligned.mean_offset,
                    "mask": aligned.mean_mask}
        else:
            finest = warp(features[0], flow)
        if mip.context_refine == "offset_diversity":
            coarsest = self.refine(features[2], quarter, motion.coarse_guidance).feature
        else:
            coarsest = warp(features[2], quarter)
        contexts = [finest, warp(features[1], half), coarsest]
        if mip.context_refine == "tcr":
            level = (1, 2, 4).index(mip.refined_scale)
            contexts[level] = self.refine(contexts[level])
        return RefinedPrediction(self.context_fusion_net(tuple(contexts)), **seen)

    def _condition(self, hidden: Tensor, raw: Tensor) -> Tensor | None:
        mip = self.config.MIP_Params
        if mip.motion_condition == "offsets":
            return self.align.residual_offsets(raw[:, :2 * mip.offset_groups * mip.offset_num])
        return hidden if mip.motion_condition == "feature" else None

    def fuse_priors(self, known: Tensor) -> Tensor:
        if not self.config.MIP_Params.entropy_rstb:
            return super().fuse_priors(known)
        return fuse_with(self.y_prior_rstb, self.y_prior_fusion, known)
