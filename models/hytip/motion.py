"""Conditional motion codec (HyTIP, section 3.2): flow in, decoded flow out.

    flow -> mv_encoder -> y -> hyperprior and temporal prior -> y_hat -> mv_decoder -> flow_hat
              ^ conditions at 1/4 and 1/8 of what is remembered ^

"Conditional" means that a P-frame was coded since the last I-frame. Shapes: flow B 2 H W in pixels;
y B N H/16 W/16; conditions at 1/4 and 1/8.
"""
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.entropy.coder import Coder
from models.entropy.distributions import Factorized, Gaussian
from models.hytip.config import MotionConfig
from models.hytip.memory import HybridMemory
from models.latent import code_hyper, code_with_parameters, hyper_decoder, hyper_encoder
from models.layers.blocks import Down, PlainBlock, SumBlock, Up, conv, leaky, subpel
from models.layers.functional import crop
from models.layers.gdn import GDN

Conditions = tuple[Tensor, Tensor] | None
"""Features at 1/4 and 1/8 of the remembered motion, or None in the first P-frame after an I-frame."""


class CodedMotion(NamedTuple):
    """Attributes:
        flow_hat: decoded flow, B 2 H W.
        feature: implicit feature at 1/4, generated or the decoder's own.
        y_hat: decoded latent.
    """
    flow_hat: Tensor
    feature: Tensor
    y_hat: Tensor


class _FeatureExtractor(nn.Module):
    """Conditions from what is remembered: the decoded flow, the feature, or both."""

    def __init__(self, c: MotionConfig):
        super().__init__()
        quarter, eighth = c.enc_cond_dims
        k0, k1 = c.cond_kernel_size
        s0, s1 = c.cond_scale_list
        self.down0 = nn.Sequential(conv(2, quarter, k0, s0), leaky(0.1)) if c.buffer.flow else None
        self.down1 = nn.Sequential(conv(quarter, eighth, k1, s1), leaky(0.1))
        self.fusion = None
        if c.buffer.feature is not None:
            known = c.buffer.feature + (quarter if c.buffer.flow else 0)
            self.fusion = nn.Sequential(conv(known, quarter), leaky(0.1))

    def forward(self, flow: Tensor | None, feature: Tensor | None) -> tuple[Tensor, Tensor]:
        known = [] if self.down0 is None else [self.down0(flow)]
        quarter = known[0] if self.fusion is None else self.fusion(torch.cat((*known, feature), 1))
        return quarter, self.down1(quarter)


class _Encoder(nn.Module):
    def __init__(self, c: MotionConfig):
        super().__init__()
        m = c.channel_mv
        quarter, eighth = c.enc_cond_dims
        self.enc_1 = nn.Sequential(Down(2, m), SumBlock(m))
        self.enc_2 = Down(m, m)
        self.adaptor_0 = SumBlock(m)
        self.adaptor_1 = SumBlock(m + quarter, m)
        self.enc_3 = nn.Sequential(Down(m, m), SumBlock(m), conv(m, c.channel_N, stride=2))
        self.adaptor_3_1 = SumBlock(m + eighth, m)

    def forward(self, flow: Tensor, conditions: Conditions, gain: Tensor | None) -> Tensor:
        x = self.enc_1(flow)
        x = self.enc_2(x if gain is None else x * gain)
        down, block, last = self.enc_3
        if conditions is None:
            return last(block(down(self.adaptor_0(x))))
        quarter, eighth = conditions
        x = self.adaptor_1(torch.cat((x, quarter), 1))
        return last(self.adaptor_3_1(torch.cat((down(x), eighth), 1)))


