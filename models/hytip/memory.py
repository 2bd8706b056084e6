"""What HyTIP remembers, and what it predicts from it.

Shapes: H W is the size of the padded frame (a multiple of 16).
"""
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from models.codec import Memory


@dataclass(frozen=True)
class HybridMemory(Memory):
    """The hybrid buffer (HyTIP, section 3): explicit frame and flow, implicit features and latents.

    Everything but the frame is None after an I-frame.

    Attributes:
        flow: decoded flow of the last P-frame, B 2 H W.
        ref_feature: implicit feature of the inter codec, B feature_channel H W.
        ref_y: last inter latent, B g_ch_16x H/16 W/16.
        ref_mv_feature: implicit feature of the motion codec, B implicit_channel H/4 W/4.
        ref_mv_y: last motion latent, B channel_N H/16 W/16.
        explicit: whether the codec uses the frame of a P-frame as reference.
    """
    flow: Tensor | None = None
    ref_feature: Tensor | None = None
    ref_y: Tensor | None = None
    ref_mv_feature: Tensor | None = None
    ref_mv_y: Tensor | None = None
    explicit: bool = True

    def tensors(self, decoder: bool = False) -> dict[str, Tensor]:
        """As in `Memory`; without explicit buffering only an encoder keeps the frame, to estimate motion from."""
        found = {name: value for name, value in super().tensors(decoder).items() if name != "explicit"}
        if decoder and not self.explicit and self.ref_feature is not None:
            del found["frame"]
        return found

    @property
    def after_intra(self) -> bool:
        """No P-frame has been coded since the last I-frame."""
        return self.flow is None and self.ref_mv_y is None


class Prediction(NamedTuple):
    """What context mining knows of a frame before its residual is coded.

    Attributes:
        contexts: features of the warped reference at 1/1, 1/2 and 1/4.
        mc_frame: motion-compensated frame, B 3 H W, unmasked and unclamped; None in conditional coding.
        mask: soft mask in (0, 1), B 1 H W, or None without one.
        frame: mask * mc_frame, what is subtracted from the source; None in conditional coding.
    """
    contexts: tuple[Tensor, Tensor, Tensor]
    mc_frame: Tensor | None
    mask: Tensor | None
    frame: Tensor | None
