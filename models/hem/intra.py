"""Intra codec of DCVC-HEM (IntraNoAR; Li et al., ACM MM 2022).

    frame -> enc -> / steps -> y -> hyper_enc -> z
    z_hat -> hyper_dec -> y_prior_fusion -> step, scale, mean
    y / step -> two passes with y_spatial_prior -> y_hat * step * steps -> dec -> refine -> frame

Shapes: frame B 3 H W in [0, 1], H and W multiples of 64; y B N H/16 W/16; z B N H/64 W/64.
"""
import torch
from torch import Tensor, nn

from models.codec import Formats
from models.entropy.coder import Coder
from models.entropy.distributions import Added, Factorized, Normal
from models.hem.config import HemConfig
from models.hem.latent import channel_steps, code_with_dual_prior, dual_passes
from models.hem.rates import steps_of
from models.latent import code_hyper
from models.layers.blocks import conv
from models.layers.residual import ReluRes, SqueezeExciteBlock
from models.layers.transforms import analysis, hyper_analysis, hyper_synthesis, prior_network, synthesis
from models.layers.unet import UNet


class IntraCodec(nn.Module):
    """Codes a frame on its own."""

    def __init__(self, c: HemConfig):
        super().__init__()
        n, wide = c.intra_channel, c.intra_recon_channel
        self.rate_points = c.rate_points
        self.y_channels = n
        self.passes = dual_passes(n)
        self.q_basic = nn.Parameter(torch.ones(1, n, 1, 1))
        self.q_scale = nn.Parameter(torch.ones(4, 1, 1, 1))
        self.bit_estimator_z = Factorized(n, Added(), noise=0.5)
        self.enc = analysis(3, n)
        self.hyper_enc = hyper_analysis(n, n)
        self.hyper_dec = hyper_synthesis(n, n)
        self.y_prior_fusion = prior_network(2 * n, 3 * n, 3 * n, 3 * n)
        self.y_spatial_prior = prior_network(4 * n, 3 * n, 3 * n, 2 * n)
        self.y_model = Normal()
        self.dec = synthesis(n, wide)
        self.refine = nn.Sequential(UNet(wide, wide, SqueezeExciteBlock, c.unet_channels, ReluRes), conv(wide, 3))

    def forward(self, coder: Coder, frame: Tensor | None, size: tuple[int, int], qp: int | Tensor) -> Tensor:
        """Code one frame.

        Args:
            frame: B 3 H W, or None when decoding.
            size: H and W.
            qp: rate index, an int or int64 (B,).

        Returns:
            The decoded frame, B 3 H W, unclamped.
        """
        steps = channel_steps(self.q_basic, steps_of(self.q_scale, self.rate_points)[qp])
        y = None if frame is None else self.enc(frame) / steps
        z_hat = code_hyper(coder, y, (size[0] // 16, size[1] // 16), self.hyper_enc, self.bit_estimator_z, "iz")
        parameters = self.y_prior_fusion(self.hyper_dec(z_hat))
        y_hat = code_with_dual_prior(coder, y, parameters, self.y_spatial_prior, self.y_model, "iy") * steps
        return self.refine(self.dec(y_hat))

    def formats(self) -> Formats:
        return Formats(analysis=(self.enc, self.hyper_enc), half=(self.enc, self.dec, self.refine),
                       exact=(self.enc[-1], self.refine[-1]))
