"""Inter codec (HyTIP, sections 3.3 and 3.4): masked conditional residual coding with hybrid memory, and its relatives.

    memory, flow_hat -> predict -> contexts, mc_frame, mask
    frame - mask * mc_frame -> contextual_encoder -> y -> hyperprior, temporal prior, context model -> y_hat
    y_hat, contexts -> contextual_decoder -> recon_generation_net -> residual_hat; + mask * mc_frame

Shapes: frames B 3 H W; contexts at 1/1, 1/2, 1/4; y B g_ch_16x H/16 W/16.
"""
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.context_mining import ContextFusion, FeatureExtractor, Pyramid, warped
from models.entropy.coder import Coder
from models.entropy.distributions import Factorized, Gaussian
from models.hytip.config import InterConfig
from models.hytip.memory import HybridMemory, Prediction
from models.hytip.prediction import FrameGenerator, MaskGenerator
from models.latent import code_hyper, code_with_parameters, hyper_decoder, hyper_encoder
from models.layers.attention import ChannelTransform
from models.layers.blocks import PlainBlock, SumBlock, conv, leaky, subpel
from models.layers.functional import crop
from models.layers.unet import UNet
from models.spatial_prior import INTER_SCHEDULE, passes

FRAME_TYPES = 3


class CodedResidual(NamedTuple):
    """Attributes:
        frame: decoded frame, B 3 H W, unclamped.
        feature: implicit feature at full resolution, or None without implicit memory.
        y_hat: decoded latent.
    """
    frame: Tensor
    feature: Tensor | None
    y_hat: Tensor


def _channel_transform(c: InterConfig) -> nn.Module:
    params = c.CTM_Params
    if not c.has_ctm:
        return nn.Identity()
    return ChannelTransform(c.g_ch_16x, params.CTM_depth, params.CTM_head, params.CA_bias, params.CTM_channel,
                            params.CTM_hidden)


NO_CONTEXTS = (None, None, None)


def _beside(x: Tensor, context: Tensor | None) -> Tensor:
    """Both in one tensor, where there is a context."""
    return x if context is None else torch.cat((x, context), 1)


class _Encoder(nn.Module):
    def __init__(self, c: InterConfig):
        super().__init__()
        w1, w2, w4 = c.context_widths
        self.conv1 = conv(3 + w1, c.g_ch_2x, stride=2)
        self.res1 = SumBlock(c.g_ch_2x + w2)
        self.conv2 = conv(c.g_ch_2x + w2, c.g_ch_4x, stride=2)
        self.res2 = SumBlock(c.g_ch_4x + w4)
        self.conv3 = conv(c.g_ch_4x + w4, c.g_ch_8x, stride=2)
        self.conv4 = conv(c.g_ch_8x, c.g_ch_16x, stride=2)
        self.CTM = _channel_transform(c)

    def forward(self, residual: Tensor, contexts: Pyramid, gain: Tensor | None) -> Tensor:
        c1, c2, c3 = contexts
        x = self.conv1(_beside(residual, c1))
        x = self.res1(_beside(x, c2))
        x = self.conv2(x if gain is None else x * gain)
        x = self.res2(_beside(x, c3))
        return self.CTM(self.conv4(self.conv3(x)))


class _Decoder(nn.Module):
    def __init__(self, c: InterConfig):
        super().__init__()
        _, w2, w4 = c.context_widths
        self.CTM = _channel_transform(c)
        self.up1 = subpel(c.g_ch_16x, c.g_ch_8x, c.latent_kernel)
        self.up2 = subpel(c.g_ch_8x, c.g_ch_4x, 3)
        self.res1 = SumBlock(c.g_ch_4x + w4)
        self.up3 = subpel(c.g_ch_4x + w4, c.g_ch_2x, 3)
        self.res2 = SumBlock(c.g_ch_2x + w2)
        self.up4 = subpel(c.g_ch_2x + w2, c.recon_channel, 3)

    def forward(self, y_hat: Tensor, contexts: Pyramid, gain: Tensor | None) -> Tensor:
        _, c2, c3 = contexts
        x = self.up2(self.up1(self.CTM(y_hat)))
        x = self.up3(self.res1(_beside(x, c3)))
        x = self.res2(_beside(x if gain is None else x * gain, c2))
        return self.up4(x)


