"""What DCVC-HEM remembers between frames."""
from dataclasses import dataclass, field

from torch import Tensor

from models.codec import Memory


@dataclass(frozen=True)
class HemMemory(Memory):
    """Everything but the frame is None after an I-frame.

    Attributes:
        frame: decoded frame, B 3 H W, in [0, 1] except in training. Once there is a feature, only the encoder uses
            it, for motion estimation.
        ref_feature: feature that the last P-frame was made of, B C H W.
        ref_y: its latent, B channel_M H/16 W/16, in the units of the undivided one.
        ref_mv_y: its motion latent, B channel_mv H/16 W/16, likewise.
    """
    frame: Tensor = field(metadata={"encoder_only": True})
    ref_feature: Tensor | None = None
    ref_y: Tensor | None = None
    ref_mv_y: Tensor | None = None
