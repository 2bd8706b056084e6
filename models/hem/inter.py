"""Contextual codec of DCVC-HEM (Li et al., ACM MM 2022, section 3; contexts as in DCVC-TCM).

    memory, flow_hat -> predict -> three contexts
    frame, contexts -> contextual_encoder -> / steps -> y -> hyperprior, temporal prior, ref_y -> two passes -> y_hat
    y_hat, contexts -> contextual_decoder -> recon_generation_net -> frame

Nothing is subtracted from the frame. Shapes: frames B 3 H W, H and W multiples of 64; contexts at 1/1, 1/2 and 1/4, of
the channels that `HemConfig.scales` has for these; y B channel_M H/16 W/16. Codecs that build on this one override how
features are aligned (`align_features`), what goes into the parameters (`known`, `join_prior`, `fuse_priors`), or have
an encoder and a decoder of their own (`make_encoder`, `make_decoder`), which join features with contexts in another way
(`join_half`, `join_quarter`).
"""
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.context_mining import ContextFusion, FeatureExtractor, Pyramid, warped
from models.entropy.coder import Coder
from models.entropy.distributions import Added, Factorized, Laplace
from models.hem.config import HemConfig
from models.hem.latent import channel_steps, code_with_dual_prior
from models.hem.memory import HemMemory
from models.hem.motion import CodedMotion
from models.latent import code_hyper
from models.layers.blocks import conv, leaky, subpel
from models.layers.residual import BottleneckRes, ReluRes, SqueezeExciteBlock
from models.layers.transforms import hyper_synthesis, prior_network
from models.layers.unet import UNet


class Prediction(NamedTuple):
    """What context mining makes of the memory.

    Attributes:
        contexts: features of the warped reference at 1/1, 1/2 and 1/4.
    """
    contexts: Pyramid


class CodedContent(NamedTuple):
    """Attributes:
        frame: decoded frame, B 3 H W, unclamped.
        feature: what the frame was made of, B C H W.
        y_hat: decoded latent, in the units of the undivided one.
    """
    frame: Tensor
    feature: Tensor
    y_hat: Tensor


class _Join(nn.Module):
    """How features are joined with a context of their resolution: B N H W twice -> B 2N H W."""

    def join_half(self, x: Tensor, context: Tensor) -> Tensor:
        """At 1/2."""
        return torch.cat((x, context), 1)

    def join_quarter(self, x: Tensor, context: Tensor) -> Tensor:
        """At 1/4."""
        return torch.cat((x, context), 1)


class ContextualEncoder(_Join):
    """Frame and contexts -> the undivided latent."""

    def __init__(self, c: HemConfig):
        super().__init__()
        full, half, quarter, eighth = c.scales
        self.conv1 = conv(3 + full, half, stride=2)
        self.res1 = BottleneckRes(2 * half)
        self.conv2 = conv(2 * half, quarter, stride=2)
        self.res2 = BottleneckRes(2 * quarter)
        self.conv3 = conv(2 * quarter, eighth, stride=2)
        self.conv4 = conv(eighth, c.channel_M, stride=2)

    def forward(self, frame: Tensor, contexts: Pyramid) -> Tensor:
        full, half, quarter = contexts
        x = self.conv1(torch.cat((frame, full), 1))
        x = self.conv2(self.res1(self.join_half(x, half)))
        x = self.conv3(self.res2(self.join_quarter(x, quarter)))
        return self.conv4(x)


class ContextualDecoder(_Join):
    """Decoded latent and contexts -> features at full resolution, B recon_channel H W."""

    def __init__(self, c: HemConfig):
        super().__init__()
        _, half, quarter, eighth = c.scales
        self.up1 = subpel(c.channel_M, eighth, 3)
        self.up2 = subpel(eighth, quarter, 3)
        self.res1 = BottleneckRes(2 * quarter)
        self.up3 = subpel(2 * quarter, half, 3)
        self.res2 = BottleneckRes(2 * half)
        self.up4 = subpel(2 * half, c.recon_channel, 3)

    def forward(self, y_hat: Tensor, contexts: Pyramid) -> Tensor:
        _, half, quarter = contexts
        x = self.up2(self.up1(y_hat))
        x = self.up3(self.res1(self.join_quarter(x, quarter)))
        return self.up4(self.res2(self.join_half(x, half)))


class FrameGenerator(nn.Module):
    """Decoded features and the finest context -> the frame and the feature it is made of."""

    def __init__(self, c: HemConfig):
        super().__init__()
        n = c.scales[0]
        self.first_conv = conv(c.recon_channel + n, n)
        self.unet_1 = UNet(n, n, SqueezeExciteBlock, c.unet_channels, ReluRes)
        self.unet_2 = UNet(n, n, SqueezeExciteBlock, c.unet_channels, ReluRes)
        self.recon_conv = conv(n, 3)

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        feature = self.unet_2(self.unet_1(self.first_conv(torch.cat((x, context), 1))))
        return self.recon_conv(feature), feature


