"""Analysis and synthesis transforms and prior networks of DCVC-HEM (Li et al., ACM MM 2022, supplement).

All are plain sequences, whose element numbers are those of the released checkpoints. Shapes: B C H W.
"""
from torch import nn

from models.layers.blocks import Down, Up, conv, leaky, subpel
from models.layers.residual import ActivatedRes


def analysis(inputs: int, channels: int) -> nn.Sequential:
    """From 1/1 to a latent at 1/16. Elements 0..6."""
    return nn.Sequential(Down(inputs, channels), ActivatedRes(channels), Down(channels, channels),
                         ActivatedRes(channels), Down(channels, channels), ActivatedRes(channels),
                         conv(channels, channels, stride=2))


def synthesis(channels: int, outputs: int) -> nn.Sequential:
    """From a latent at 1/16 to 1/1. Elements 0..7; 2, 4 and 6 give features at 1/8, 1/4 and 1/2."""
    return nn.Sequential(ActivatedRes(channels), Up(channels, channels), ActivatedRes(channels),
                         Up(channels, channels), ActivatedRes(channels), Up(channels, channels),
                         ActivatedRes(channels), subpel(channels, outputs, 1))


def hyper_analysis(y_channels: int, z_channels: int) -> nn.Sequential:
    """A latent, B y H W -> its hyper latent, B z H/4 W/4."""
    z = z_channels
    return nn.Sequential(conv(y_channels, z), leaky(0.01), conv(z, z), leaky(0.01), conv(z, z, stride=2), leaky(0.01),
                         conv(z, z), leaky(0.01), conv(z, z, stride=2))


def hyper_synthesis(z_channels: int, y_channels: int, inner: int | None = None) -> nn.Sequential:
    """A hyper latent, B z h w -> features for the parameters of the latent, B 2y 4h 4w.

    Args:
        inner: channels inside, instead of as many as the latent has.
    """
    y = inner or y_channels
    wide = 3 * y // 2
    return nn.Sequential(conv(z_channels, y), leaky(0.01), subpel(y, y, 1), leaky(0.01), conv(y, wide), leaky(0.01),
                         subpel(wide, wide, 1), leaky(0.01), conv(wide, 2 * y_channels))


def prior_network(*widths: int) -> nn.Sequential:
    """Three 3x3 convolutions a -> b -> c -> d at one resolution."""
    a, b, c, d = widths
    return nn.Sequential(conv(a, b), leaky(0.2), conv(b, c), leaky(0.2), conv(c, d))
