"""Random weights to train from, and the parts that computed ones are made of (for `--restore scratch`).

PyTorch's own initial convolutions shrink a signal by the square root of 3 each, so that next to nothing of a frame
comes out of a deep codec and learning stalls for thousands of steps; larger ones let the gated blocks, which multiply
features with each other, explode. Here paths keep the variance, and what residual blocks add starts small. Upsampling
starts without a checkerboard (ICNR: Aitken et al., arXiv 1707.02937). What each network starts with beyond that stands
in the `initial.py` beside it.
"""
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.layers.attention import ChannelTransform
from models.layers.block_transform import Stage, stages
from models.layers.blocks import DepthConv, Down, GateFFN, PlainFFN, Res, SumFFN, Up

RESIDUAL_DEVIATION, RESIDUAL_CORRELATION = 0.06, 0.9
"""Standard deviation of what a predicted frame differs by, and correlation of neighbouring pixels, near enough."""

FLOW_DEVIATION, FLOW_CORRELATION = 3.0, 0.97
"""Standard deviation of a flow at 1/4, in pixels, and correlation of neighbouring vectors."""

FLOW_PRECISION = 25.0
"""Latent steps per pixel of displacement, for lambda 1; they grow with its root."""

PRECISION = 50.0
"""Latent steps per unit of a value, for lambda 1; they grow with its root."""

WIDE = 9.0
"""Standard deviation of a latent, at the highest rate, from which on its steps are coarser: priors do not like large
numbers."""

BRANCHES = {GateFFN: "conv_out", SumFFN: "conv_out", PlainFFN: "conv.2", DepthConv: "conv2", Res: "conv2",
            Down: "conv2", Up: "conv"}
"""Last convolution of what each block adds to its input."""

BRANCH_GAIN = {Down: 0.5, Up: 0.2, GateFFN: 0.0}
"""How large that starts; 0.1 where the input passes unchanged, and nothing of products, which grow with its square: a
white frame has latents of hundreds."""


class Rates(NamedTuple):
    """What the gains start from.

    Attributes:
        root: of the lambda of the highest rate.
        span: that over the root of the lambda of the lowest rate.
    """
    root: float
    span: float

    def gains(self, count: int) -> Tensor:
        """From the lowest rate to the highest, where it is 1: activations are lifted for signals of that size."""
        return torch.logspace(-1, 0, count, base=self.span).view(-1, 1, 1, 1)


def draw(network: nn.Module) -> None:
    """Draw new weights, from PyTorch's generator."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0, 1 / math.sqrt(module.weight[0].numel()))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in network.modules():
        _settle_block(module)


def _settle_block(module: nn.Module) -> None:
    if type(module) in BRANCHES:
        module.get_submodule(BRANCHES[type(module)]).weight.mul_(BRANCH_GAIN.get(type(module), 0.1))
    elif isinstance(module, ChannelTransform):
        for name, part in module.named_modules():
            if name.endswith("project_out"):
                part.weight.mul_(0.1)
    elif isinstance(module, nn.Sequential) and len(module) == 2 and isinstance(module[1], nn.PixelShuffle):
        weight = module[0].weight
        weight.copy_(weight[::4].repeat_interleave(4, 0))


def quieten(*networks: nn.Module) -> None:
    """Let the residual blocks add next to nothing, where a transform is to pass."""
    for network in networks:
        for module in network.modules():
            if type(module) in (GateFFN, SumFFN, DepthConv, Up):
                module.get_submodule(BRANCHES[type(module)]).weight.mul_(0.01)
            elif isinstance(module, ChannelTransform):
                for name, part in module.named_modules():
                    if name.endswith("project_out"):
                        part.weight.mul_(0.2)


def scales_of(stage: Stage, rates: Rates) -> tuple[Tensor, Tensor]:
    """How much each output of the last stage is enlarged, and its standard deviation then, at the middle rate."""
    precision = PRECISION * rates.root
    deviations = precision * stage.deviations.float()
    shrink = (WIDE / deviations.clamp(min=WIDE)).sqrt()
    return precision * shrink, (deviations * shrink / rates.span ** 0.5).clamp(min=0.2)


def residual_stages(*widths: int) -> list[Stage]:
    """The transform of what a predicted frame differs by, for so many channels at 1/2, 1/4, ..."""
    return stages(kept_channels(*widths), RESIDUAL_CORRELATION, RESIDUAL_DEVIATION)


def flow_stages(*widths: int) -> tuple[Stage, Stage, Stage]:
    """Of a flow: from 1/1 to 1/2 and 1/2 to 1/4, where means are taken, then from 1/4 to 1/8 and 1/8 to 1/16.

    Args:
        widths: channels at 1/8 and 1/16.
    """
    half, = stages([2], FLOW_CORRELATION, FLOW_DEVIATION, planes=2, between=0)
    eighth, sixteenth = stages(kept_channels(*widths, planes=2), FLOW_CORRELATION, FLOW_DEVIATION, planes=2, between=0)
    return half, eighth, sixteenth


def kept_channels(*widths: int, planes: int = 3) -> list[int]:
    """Channels that each stage keeps: not more than there are."""
    result, before = [], planes
    for width in widths:
        before = min(width, 4 * before)
        result.append(before)
    return result


def set_conv(layer: nn.Conv2d, stage: Stage, gain: Tensor | float = 1.0) -> None:
    """Let a convolution of stride 2 compute the stage from its first inputs, and nothing from the others."""
    kernel = stage.kernel(layer.kernel_size[0]) * torch.as_tensor(gain).view(-1, 1, 1, 1)
    kept, inputs = kernel.shape[:2]
    layer.weight[:kept] = 0
    layer.weight[:kept, :inputs] = kernel


def start_scales(block: nn.Sequential, parts: int, deviations: Tensor) -> None:
    """Scales start as these; step, where there is one, as 1; what the prior sees changes little of that yet."""
    weaken(block)
    bias = _bias_of(block).view(parts, -1)
    bias[parts - 2] = 0.3
    bias[parts - 2, :len(deviations)] = deviations
    if parts == 3:
        bias[0] = 1


def weaken(block: nn.Sequential) -> None:
    """Let what enters a block change little of what leaves it, unless it passes unchanged."""
    depth = block[0]
    for layer in (depth.conv2, depth.adaptor):
        if layer is not None:
            layer.weight.mul_(0.1)


def last_layers(block: nn.Sequential) -> list[nn.Conv2d]:
    """Of the branches that a block of the priors sums."""
    depth, ffn = block
    layers = depth.conv2, depth.adaptor, ffn.get_submodule(BRANCHES[type(ffn)])
    return [layer for layer in layers if layer is not None]


def pass_through(layer: nn.Conv2d | None, count: int, first: int = 0) -> None:
    """The first outputs become as many inputs from `first` on; without a layer they are already."""
    if layer is None:
        return
    layer.weight[:count] = 0
    middle = layer.kernel_size[0] // 2
    for n in range(count):
        layer.weight[n, first + n, middle, middle] = 1


def _bias_of(block: nn.Sequential) -> Tensor:
    """The bias that a block's output starts with."""
    return block[0].conv2.bias
