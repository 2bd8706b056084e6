"""HyTIP (ICCV 2025): the whole data flow of one frame, for estimating, encoding, decoding and training alike.

    frame, memory -> motion estimation -> motion codec -> context mining -> inter codec -> decoded frame, memory

A coder object decides whether bits are estimated, written or read (models/entropy/coder.py). Shapes: frames
B 3 H W, H and W multiples of 16.
"""
from dataclasses import replace

from torch import Tensor, nn

from models.entropy.coder import Coder
from models.flow.spynet import MotionEstimation
from models.hytip.config import ModelConfig
from models.hytip.inter import InterCodec
from models.hytip.motion import MotionCodec
from models.intra.dcvc_dc import IntraCodec
from models.layers.functional import crop, pad_to_multiple
from models.memory import CodedFrame, FrameHeader, Memory


class HyTIP(nn.Module):
    """The four networks, and how a frame passes through them."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.intra = IntraCodec(config.intra, interpolated=config.variable_rate)
        self.motion_estimation = MotionEstimation(config.motion_estimation)
        self.motion = MotionCodec(config.motion)
        self.inter = InterCodec(config.inter)

    def code_frame(self, coder: Coder, frame: Tensor | None, memory: Memory | None, header: FrameHeader) -> CodedFrame:
        """Code one frame.

        Args:
            coder: estimates, writes or reads the symbols.
            frame: the source, B 3 H W in [0, 1] of header.size, or None when decoding.
            memory: what the previous frame left; ignored by an I-frame.
            header: what was decided about the frame.
        """
        if header.intra:
            return self._code_intra(coder, frame, header)
        flow = None if frame is None else self.motion_estimation(frame, memory.frame)
        motion = self.motion(coder, flow, memory, header.qp)
        if header.forget_feature:
            memory = replace(memory, ref_feature=None)
        prediction = self.inter.predict(memory, motion.flow_hat, header.frame_type)
        coded = self.inter(coder, frame, prediction, memory, header.qp)
        decoded = coded.frame if self.training else coded.frame.clamp(0, 1)
        remembered = Memory(
            frame=decoded,
            flow=motion.flow_hat,
            ref_feature=coded.feature,
            ref_y=coded.y_hat if self.config.inter.remembers else None,
            ref_mv_feature=motion.feature if self.config.motion.remembers_feature else None,
            ref_mv_y=motion.y_hat if self.config.motion.remembers_latent else None)
        return CodedFrame(decoded, remembered, flow, motion.flow_hat, prediction._replace(contexts=None))

    def _code_intra(self, coder: Coder, frame: Tensor | None, header: FrameHeader) -> CodedFrame:
        """The intra codec works on multiples of 64."""
        height, width = header.size
        padded = None if frame is None else pad_to_multiple(frame, 64)
        decoded = self.intra(coder, padded, (height + -height % 64, width + -width % 64), header.qp)
        decoded = crop(decoded, header.size).clamp(0, 1)
        return CodedFrame(decoded, Memory(frame=decoded))
