"""Motion codec of DCVC-MIP (CVPR 2023, section 3): DCVC-HEM's, conditioned on how the last frame's motion was refined.

    flow, condition -> mv_encoder -> y;  condition -> mv_condition_prior_encoder -> third prior
    y_hat -> mv_decoder -> flow_hat, and features on the way that guide its refinement

Shapes: condition B C H/2 W/2 with the channels of features at 1/1; guidance as `CodedMotion` says.
"""
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.hem.memory import HemMemory
from models.hem.motion import MotionCodec
from models.layers.blocks import Down, conv, leaky
from models.layers.functional import halve_flow
from models.layers.transforms import analysis, prior_network, synthesis
from models.layers.windows import ResidualWindowBlock
from models.mip.config import MipConfig


class GuidingMotion(NamedTuple):
    """Attributes:
        flow_hat: decoded flow, B 2 H W.
        y_hat: decoded latent, in the units of the undivided one.
        guidance: what helps to refine the flow at 1/1, at H/2 W/2: channel_mv channels, 2, or None.
        coarse_guidance: likewise at 1/4, at H/8 W/8.
    """
    flow_hat: Tensor
    y_hat: Tensor
    guidance: Tensor | None
    coarse_guidance: Tensor | None


class ConditionedAnalysis(nn.Sequential):
    """The motion encoder: the condition joins at 1/2, before element 2."""

    def __init__(self, channels: int, condition: int):
        super().__init__(*analysis(2, channels))
        self[2] = Down(channels + condition, channels)

    def forward(self, flow: Tensor, condition: Tensor) -> Tensor:
        first, second, *rest = self
        x = torch.cat((second(first(flow)), condition), 1)
        for layer in rest:
            x = layer(x)
        return x


class GuidingSynthesis(nn.Sequential):
    """The motion decoder, which also returns its features at 1/2 and 1/8."""

    def __init__(self, channels: int):
        super().__init__(*synthesis(channels, 2))

    def forward(self, y_hat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = [y_hat]
        for layer in self:
            features.append(layer(features[-1]))
        return features[-1], features[7], features[3]


class MipMotionCodec(MotionCodec):
    """Codes a flow, given what the memory holds."""
    config: MipConfig

    def __init__(self, c: MipConfig):
        super().__init__(c)
        n, mip = c.channel_mv, c.MIP_Params
        self.mv_decoder = GuidingSynthesis(n)
        if mip.motion_condition != "none":
            self.mv_encoder = ConditionedAnalysis(n, c.scales[0])
            self.mv_condition_prior_encoder = nn.Sequential(
                conv(c.scales[0], n, stride=2), leaky(0.1), conv(n, 3 * n // 2, stride=2), leaky(0.1),
                conv(3 * n // 2, 2 * n, stride=2))
            self.mv_y_prior_fusion = prior_network(5 * n, c.motion_prior_width, 3 * n, 3 * n)
        if mip.entropy_rstb:
            self.mv_y_prior_rstb = prior_block(c, c.motion_prior_width)

    def analyse(self, flow: Tensor, memory: HemMemory) -> Tensor:
        if not self.is_conditioned:
            return super().analyse(flow, memory)
        return self.mv_encoder(flow, self._condition(memory))

    def known(self, hyper: Tensor, memory: HemMemory) -> Tensor:
        known = super().known(hyper, memory)
        if not self.is_conditioned:
            return known
        return torch.cat((known, self.mv_condition_prior_encoder(self._condition(memory))), 1)

    def fuse_priors(self, known: Tensor) -> Tensor:
        if not self.config.MIP_Params.entropy_rstb:
            return super().fuse_priors(known)
        return fuse_with(self.mv_y_prior_rstb, self.mv_y_prior_fusion, known)

    def synthesise(self, y_hat: Tensor) -> GuidingMotion:
        flow_hat, half, eighth = self.mv_decoder(y_hat)
        guidance = self.config.MIP_Params.motion_guidance
        if guidance == "none":
            half = eighth = None
        elif guidance == "flow":
            half = halve_flow(flow_hat)
            eighth = halve_flow(halve_flow(half))
        return GuidingMotion(flow_hat, y_hat, half, eighth)

    @property
    def is_conditioned(self) -> bool:
        return self.config.MIP_Params.motion_condition != "none"

    def _condition(self, memory: HemMemory) -> Tensor:
        """What is remembered, or zeros after an I-frame."""
        if memory.condition is not None:
            return memory.condition
        batch, _, height, width = memory.frame.shape
        return memory.frame.new_zeros(batch, self.config.scales[0], height // 2, width // 2)


def prior_block(c: MipConfig, channels: int) -> ResidualWindowBlock:
    """Window attention inside a prior fusion (supplement)."""
    mip = c.MIP_Params
    return ResidualWindowBlock(channels, mip.entropy_rstb_heads, mip.swin_window, mip.swin_mlp_ratio,
                               mip.entropy_rstb_kernel)


def fuse_with(block: nn.Module, fusion: nn.Sequential, known: Tensor) -> Tensor:
    """A prior fusion with a block after its first activation."""
    first, activation, *rest = fusion
    x = block(activation(first(known)))
    for layer in rest:
        x = layer(x)
    return x
