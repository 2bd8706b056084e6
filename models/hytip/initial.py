"""Random weights to train from, for `--restore scratch`.

Random ones that keep the variance (models/layers/initial.py), then what is computed for each network: SPyNet starts
with a step along the gradient at each level (models/flow/initial.py), the intra codec as a block transform coder
(models/intra/initial.py), the motion codec with the mean of 4x4 vectors (motion_initial.py), a P-frame as the warped
reference (inter_initial.py). Latents start with step 1 and the scales that these transforms imply; gains with the range
of quantisation that the bounds of lambda ask for.
"""
import torch

from models.flow.initial import follow_gradients
from models.hytip import inter_initial, motion_initial
from models.hytip.codec import HyTIP
from models.intra import initial as intra_initial
from models.layers.initial import Rates, draw

DEFAULT_LAMBDAS = (0.0018, 0.0483)


@torch.no_grad()
def initialise(codec: HyTIP, lambdas: tuple[float, float] | None = None) -> None:
    """Draw new weights for the four networks, from PyTorch's generator.

    Args:
        lambdas: of QP 0 and QP 63, for which the steps of quantisation are chosen; by default DEFAULT_LAMBDAS.
    """
    lambdas = lambdas or DEFAULT_LAMBDAS
    rates = Rates(lambdas[1] ** 0.5, (lambdas[1] / lambdas[0]) ** 0.5)
    draw(codec)
    follow_gradients(codec.motion_estimation)
    motion_initial.settle(codec.motion, rates)
    intra_initial.settle(codec.intra, codec.config.intra, rates)
    inter_initial.settle(codec.inter, rates)
