"""HyTIP (ICCV 2025): the whole data flow of one frame, for estimating, encoding, decoding and training alike.

    frame, memory -> motion estimation -> motion codec -> context mining -> inter codec -> decoded frame, memory

A coder object decides whether bits are estimated, written or read (models/entropy/coder.py). Shapes: frames
B 3 H W, H and W multiples of 16.
"""
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from models.codec import CodedFrame, Formats, FrameHeader, Latent, Training, VideoCodec
from models.entropy.coder import Coder
from models.flow.spynet import MotionEstimation
from models.hytip.config import ModelConfig
from models.hytip.inter import FRAME_TYPES, InterCodec
from models.hytip.memory import HybridMemory
from models.hytip.motion import CodedMotion, MotionCodec
from models.intra.dcvc_dc import ANCHORS, IntraCodec
from models.layers.functional import crop, pad_to_multiple

INTRA_GRID = 64
"""I-frames are padded to multiples of this."""


class HyTIP(VideoCodec):
    """The four networks, and how a frame passes through them."""

    config_type = ModelConfig
    roots = {"intra": "if_model.module.net", "motion_estimation": "MENet.module.net",
             "motion": "CondMotion.module.net", "inter": "Residual.module.net"}
    frame_types = FRAME_TYPES

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.intra = IntraCodec(config.intra, interpolated=config.variable_rate)
        self.motion_estimation = MotionEstimation(config.motion_estimation)
        self.motion = MotionCodec(config.motion, sees_frame=config.inter.buffer.frame)
        self.inter = InterCodec(config.inter)

    def code_frame(self, coder: Coder, frame: Tensor | None, memory: HybridMemory | None, header: FrameHeader
                   ) -> CodedFrame:
        if header.intra:
            return self._code_intra(coder, frame, header)
        flow = None if frame is None else self.motion_estimation(frame, memory.frame)
        motion = self.motion(coder, flow, memory, header.qp)
        if header.refresh:
            memory = replace(memory, ref_feature=None)
        prediction = self.inter.predict(memory, motion.flow_hat, header.frame_type)
        coded = self.inter(coder, frame, prediction, memory, header.qp)
        decoded = coded.frame if self.training else coded.frame.clamp(0, 1)
        remembered = replace(self._remember_motion(decoded, motion), ref_feature=coded.feature,
                             ref_y=coded.y_hat if self.config.inter.buffer.latent else None)
        views = {"flow": flow, "decoded_flow": motion.flow_hat, "mc": prediction.mc_frame, "mask": prediction.mask,
                 "prediction": prediction.frame}
        return CodedFrame(decoded, remembered, {name: view for name, view in views.items() if view is not None})

    def _code_intra(self, coder: Coder, frame: Tensor | None, header: FrameHeader) -> CodedFrame:
        height, width = header.size
        padded = None if frame is None else pad_to_multiple(frame, INTRA_GRID)
        size = height + -height % INTRA_GRID, width + -width % INTRA_GRID
        decoded = crop(self.intra(coder, padded, size, header.qp), header.size)
        decoded = decoded if self.training else decoded.clamp(0, 1)      # as in the release; its losses need it
        return CodedFrame(decoded, self.remember_frame(decoded))

    def remember_frame(self, frame: Tensor) -> HybridMemory:
        return HybridMemory(frame=frame)

    # Parts of the way, for stages of training

    def partial_paths(self) -> dict[str, Callable[..., CodedFrame]]:
        contexts = {"contexts": self.code_contexts} if self.config.inter.Pretrain else {}
        return {"motion": self.code_motion, **contexts}

    def code_motion(self, coder: Coder, frame: Tensor, memory: HybridMemory, header: FrameHeader) -> CodedFrame:
        """The motion alone; the source becomes the next reference."""
        coded, _ = self._code_motion(coder, frame, memory, header)
        return coded

    def code_contexts(self, coder: Coder, frame: Tensor, memory: HybridMemory, header: FrameHeader) -> CodedFrame:
        """Up to the contexts, of which three heads make frames (`Pretrain`); the source becomes the next reference."""
        coded, flow_hat = self._code_motion(coder, frame, memory, header)
        prediction = self.inter.predict(memory, flow_hat, header.frame_type)
        heads = self.inter.context_frames(prediction.contexts)
        views = {"mc": prediction.mc_frame, **{f"context_frame{n}": made for n, made in enumerate(heads, start=1)}}
        return coded._replace(views={**coded.views, **views})

    def _code_motion(self, coder: Coder, frame: Tensor, memory: HybridMemory, header: FrameHeader
                     ) -> tuple[CodedFrame, Tensor]:
        flow = self.motion_estimation(frame, memory.frame)
        motion = self.motion(coder, flow, memory, header.qp)
        views = {"flow": flow, "decoded_flow": motion.flow_hat}
        return CodedFrame(frame, self._remember_motion(frame, motion), views), motion.flow_hat

    def _remember_motion(self, frame: Tensor, motion: CodedMotion) -> HybridMemory:
        """What a frame leaves of which the motion was coded."""
        kept = self.config.motion.buffer
        return HybridMemory(frame=frame, flow=motion.flow_hat if kept.flow else None,
                            ref_mv_feature=motion.feature if kept.feature is not None else None,
                            ref_mv_y=motion.y_hat if kept.latent else None, explicit=self.config.inter.buffer.frame)

    # What the codec declares

    def latents(self, intra: bool) -> tuple[Latent, ...]:
        if intra:
            own = self.intra
            return (Latent("iz", own.bit_estimator_z.channels, 64, own.bit_estimator_z, INTRA_GRID),
                    Latent("iy", own.y_channels, 16, own.y_model, INTRA_GRID, own.passes))
        motion, inter = self.motion, self.inter
        return (Latent("mz", motion.bit_estimator_z_mv.channels, 64, motion.bit_estimator_z_mv),
                Latent("my", self.config.motion.channel_N, 16, motion.gaussian_conditional),
                Latent("rz", inter.bit_estimator_z.channels, 64, inter.bit_estimator_z),
                Latent("ry", self.config.inter.g_ch_16x, 16, inter.y_model,
                       passes=None if self.config.inter.no_context else inter.passes))

    def rates(self, intra: bool) -> int:
        """A model of a single rate still has the four anchors of its intra codec."""
        return ANCHORS if intra and self.single_rate else super().rates(intra)

    @property
    def single_rate(self) -> bool:
        return not self.config.variable_rate

    @property
    def settings(self) -> dict[str, object]:
        motion, inter = self.config.motion, self.config.inter
        return {**({"no_motion": True} if motion.no_motion else {}),
                **({} if inter.clamp_residual else {"clamp_residual": False}),
                **({"float32_contexts": True} if inter.float32_contexts else {}),
                **self.config.intra.settings}

    @property
    def feature_channels(self) -> int | None:
        return self.config.inter.buffer.feature

    @classmethod
    def for_training(cls) -> Training:
        from models.hytip.training import TRAINING  # nobody who only codes needs it
        return TRAINING

    @classmethod
    def is_dropped(cls, released: str) -> bool:
        """Loss and pre-training heads."""
        return (released.startswith(("criterion.", "feature_frame_generate."))
                or (released.startswith("Residual.") and "mc_generate" in released.replace("mc_generator", "")))

    def formats(self) -> Formats:
        motion, inter = self.motion, self.inter
        half = [motion.feature_extractor, motion.mv_encoder, motion.mv_decoder, motion.feature_generator,
                inter.contextual_encoder, inter.contextual_decoder, inter.recon_generation_net,
                inter.frame_feature_generator]
        contexts = [inter.feature_adaptor_I,
                    *(() if self.config.inter.buffer.feature is None else inter.feature_adaptor),
                    inter.feature_extractor, inter.context_fusion_net]
        exact = [motion.mv_encoder.enc_3[-1], motion.mv_decoder.dec_3[-1], inter.mc_generator,
                 inter.contextual_encoder.conv4, inter.contextual_encoder.CTM, inter.recon_generation_net.recon_conv,
                 inter.temporal_prior_encoder]
        (exact if self.config.inter.float32_contexts else half).extend(contexts)
        if inter.MaskGenerator is not None:
            half.append(inter.MaskGenerator.net)
            exact.append(inter.MaskGenerator.net.up_1[-1])
        if self.config.inter.Pretrain:
            exact += [inter.mc_generate_1, inter.mc_generate_2, inter.mc_generate_3, inter.mc_generate_3_2]
        own = Formats(
            analysis=(motion.mv_encoder, motion.mv_hyper_prior_encoder, inter.contextual_encoder,
                      inter.contextual_hyper_prior_encoder),
            half=[part for part in half if part is not None],
            exact=[part for part in exact if part is not None],
            exact_to_half=[inter.contextual_decoder.CTM])
        return own.joined(self.intra.formats(), self.motion_estimation.formats())