class InterCodec(nn.Module):
    """Codes a frame, given what the memory says about it."""
    make_encoder: type[nn.Module] = ContextualEncoder
    make_decoder: type[nn.Module] = ContextualDecoder

    def __init__(self, c: HemConfig):
        super().__init__()
        n, m = c.channel_N, c.channel_M
        *features, _ = c.scales
        full, _, quarter = features
        p = c.prior_channel
        self.config = c
        self.y_q_basic = nn.Parameter(torch.ones(1, m, 1, 1))
        self.y_q_scale = nn.Parameter(torch.ones(4, 1, 1, 1))
        self.bit_estimator_z = Factorized(n, Added(), noise=0.5)
        self.feature_adaptor_I = conv(3, full)
        self.feature_adaptor_P = conv(full, full, 1)
        self.feature_extractor = FeatureExtractor(*features)
        self.context_fusion_net = ContextFusion(*features)
        self.contextual_encoder = self.make_encoder(c)
        self.contextual_hyper_prior_encoder = nn.Sequential(
            conv(m, n), leaky(0.01), conv(n, n, stride=2), leaky(0.01), conv(n, n, stride=2))
        self.contextual_hyper_prior_decoder = hyper_synthesis(n, m, p)
        self.temporal_prior_encoder = nn.Sequential(
            conv(quarter, p or 3 * m // 2, stride=2), leaky(0.1), conv(p or 3 * m // 2, 2 * m, stride=2))
        self.y_prior_fusion = prior_network(5 * m, p or 4 * m, p or 3 * m, 3 * m)
        self.y_spatial_prior = prior_network(4 * m, p or 3 * m, p or 3 * m, 2 * m)
        self.y_model = Laplace()
        self.contextual_decoder = self.make_decoder(c)
        self.recon_generation_net = FrameGenerator(c)

    def predict(self, memory: HemMemory, motion: CodedMotion) -> Prediction:
        """The contexts that the decoded motion makes of the memory."""
        if memory.ref_feature is None:
            feature = self.feature_adaptor_I(memory.frame)
        else:
            feature = self.feature_adaptor_P(memory.ref_feature)
        return self.align_features(self.feature_extractor(feature), motion)

    def align_features(self, features: Pyramid, motion: CodedMotion) -> Prediction:
        """Features of the reference, moved to where they are in the frame, and fused."""
        return Prediction(self.context_fusion_net(warped(features, motion.flow_hat)))

    def forward(self, coder: Coder, frame: Tensor | None, prediction: Prediction, memory: HemMemory,
                step: Tensor) -> CodedContent:
        """Code one frame.

        Args:
            frame: B 3 H W, or None when decoding.
            prediction: of `predict`.
            memory: what the previous frame left.
            step: the global step of quantisation, 1 1 1 or B 1 1 1.
        """
        height, width = memory.frame.shape[-2:]
        contexts = prediction.contexts
        steps = channel_steps(self.y_q_basic, step)
        y = None if frame is None else self.contextual_encoder(frame, contexts) / steps
        z_hat = code_hyper(coder, y, (height // 16, width // 16), self.contextual_hyper_prior_encoder,
                           self.bit_estimator_z, "rz")
        temporal = self.temporal_prior_encoder(contexts[2])
        parameters = self.fuse_priors(self.known(temporal, self.contextual_hyper_prior_decoder(z_hat), memory))
        y_hat = code_with_dual_prior(coder, y, parameters, self.y_spatial_prior, self.y_model, "ry") * steps
        return CodedContent(*self.recon_generation_net(self.contextual_decoder(y_hat, contexts), contexts[0]), y_hat)

    def known(self, temporal: Tensor, hyper: Tensor, memory: HemMemory) -> Tensor:
        """What both sides know of the latent before it is coded, B 5M H/16 W/16."""
        previous = memory.ref_y
        if previous is None:
            previous = torch.zeros_like(hyper[:, :self.config.channel_M])
        return torch.cat((self.join_prior(temporal, hyper), previous), 1)

    def join_prior(self, temporal: Tensor, hyper: Tensor) -> Tensor:
        """What the context and the hyper latent say together: B 2M H/16 W/16 twice -> B 4M H/16 W/16."""
        return torch.cat((temporal, hyper), 1)

    def fuse_priors(self, known: Tensor) -> Tensor:
        """Step, scale and mean of each element."""
        return self.y_prior_fusion(known)