class _Decoder(nn.Module):
    def __init__(self, c: MotionConfig):
        super().__init__()
        m = c.channel_mv
        quarter, eighth = c.dec_cond_dims
        self.dec_1 = nn.Sequential(SumBlock(c.channel_N, m), Up(m, m), SumBlock(m), Up(m, m), SumBlock(m))
        self.dec_2 = Up(m, m)
        self.dec_3 = nn.Sequential(SumBlock(m), subpel(m, 2, 1))
        self.adaptor_0_1 = SumBlock(m + eighth, m)
        self.adaptor_1_1 = SumBlock(m + quarter, m)

    def forward(self, y_hat: Tensor, conditions: Conditions, gain: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns the decoded flow and the feature at 1/4."""
        block_0, up_0, block_1, up_1, block_2 = self.dec_1
        x = up_0(block_0(y_hat))
        if conditions is None:
            x = block_2(up_1(block_1(x)))
        else:
            quarter, eighth = conditions
            x = up_1(self.adaptor_0_1(torch.cat((x, eighth), 1)))
            x = self.adaptor_1_1(torch.cat((x, quarter), 1))
        feature = x
        x = self.dec_2(x)
        return self.dec_3(x if gain is None else x * gain), feature


class MotionCodec(nn.Module):
    """Codes a flow, conditioned on what the memory holds.

    Args:
        sees_frame: whether the temporal prior may look at the reference frame, which must be remembered then.
    """

    def __init__(self, config: MotionConfig, sees_frame: bool = True):
        super().__init__()
        self.sees_frame = sees_frame
        n, z, prior = config.channel_N, config.g_ch_z, config.predprior_channel
        self.config = config
        if config.variable_rate:
            self.mv_q_encoder = nn.Parameter(torch.ones(64, config.channel_mv, 1, 1))
            self.mv_q_decoder = nn.Parameter(torch.ones(64, config.channel_mv, 1, 1))
        self.bit_estimator_z_mv = Factorized(z)
        self.feature_extractor = _FeatureExtractor(config)
        self.mv_encoder = _Encoder(config)
        self.mv_hyper_prior_encoder = hyper_encoder(SumBlock, n, z)
        self.mv_hyper_prior_decoder = hyper_decoder(SumBlock, z, n)
        seen = 3 * sees_frame + 2 * config.buffer.flow
        adaptors = PlainBlock(n, 2 * n), PlainBlock((1 + config.buffer.latent + (seen > 0)) * n, 2 * n)
        fusion = nn.Sequential(PlainBlock(2 * n, 3 * n), PlainBlock(3 * n))
        if config.buffer.latent:
            self.temp_prior_fusion_adaptor_0, self.temp_prior_fusion_adaptor_1 = adaptors
        else:
            self.mv_y_prior_fusion_adaptor_temp_0, self.mv_y_prior_fusion_adaptor_temp_1 = adaptors
        self.pred_prior = None if seen == 0 else nn.Sequential(
            conv(seen, prior, stride=2), GDN(prior), conv(prior, prior, stride=2), GDN(prior),
            conv(prior, prior, stride=2), GDN(prior), conv(prior, n, stride=2))
        if config.buffer.latent:
            self.prior_fusion = fusion
        else:
            self.PA = fusion
        self.gaussian_conditional = Gaussian()
        self.mv_decoder = _Decoder(config)
        self.feature_generator = None
        if config.generates_feature:
            self.feature_generator = conv(config.channel_mv, config.buffer.feature)

    def forward(self, coder: Coder, flow: Tensor | None, memory: HybridMemory, qp: int | Tensor) -> CodedMotion:
        """Code one flow.

        Args:
            flow: B 2 H W, or None when decoding. H and W are multiples of 16.
            memory: gives the size, the reference frame and, from the second P-frame on, the conditions.
            qp: rate index 0..63, an int or int64 (B,); ignored by single-rate models.
        """
        conditions = self._conditions(memory)
        y = None if flow is None else self.mv_encoder(flow, conditions, self._gain("mv_q_encoder", qp))
        if self.config.no_motion and y is not None:
            y = torch.zeros_like(y)
        size = (memory.frame.shape[-2] // 16, memory.frame.shape[-1] // 16)
        z_hat = code_hyper(coder, y, size, self.mv_hyper_prior_encoder, self.bit_estimator_z_mv, "mz")
        hyper = crop(self.mv_hyper_prior_decoder(z_hat), size)
        y_hat = code_with_parameters(coder, y, self._prior(hyper, memory), self.gaussian_conditional, "my")
        flow_hat, feature = self.mv_decoder(y_hat, conditions, self._gain("mv_q_decoder", qp))
        if self.feature_generator is not None:
            feature = self.feature_generator(feature)
        if self.config.no_motion:
            flow_hat = torch.zeros_like(flow_hat)
        return CodedMotion(flow_hat, feature, y_hat)

    def _conditions(self, memory: HybridMemory) -> Conditions:
        return None if memory.after_intra else self.feature_extractor(memory.flow, memory.ref_mv_feature)

    def _prior(self, hyper: Tensor, memory: HybridMemory) -> Tensor:
        """Step, scale and mean of y, from the hyper features and what is remembered."""
        if self.config.buffer.latent:
            first, later = self.temp_prior_fusion_adaptor_0, self.temp_prior_fusion_adaptor_1
            fusion = self.prior_fusion
        else:
            first, later = self.mv_y_prior_fusion_adaptor_temp_0, self.mv_y_prior_fusion_adaptor_temp_1
            fusion = self.PA
        if memory.after_intra:
            return fusion(first(hyper))
        known = [hyper, memory.ref_mv_y] if self.config.buffer.latent else [hyper]
        if self.pred_prior is not None:
            seen = [memory.frame] * self.sees_frame + [memory.flow] * self.config.buffer.flow
            known.append(self.pred_prior(torch.cat(seen, 1)))
        return fusion(later(torch.cat(known, 1)))

    def _gain(self, name: str, qp: int | Tensor) -> Tensor | None:
        return getattr(self, name)[qp] if self.config.variable_rate else None
