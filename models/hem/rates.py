"""From a QP to the global step of quantisation (DCVC-HEM, section 3.3).

Each of the three latents has four trained steps, the anchors, from the largest (lowest quality) to the smallest. The
networks take any positive step, so that rates between the anchors need nothing else.
"""
import torch
from torch import Tensor

from models.layers.formats import log_linear

PIECE = 21
ANCHOR_QPS = tuple(PIECE * n for n in range(4))
"""Where the anchors stand among the QPs 0..63."""


def steps_of(anchors: Tensor, points: int | None = None) -> Tensor:
    """The step of every QP, (rates, 1, 1, 1). Gradients reach the anchors.

    Args:
        anchors: positive, 4 1 1 1.
        points: None for QP 0..63, log-linear between neighbouring anchors. A number for the rate points of the
            released evaluation: four are the anchors, any other number lies log-linearly between the first and the
            last (logarithms in the format of the anchors, the rest in float64).
    """
    if points is None:
        pieces = [log_linear(anchors[n:n + 2], PIECE + 1)[:-1] for n in range(len(anchors) - 1)]
        return torch.cat((*pieces, anchors[-1:]))
    return anchors if points == len(anchors) else log_linear(anchors, points, narrow=True)
