"""What crosses the border of one frame: what is decided about it, what is remembered, what comes out.

Shapes: H W is the size of the aligned frame (a multiple of 16).
"""
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


@dataclass(frozen=True)
class FrameHeader:
    """Everything decided about a frame before it is coded; all of it travels in the stream.

    Attributes:
        intra: an I-frame; it resets the memory.
        qp: index of the rate, 0 = lowest quality; an int, or int64 (B,) in training. For an I-frame of a single-rate
            model it counts the four anchors 0..3, otherwise it lies in 0..63.
        size: height and width of the aligned frame.
        frame_type: which of the three `feature_adaptor`s a P-frame uses, 0..2.
        forget_feature: a P-frame that drops `ref_feature` (`--reset_interval`).
    """
    intra: bool
    qp: int | Tensor
    size: tuple[int, int]
    frame_type: int = 0
    forget_feature: bool = False


@dataclass(frozen=True)
class Memory:
    """The hybrid buffer (HyTIP, section 3): explicit frame and flow, implicit features and latents.

    Everything but the frame is None after an I-frame; a reset is a new Memory.

    Attributes:
        frame: decoded frame, B 3 H W, in [0, 1].
        flow: decoded flow of the last P-frame, B 2 H W.
        ref_feature: implicit feature of the inter codec, B feature_channel H W.
        ref_y: last inter latent, B g_ch_16x H/16 W/16.
        ref_mv_feature: implicit feature of the motion codec, B implicit_channel H/4 W/4.
        ref_mv_y: last motion latent, B channel_N H/16 W/16.
    """
    frame: Tensor
    flow: Tensor | None = None
    ref_feature: Tensor | None = None
    ref_y: Tensor | None = None
    ref_mv_feature: Tensor | None = None
    ref_mv_y: Tensor | None = None

    def buffer_size(self) -> float:
        """Values kept per pixel of the frame ("full-resolution channels"; 7.875 for the released model)."""
        kept = (self.frame, self.flow, self.ref_feature, self.ref_y, self.ref_mv_feature, self.ref_mv_y)
        pixels = self.frame[:, :1].numel()
        return sum(x.numel() for x in kept if x is not None) / pixels


class Prediction(NamedTuple):
    """What context mining knows of a frame before its residual is coded.

    Attributes:
        contexts: features of the warped reference at 1/1, 1/2 and 1/4; None once the frame is coded, because they are
            large.
        mc_frame: motion-compensated frame, B 3 H W, unmasked and unclamped.
        mask: soft mask in (0, 1), B 1 H W, or None without one.
        frame: mask * mc_frame, what is subtracted from the source.
    """
    contexts: tuple[Tensor, Tensor, Tensor] | None
    mc_frame: Tensor
    mask: Tensor | None
    frame: Tensor


class CodedFrame(NamedTuple):
    """The outcome of one frame. The P-frame fields are None for an I-frame, `flow` also when decoding.

    Attributes:
        frame: decoded frame, B 3 H W; in [0, 1] except in training, where a P-frame stays unclamped.
        memory: what the next frame may use.
        flow: estimated flow, B 2 H W.
        flow_hat: decoded flow, B 2 H W.
        prediction: contexts, mask and predicted frame.
    """
    frame: Tensor
    memory: Memory
    flow: Tensor | None = None
    flow_hat: Tensor | None = None
    prediction: Prediction | None = None
