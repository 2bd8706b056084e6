"""DCVC-HEM (Li et al., ACM MM 2022, arXiv 2207.05894): the whole data flow of one frame.

    frame, memory -> motion estimation -> motion codec -> context mining -> contextual codec -> decoded frame, memory

A coder object decides whether bits are estimated, written or read (models/entropy/coder.py). Shapes: frames
B 3 H W, H and W multiples of 64; what pads them is coded like the rest. One model has all rates.
"""
from collections.abc import Callable

from torch import Tensor, nn

from models.codec import RATES, CodedFrame, Formats, FrameHeader, Grid, Latent, Training, VideoCodec
from models.entropy.coder import Coder
from models.flow.spynet import MotionEstimation as NormalisedSPyNet
from models.hem.config import HemConfig
from models.hem.inter import CodedContent, InterCodec, Prediction
from models.hem.intra import IntraCodec
from models.hem.latent import dual_passes
from models.hem.memory import HemMemory
from models.hem.motion import CodedMotion, MotionCodec
from models.hem.motion_estimation import MotionEstimation
from models.hem.rates import steps_of
from models.hem.training import TRAINING
from models.intra.dcvc_dc import IntraCodec as DCIntraCodec


class DCVCHEM(VideoCodec):
    """The four networks, and how a frame passes through them.

    Codecs that build on it name their own networks (`make_motion`, `make_inter`) and, where they remember more, their
    memory (`make_memory`), and override `remember` and `views`.
    """
    config_type = HemConfig
    roots = {"intra": "image", "motion_estimation": "video.optic_flow", "motion": "video", "inter": "video"}
    grid = Grid(64, "zeros")
    make_motion: type[nn.Module] = MotionCodec
    make_inter: type[nn.Module] = InterCodec
    make_memory: type[HemMemory] = HemMemory

    def __init__(self, config: HemConfig):
        super().__init__()
        self.config = config
        self.intra = IntraCodec(config) if config.intra is None else DCIntraCodec(config.intra)
        flow = config.motion_estimation
        self.motion_estimation = MotionEstimation(config.flow_channels) if flow is None else NormalisedSPyNet(flow)
        self.motion = self.make_motion(config)
        self.inter = self.make_inter(config)

    def code_frame(self, coder: Coder, frame: Tensor | None, memory: HemMemory | None, header: FrameHeader
                   ) -> CodedFrame:
        if header.intra:
            decoded = self._bounded(self.intra(coder, frame, header.size, header.qp))
            return CodedFrame(decoded, self.remember_frame(decoded))
        flow = None if frame is None else self.motion_estimation(frame, memory.frame)
        motion = self.motion(coder, flow, memory, self.step(self.motion.mv_y_q_scale, header))
        prediction = self.inter.predict(memory, motion)
        coded = self.inter(coder, frame, prediction, memory, self.step(self.inter.y_q_scale, header))
        decoded = self._bounded(coded.frame)
        views = {} if flow is None else {"flow": flow}
        return CodedFrame(decoded, self.remember(decoded, motion, prediction, coded),
                          views | self.views(motion, prediction))

    def step(self, anchors: Tensor, header: FrameHeader) -> Tensor:
        """The global step of a latent from its four anchors, 1 1 1 or, where each sample has its QP, B 1 1 1."""
        return steps_of(anchors, self.config.rate_points)[header.qp]

    def remember(self, decoded: Tensor, motion: CodedMotion, prediction: Prediction, coded: CodedContent) -> HemMemory:
        """What a P-frame leaves for the next one."""
        return HemMemory(decoded, ref_feature=coded.feature, ref_y=coded.y_hat, ref_mv_y=motion.y_hat)

    def views(self, motion: CodedMotion, prediction: Prediction) -> dict[str, Tensor]:
        """What there is to see of a P-frame that the decoder knows, too."""
        return {"decoded_flow": motion.flow_hat}

    def remember_frame(self, frame: Tensor) -> HemMemory:
        return self.make_memory(frame)

    def _bounded(self, frame: Tensor) -> Tensor:
        return frame if self.training else frame.clamp(0, 1)

    # What the codec declares

    def latents(self, intra: bool) -> tuple[Latent, ...]:
        config = self.config
        if intra:
            own = self.intra
            return (Latent("iz", own.bit_estimator_z.channels, 64, own.bit_estimator_z),
                    Latent("iy", own.y_channels, 16, own.y_model, passes=own.passes))
        motion, inter = self.motion, self.inter
        return (Latent("mz", config.channel_mv, 64, motion.bit_estimator_z_mv),
                Latent("my", config.channel_mv, 16, motion.y_model, passes=dual_passes(config.channel_mv)),
                Latent("rz", config.channel_N, 64, inter.bit_estimator_z),
                Latent("ry", config.channel_M, 16, inter.y_model, passes=dual_passes(config.channel_M)))

    def partial_paths(self) -> dict[str, Callable[..., CodedFrame]]:
        return {"motion": self.code_motion}

    def code_motion(self, coder: Coder, frame: Tensor, memory: HemMemory, header: FrameHeader) -> CodedFrame:
        """The motion alone; the source becomes the next reference."""
        flow = self.motion_estimation(frame, memory.frame)
        motion = self.motion(coder, flow, memory, self.step(self.motion.mv_y_q_scale, header))
        return CodedFrame(frame, self.make_memory(frame, ref_mv_y=motion.y_hat),
                          {"flow": flow, "decoded_flow": motion.flow_hat})

    @classmethod
    def for_training(cls) -> Training:
        return TRAINING

    @classmethod
    def plain_roots(cls) -> dict[str, str]:
        """Networks have our names: in the weight files three of them are one."""
        return {name: name for name in cls.roots}

    def rates(self, intra: bool) -> int:
        """Pieces between the four anchors, or the rate points of the released evaluation."""
        return self.config.rate_points or RATES

    @property
    def settings(self) -> dict[str, object]:
        c = self.config
        return {**({} if c.intra is None else c.intra.settings),
                **({} if c.rate_points is None else {"rate_points": c.rate_points})}

    def formats(self) -> Formats:
        motion, inter = self.motion, self.inter
        analysis = (motion.mv_encoder, motion.mv_hyper_prior_encoder, inter.contextual_encoder,
                    inter.contextual_hyper_prior_encoder)
        half = (motion.mv_encoder, motion.mv_decoder, inter.feature_adaptor_I, inter.feature_adaptor_P,
                inter.feature_extractor, inter.context_fusion_net, inter.contextual_encoder, inter.contextual_decoder,
                inter.recon_generation_net)
        exact = (motion.mv_encoder[-1], motion.mv_decoder[-1], inter.contextual_encoder.conv4,
                 inter.temporal_prior_encoder, inter.recon_generation_net.recon_conv)
        return Formats(analysis, half, exact).joined(self.intra.formats(), self.motion_estimation.formats())
