"""Motion codec of DCVC-HEM (Li et al., ACM MM 2022, sections 3.2 and 3.3): flow in, decoded flow out.

    flow -> mv_encoder -> / steps -> y -> hyperprior, ref_mv_y -> two passes -> y_hat -> mv_decoder -> flow_hat

Shapes: flow B 2 H W in pixels, H and W multiples of 64; y B channel_mv H/16 W/16. Codecs that build on this one
override what goes into the encoder (`analyse`) and the parameters (`known`, `fuse_priors`), or what comes out of the
decoder (`synthesise`).
"""
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.entropy.coder import Coder
from models.entropy.distributions import Added, Factorized, Laplace
from models.hem.config import HemConfig
from models.hem.latent import channel_steps, code_with_dual_prior
from models.hem.memory import HemMemory
from models.latent import code_hyper
from models.layers.transforms import analysis, hyper_analysis, hyper_synthesis, prior_network, synthesis


class CodedMotion(NamedTuple):
    """Attributes:
        flow_hat: decoded flow, B 2 H W.
        y_hat: decoded latent, in the units of the undivided one.
    """
    flow_hat: Tensor
    y_hat: Tensor


class MotionCodec(nn.Module):
    """Codes a flow, given what the memory holds."""

    def __init__(self, c: HemConfig):
        super().__init__()
        n = c.channel_mv
        self.config = c
        self.mv_y_q_basic = nn.Parameter(torch.ones(1, n, 1, 1))
        self.mv_y_q_scale = nn.Parameter(torch.ones(4, 1, 1, 1))
        self.bit_estimator_z_mv = Factorized(n, Added(), noise=0.5)
        self.mv_encoder = analysis(2, n)
        self.mv_hyper_prior_encoder = hyper_analysis(n, n)
        self.mv_hyper_prior_decoder = hyper_synthesis(n, n)
        self.mv_y_prior_fusion = prior_network(3 * n, 3 * n, 3 * n, 3 * n)
        self.mv_y_spatial_prior = prior_network(4 * n, 3 * n, 3 * n, 2 * n)
        self.y_model = Laplace()
        self.mv_decoder = synthesis(n, 2)

    def forward(self, coder: Coder, flow: Tensor | None, memory: HemMemory, step: Tensor) -> CodedMotion:
        """Code one flow.

        Args:
            flow: B 2 H W, or None when decoding.
            memory: what the previous frame left.
            step: the global step of quantisation, 1 1 1 or B 1 1 1.
        """
        height, width = memory.frame.shape[-2:]
        steps = channel_steps(self.mv_y_q_basic, step)
        y = None if flow is None else self.analyse(flow, memory) / steps
        z_hat = code_hyper(coder, y, (height // 16, width // 16), self.mv_hyper_prior_encoder,
                           self.bit_estimator_z_mv, "mz")
        parameters = self.fuse_priors(self.known(self.mv_hyper_prior_decoder(z_hat), memory))
        y_hat = code_with_dual_prior(coder, y, parameters, self.mv_y_spatial_prior, self.y_model, "my") * steps
        return self.synthesise(y_hat)

    def analyse(self, flow: Tensor, memory: HemMemory) -> Tensor:
        """The undivided latent."""
        return self.mv_encoder(flow)

    def known(self, hyper: Tensor, memory: HemMemory) -> Tensor:
        """What both sides know of the latent before it is coded, B C H/16 W/16."""
        previous = memory.ref_mv_y
        if previous is None:
            previous = torch.zeros_like(hyper[:, :self.config.channel_mv])
        return torch.cat((hyper, previous), 1)

    def fuse_priors(self, known: Tensor) -> Tensor:
        """Step, scale and mean of each element."""
        return self.mv_y_prior_fusion(known)

    def synthesise(self, y_hat: Tensor) -> CodedMotion:
        """The decoded flow, and what else of the motion serves the frame."""
        return CodedMotion(self.mv_decoder(y_hat), y_hat)
