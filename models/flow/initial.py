"""Initial weights of SPyNet: at each level a step along the brightness gradient, as Lucas and Kanade (IJCAI 1981).

Where a pattern with the slope I_x moves by d, the frames differ by I_t = d I_x, so d has the sign of I_x I_t. A network
of convolutions and ReLUs cannot multiply; |a I_x + I_t| - |a I_x - I_t| = 2 sign(I_x I_t) min(|a I_x|, |I_t|) has
the sign and grows with d up to a pixels. Four ReLUs are one such difference, so eight channels hold x and y. The
second layer adds up over a window, the last two hand the sums on, as a positive and a negative part each, with a gain
in place of the division by the slope that a network cannot do either; learning finds better ones. Other channels
start random. Nothing is learnt from any picture.
"""
import torch
from torch import Tensor, nn

from models.flow.spynet import MotionEstimation

REACH = 2.0
"""Pixels of a level up to which a displacement is told from a larger one."""

SMOOTHING, SLOPE, WINDOW = 0.6, 0.8, 2.0
"""Standard deviations in pixels: of the frames' smoothing, of the derivative's, and of the window."""

GAIN = 2.5
"""Pixels per unit of the sum over the window, where frames have standard deviation 1."""

LEAST_CHANNELS = (8, 4, 4, 4)
"""Hidden channels that this takes."""

SIGNS = ((1, 1), (-1, -1), (1, -1), (-1, 1))
"""Of slope and difference in the four ReLUs of a direction; the first two are |a I_x + I_t|."""


def follow_gradients(network: MotionEstimation) -> None:
    """Set the weights of each level. Those of narrower networks stay as they are, and the flow starts near zero."""
    for block in network.Blocks:
        convs = [layer for layer in block if isinstance(layer, nn.Conv2d)]
        widths = [layer.out_channels for layer in convs[:-1]]
        for layer in convs[1:-1]:
            layer.weight.mul_(0.3)
        convs[-1].weight.mul_(0.1)
        if len(widths) == len(LEAST_CHANNELS) and all(map(int.__ge__, widths, LEAST_CHANNELS)):
            _set_block(*convs)


def _set_block(differences: nn.Conv2d, window: nn.Conv2d, third: nn.Conv2d, fourth: nn.Conv2d, out: nn.Conv2d) -> None:
    offsets = torch.arange(-3.0, 4.0)
    smooth, gather = _gaussian(offsets, SMOOTHING), _gaussian(offsets, WINDOW)
    derive = offsets * _gaussian(offsets, SLOPE)
    derive = derive / (derive * offsets).sum()
    slope_x, smooth, gather = smooth[:, None] * derive, smooth[:, None] * smooth, gather[:, None] * gather
    differences.weight[:8] = 0
    for direction, slope in enumerate((slope_x, slope_x.T)):
        for n, (a, b) in enumerate(SIGNS):
            own = differences.weight[4 * direction + n]
            own[0:3] = (REACH * a * slope / 2 + b * smooth) / 3           # current frame
            own[3:6] = (REACH * a * slope / 2 - b * smooth) / 3           # warped reference
    out.weight[:, :4] = 0
    for direction in range(2):
        for n, sign in enumerate((1, -1)):
            channel = 2 * direction + n
            window.weight[channel] = 0
            window.weight[channel, 4 * direction:4 * direction + 2] = sign * gather / 2
            window.weight[channel, 4 * direction + 2:4 * direction + 4] = -sign * gather / 2
            for layer in (third, fourth):
                _hand_on(layer, channel)
            out.weight[direction, channel, 3, 3] = sign * GAIN


def _gaussian(offsets: Tensor, deviation: float) -> Tensor:
    weights = torch.exp(-offsets.square() / (2 * deviation ** 2))
    return weights / weights.sum()


def _hand_on(layer: nn.Conv2d, channel: int) -> None:
    layer.weight[channel] = 0
    layer.weight[channel, channel, 3, 3] = 1