class _ReconGeneration(nn.Module):
    """The decoded residual from decoder feature and finest context."""

    def __init__(self, c: InterConfig):
        super().__init__()
        self.first_conv = conv(c.recon_channel + c.context_widths[0], c.g_ch_1x)
        for n in range(c.unets):
            self.add_module(f"unet_{n + 1}", UNet(c.g_ch_1x, c.g_ch_1x, SumBlock, c.unet_channels))
        self.recon_conv = conv(c.g_ch_1x, 3)

    @property
    def unets(self) -> list[UNet]:
        return [part for part in self.children() if isinstance(part, UNet)]

    def forward(self, x: Tensor, context: Tensor | None, gain: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns the residual and the feature before the gain."""
        feature = self.first_conv(_beside(x, context))
        for unet in self.unets:
            feature = unet(feature)
        return self.recon_conv(feature if gain is None else feature * gain), feature


class _FeatureGenerator(nn.Module):
    """The implicit feature that is remembered."""

    def __init__(self, c: InterConfig):
        super().__init__()
        self.recon_conv = conv(c.g_ch_1x, c.buffer.feature)

    def forward(self, feature: Tensor) -> Tensor:
        return self.recon_conv(feature)


class _ContextModel(nn.Module):
    """Parameters of the next pass from what is coded and the initial parameters; one network for all passes."""

    def __init__(self, c: InterConfig):
        super().__init__()
        self.y_spatial_prior = PlainBlock(3 * c.g_ch_16x, 2 * c.g_ch_16x, c.prior_expansion, c.latent_hidden)
        self.gaussian_conditional = Gaussian()

    def forward(self, y_hat: Tensor, scales: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
        return self.y_spatial_prior(torch.cat((y_hat, scales, means), 1)).chunk(2, 1)


class InterCodec(nn.Module):
    """Predicts a frame from the memory and codes the residual."""

    def __init__(self, config: InterConfig):
        super().__init__()
        c = self.config = config
        y = c.g_ch_16x
        if c.variable_rate:
            self.q_encoder = nn.Parameter(torch.ones(64, c.g_ch_2x + c.context_widths[1], 1, 1))
            self.q_decoder = nn.Parameter(torch.ones(64, c.g_ch_2x, 1, 1))
            self.q_feature = nn.Parameter(torch.ones(64, c.g_ch_1x, 1, 1))   # in the released files, without effect
            self.q_recon = nn.Parameter(torch.ones(64, c.g_ch_1x, 1, 1))
        self.bit_estimator_z = Factorized(c.g_ch_z)
        self.mc_generator = FrameGenerator(c) if c.predicts else None
        if c.Pretrain:
            self._add_pretraining_heads()
        self.MaskGenerator = MaskGenerator(c) if c.has_mask else None
        self.feature_adaptor_I = conv(3, c.g_ch_1x)
        if c.buffer.feature is not None:
            known = c.buffer.feature + 3 * c.buffer.frame
            self.feature_adaptor = nn.ModuleList(conv(known, c.g_ch_1x, 1) for _ in range(FRAME_TYPES))
        self.feature_extractor = FeatureExtractor(c.g_ch_1x, c.g_ch_2x, c.g_ch_4x)
        self.context_fusion_net = ContextFusion(c.g_ch_1x, c.g_ch_2x, c.g_ch_4x)
        self.contextual_encoder = _Encoder(c)
        self.contextual_hyper_prior_encoder = hyper_encoder(SumBlock, y, c.g_ch_z, c.latent_hidden)
        self.contextual_hyper_prior_decoder = hyper_decoder(SumBlock, c.g_ch_z, y, c.latent_hidden)
        self.temporal_prior_encoder = None
        if c.uses_contexts:
            self.temporal_prior_encoder = nn.Sequential(conv(c.g_ch_4x, c.g_ch_8x, stride=2), leaky(0.1),
                                                        conv(c.g_ch_8x, y, stride=2))
        inner, expansion = c.prior_channel or 3 * y, c.prior_expansion
        hidden = c.latent_hidden
        known = (2 if c.uses_contexts else 1) * y
        self.y_prior_fusion_adaptor_0 = PlainBlock(known, inner, expansion, hidden)
        if c.buffer.latent:
            self.y_prior_fusion_adaptor_1 = PlainBlock(known + y, inner, expansion, hidden)
        self.y_prior_fusion = nn.Sequential(PlainBlock(inner, inner, expansion),
                                            PlainBlock(inner, 3 * y, expansion, hidden))
        if c.no_context:
            self.gaussian_conditional = Gaussian()
        else:
            self.context_model = _ContextModel(c)
        self.contextual_decoder = _Decoder(c)
        self.recon_generation_net = _ReconGeneration(c)
        self.frame_feature_generator = _FeatureGenerator(c) if c.buffer.feature is not None else None

    def predict(self, memory: HybridMemory, flow_hat: Tensor, frame_type: int = 0) -> Prediction:
        """Mine contexts from the memory and predict the frame.

        Args:
            memory: with `ref_feature` None, the reference frame alone is used (`feature_adaptor_I`).
            flow_hat: decoded flow, B 2 H W.
            frame_type: 0..2, the adaptor for cat(ref_feature, frame).
        """
        contexts = self.context_fusion_net(self._warped(memory, flow_hat, frame_type))
        if self.mc_generator is None:
            return Prediction(contexts, None, None, None)
        mc_frame = self.mc_generator(contexts[0])
        if self.MaskGenerator is None:
            return Prediction(contexts, mc_frame, None, mc_frame)
        mask = self.MaskGenerator(flow_hat, mc_frame)
        return Prediction(contexts, mc_frame, mask, mask * mc_frame)

    def _warped(self, memory: HybridMemory, flow_hat: Tensor, frame_type: int) -> Pyramid:
        """Features of the reference, each level displaced by the flow at its resolution."""
        if memory.ref_feature is None:
            feature = self.feature_adaptor_I(memory.frame)
        else:
            frame = memory.frame if self.config.buffer.frame else None
            feature = self.feature_adaptor[frame_type](_beside(memory.ref_feature, frame))
        return warped(self.feature_extractor(feature), flow_hat)

    def forward(self, coder: Coder, frame: Tensor | None, prediction: Prediction, memory: HybridMemory,
                qp: int | Tensor) -> CodedResidual:
        """Code the residual of one frame.

        Args:
            frame: B 3 H W in [0, 1], or None when decoding. H and W are multiples of 16.
            prediction: what `predict` returned.
            memory: `ref_y` helps the prior where remembered.
            qp: rate index 0..63, an int or int64 (B,); ignored by single-rate models.
        """
        contexts = prediction.contexts if self.config.uses_contexts else NO_CONTEXTS
        y = None
        if frame is not None:
            source = frame if prediction.frame is None else frame - prediction.frame
            y = self.contextual_encoder(source, contexts, self._gain("q_encoder", qp))
        size = (memory.frame.shape[-2] // 16, memory.frame.shape[-1] // 16)
        z_hat = code_hyper(coder, y, size, self.contextual_hyper_prior_encoder, self.bit_estimator_z, "rz")
        hyper = crop(self.contextual_hyper_prior_decoder(z_hat), size)
        y_hat = self._code_y(coder, y, self._prior(hyper, contexts, memory))
        x = self.contextual_decoder(y_hat, contexts, self._gain("q_decoder", qp))
        residual, feature = self.recon_generation_net(x, contexts[0], self._gain("q_recon", qp))
        if self.frame_feature_generator is not None:
            feature = self.frame_feature_generator(feature)
        else:
            feature = None
        # The clamp belongs to the residual: so it is in the released system, in training too.
        decoded = residual.clamp(0, 1) if self.config.clamp_residual else residual
        return CodedResidual(decoded if prediction.frame is None else decoded + prediction.frame, feature, y_hat)

    def _prior(self, hyper: Tensor, contexts: Pyramid, memory: HybridMemory) -> Tensor:
        """Step, scale and mean of y, from hyper features, the coarsest context and the last latent."""
        known = hyper
        if self.temporal_prior_encoder is not None:
            known = torch.cat((self.temporal_prior_encoder(contexts[2]), hyper), 1)
        if memory.ref_y is None:
            return self.y_prior_fusion(self.y_prior_fusion_adaptor_0(known))
        return self.y_prior_fusion(self.y_prior_fusion_adaptor_1(torch.cat((known, memory.ref_y), 1)))

    def _code_y(self, coder: Coder, y: Tensor | None, parameters: Tensor) -> Tensor:
        if self.config.no_context:
            return code_with_parameters(coder, y, parameters, self.y_model, "ry")
        where = self.passes(tuple(parameters.shape[-2:]), parameters.device)
        return code_with_parameters(coder, y, parameters, self.y_model, "ry", where, lambda n: self._refined)

    def _refined(self, y_hat: Tensor, step: Tensor, scales: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
        return self.context_model(y_hat, scales, means)

    def passes(self, size: tuple[int, int], device: torch.device) -> tuple[Tensor, ...]:
        """Flat positions of each pass into a y of height and width `size`."""
        return passes(INTER_SCHEDULE, self.config.g_ch_16x, size, device)

    @property
    def y_model(self) -> Gaussian:
        """The distribution of y."""
        return self.gaussian_conditional if self.config.no_context else self.context_model.gaussian_conditional

    def _gain(self, name: str, qp: int | Tensor) -> Tensor | None:
        return getattr(self, name)[qp] if self.config.variable_rate else None

    def _add_pretraining_heads(self) -> None:
        c = self.config
        self.mc_generate_1 = conv(c.g_ch_1x, 3)
        self.mc_generate_2 = self._upsampling_head(c.g_ch_2x, 3)
        self.mc_generate_3 = self._upsampling_head(c.g_ch_4x, c.g_ch_2x)
        self.mc_generate_3_2 = self._upsampling_head(c.g_ch_2x, 3)

    @staticmethod
    def _upsampling_head(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(nn.PReLU(), conv(inputs, outputs),
                             nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))

    def context_frames(self, contexts: Pyramid) -> Pyramid:
        """Frames from each context, for the pre-training of context mining (`Pretrain`); all B 3 H W."""
        c1, c2, c3 = contexts
        return self.mc_generate_1(c1), self.mc_generate_2(c2), self.mc_generate_3_2(self.mc_generate_3(c3))
