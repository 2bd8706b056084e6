"""What training must know of DCVC-HEM: where its weights start, and what one step of a recipe takes from the last."""
import math
from collections.abc import Callable

import torch
from torch import nn

from models.codec import Pretrained, Training
from models.hem import initial
from models.hem.rates import ANCHOR_QPS


@torch.no_grad()
def initialise(codec: nn.Module, lambdas: tuple[float, ...] | None = None) -> None:
    """Draw the convolutions anew, from PyTorch's generator; all else keeps the values of its construction.

    Codecs whose networks widen towards the latents start computed (initial.py), for the lambdas of QP 0 and 63. Others
    as in the released code: Xavier-normal weights with gain sqrt(2) and biases of 0.01, in all networks. Linear layers
    and factorised priors are as PyTorch and their classes make them, all steps of quantisation 1.
    """
    if codec.config.scale_channels is not None:
        initial.initialise(codec, lambdas)
        return
    for module in codec.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.xavier_normal_(module.weight, math.sqrt(2))
            nn.init.constant_(module.bias, 0.01)


def of_released_intra(name: str) -> tuple[str, ...]:
    """Our name of an entry of the released file for I-frames."""
    return (f"intra.{name}",)


def of_released_video(name: str) -> tuple[str, ...]:
    """One file holds three of our networks; what a network does not have it ignores."""
    if name.startswith("optic_flow."):
        return (f"motion_estimation.{name.removeprefix('optic_flow.')}",)
    return f"motion.{name}", f"inter.{name}"


def released(ssim: bool, video: Callable[[str], tuple[str, ...]] = of_released_video) -> tuple[Pretrained, ...]:
    """The released weights, for codecs that start from them.

    Args:
        ssim: those for MS-SSIM.
        video: what becomes of entries of the file for P-frames.
    """
    metric, origin = "ssim" if ssim else "psnr", "the DCVC-HEM release of github.com/microsoft/DCVC"
    return (Pretrained(f"acmmm2022_image_{metric}.pth.tar", of_released_intra, "intra", origin),
            Pretrained(f"acmmm2022_video_{metric}.pth.tar", video, None, origin))


def of_hytip(name: str) -> tuple[str, ...]:
    """Of a HyTIP: intra codec and flow estimation, which a configuration may take over."""
    for root, own in (("if_model.", "intra."), ("MENet.", "motion_estimation.")):
        if name.startswith(root):
            return (own + name.removeprefix(root),)
    return ()


TRAINING = Training(initialise=initialise, qps=ANCHOR_QPS, rules={
    "same": lambda name: (name,),
    "intra": lambda name: (name,) if name.startswith("intra.") else (), "hytip": of_hytip})
