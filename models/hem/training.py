"""What training must know of DCVC-HEM: where its weights start, and what one step of a recipe takes from the last."""
import math

import torch
from torch import nn

from models.codec import Training
from models.hem.rates import ANCHOR_QPS


@torch.no_grad()
def initialise(codec: nn.Module, lambdas: tuple[float, ...] | None = None) -> None:
    """Draw the convolutions anew, from PyTorch's generator; all else keeps the values of its construction.

    As in the released code: Xavier-normal weights with gain sqrt(2) and biases of 0.01, in all networks. Linear layers
    and factorised priors are as PyTorch and their classes make them, all steps of quantisation 1.
    """
    for module in codec.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.xavier_normal_(module.weight, math.sqrt(2))
            nn.init.constant_(module.bias, 0.01)


TRAINING = Training(initialise=initialise, qps=ANCHOR_QPS, rules={
    "same": lambda name: (name,),
    "intra": lambda name: (name,) if name.startswith("intra.") else ()})
