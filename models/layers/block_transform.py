"""Initial weights of the analysis and synthesis transforms: the Karhunen-Loeve transform of a Markov field, in stages.

A frame is taken for a field whose correlation falls with distance (exponentially) and which its three colours share.
Each stage of an encoder halves height and width: it sees four neighbours of what the stage before kept, rotates them
onto the principal axes that the field implies, and keeps the first of them. The decoder's stages are the transposes.
So an untrained codec is a block transform coder; nothing is learnt from any picture.
"""
import torch
from torch import Tensor, nn

from models.layers.blocks import Down, Up

COLOR_CORRELATION = 0.93
"""Between any two of red, green and blue."""

LARGEST_DIFFERENCE = 12.0
"""By which neighbouring values may differ before an activation bends (`set_difference_down`): pixels, of a flow."""


def field_covariance(side: int, correlation: float, deviation: float, planes: int = 3,
                     between: float = COLOR_CORRELATION) -> Tensor:
    """Covariance of a block of side x side pixels, float64; rows in the order y, x, plane.

    Args:
        correlation: of neighbouring pixels.
        deviation: standard deviation of a value.
        planes: values of each pixel.
        between: their correlation.
    """
    y, x = torch.meshgrid(*[torch.arange(side, dtype=torch.float64)] * 2, indexing="ij")
    points = torch.stack((y.flatten(), x.flatten()), 1)
    spatial = correlation ** torch.cdist(points, points)
    values = torch.full((planes, planes), between, dtype=torch.float64).fill_diagonal_(1)
    return deviation ** 2 * torch.kron(spatial, values)


class Stage:
    """One halving of height and width.

    Attributes:
        rotation: (kept, 4 x inputs), orthonormal rows; columns in the order y, x, input channel.
        deviations: standard deviation of each kept channel, in descending order.
        flat: of each kept channel, how far a change of one colour by 1 moves it where the frame has no detail.
    """

    def __init__(self, rotation: Tensor, deviations: Tensor, flat: Tensor):
        self.rotation, self.deviations, self.flat = rotation, deviations, flat

    def kernel(self, size: int) -> Tensor:
        """Weights (kept, inputs, size, size) of a convolution of stride 2, padded by half its kernel."""
        kept, inputs = self.rotation.shape[0], self.rotation.shape[1] // 4
        weight = torch.zeros(kept, inputs, size, size)
        middle = size // 2
        weight[:, :, middle:middle + 2, middle:middle + 2] = (
            self.rotation.view(kept, 2, 2, inputs).permute(0, 3, 1, 2).float())
        return weight

    def subpel(self) -> Tensor:
        """Weights (4 x inputs, kept) of the pointwise convolution before a pixel shuffle that undoes the stage."""
        kept, inputs = self.rotation.shape[0], self.rotation.shape[1] // 4
        return self.rotation.view(kept, 4, inputs).permute(2, 1, 0).reshape(4 * inputs, kept).float()


def stages(kept: list[int], correlation: float, deviation: float, planes: int = 3,
           between: float = COLOR_CORRELATION) -> list[Stage]:
    """The stages of a transform that keeps so many channels at 1/2, 1/4, ...; at most four per one before.

    The other arguments are those of `field_covariance`.
    """
    result: list[Stage] = []
    analysis = torch.eye(planes, dtype=torch.float64)                  # what is kept so far, from a block's pixels
    side = 1
    for channels in kept:
        inputs = analysis.shape[0]
        blocks = torch.zeros(2, 2, inputs, 2 * side, 2 * side, planes, dtype=torch.float64)
        for y in range(2):
            for x in range(2):
                blocks[y, x, :, y * side:(y + 1) * side, x * side:(x + 1) * side] = (
                    analysis.view(inputs, side, side, planes))
        side *= 2
        stacked = blocks.view(4 * inputs, -1)
        covariance = field_covariance(side, correlation, deviation, planes, between)
        variances, axes = torch.linalg.eigh(stacked @ covariance @ stacked.T)
        axes, variances = axes.flip(1)[:, :channels], variances.flip(0)[:channels]
        axes = axes * axes.sum(0).sign().where(axes.sum(0) != 0, torch.ones(()).double())    # the mean counts upwards
        analysis = axes.T @ stacked
        flat = analysis.view(len(analysis), side * side, planes).sum(1).norm(dim=1)
        result.append(Stage(axes.T.contiguous(), variances.clamp(min=0).sqrt(), flat))
    return result


def set_down(block: Down, stage: Stage, offset: Tensor | None = None) -> None:
    """Let `block` compute the stage from its first channels, in the first of its outputs.

    The leaky ReLUs are lifted to where they are linear, and lowered again by the bias of the shortcut. Strong colours
    are rarer in the field than in frames, and so are sharp edges.

    Args:
        offset: of the block's used inputs, subtracted first.
    """
    kept, inputs = stage.rotation.shape[0], stage.rotation.shape[1] // 4
    kernel, lift = stage.kernel(3), 0.5 + torch.maximum(4 * stage.deviations, 0.8 * stage.flat).float()
    block.conv1.weight[:kept] = 0
    block.conv1.weight[:kept, :inputs] = kernel
    block.conv1.bias[:kept] = lift - (0 if offset is None else (kernel.sum((2, 3)) * offset).sum(1))
    block.conv2.weight[:kept] = 0
    for n in range(kept):
        block.conv2.weight[n, n, 1, 1] = 1
    block.conv2.bias[:kept] = 0
    block.downsample.weight[:kept] = 0
    block.downsample.bias[:kept] = -lift


def set_difference_down(block: Down, stage: Stage, gain: float = 1.0) -> None:
    """Let `block` compute the stage from its first channels, for values that may be large but differ little.

    The shortcut, which is linear, has one value in four, the branch what the others differ by from it.
    """
    kernel = gain * stage.kernel(3)
    kept, inputs = kernel.shape[:2]
    whole = kernel.sum((2, 3))
    kernel[:, :, 1, 1] -= whole
    lift = LARGEST_DIFFERENCE * kernel.abs().sum((1, 2, 3)) / 2
    block.conv1.weight[:kept] = 0
    block.conv1.weight[:kept, :inputs] = kernel
    block.conv1.bias[:kept] = lift
    block.conv2.weight[:kept] = 0
    block.conv2.weight[range(kept), range(kept), 1, 1] = 1
    block.conv2.bias[:kept] = 0
    block.downsample.weight[:kept] = 0
    block.downsample.weight[:kept, :inputs, 0, 0] = whole
    block.downsample.bias[:kept] = -lift


def set_up(block: Up, stage: Stage) -> None:
    """Let `block` undo the stage: in the shortcut, to which the rest adds nothing yet."""
    set_subpel(block.upsample, stage)
    block.conv.weight.zero_()


def set_subpel(part: nn.Sequential, stage: Stage, gain: float | Tensor = 1.0, first: int = 0) -> None:
    """Let a convolution with pixel shuffle undo the stage, from its inputs `first`, ... to its first outputs.

    Args:
        gain: of each input.
    """
    layer, weight = part[0], stage.subpel() * gain
    outputs, kept = weight.shape
    middle = layer.kernel_size[0] // 2
    layer.weight.zero_()
    layer.weight[:outputs, first:first + kept, middle, middle] = weight
