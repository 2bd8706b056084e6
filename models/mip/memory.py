"""What DCVC-MIP remembers between frames."""
from dataclasses import dataclass

from torch import Tensor

from models.hem.memory import HemMemory


@dataclass(frozen=True)
class MipMemory(HemMemory):
    """Attributes:
        condition: what refined the motion of the last P-frame, B C H/2 W/2 with the channels of 1/1; None after an
            I-frame, and where the model has no condition.
    """
    condition: Tensor | None = None
