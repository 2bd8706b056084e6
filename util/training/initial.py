"""Random weights to train from, for `--restore scratch`.

PyTorch's own initial convolutions shrink a signal by the square root of 3 each, so that next to nothing of a frame
comes out of a deep codec and learning stalls for thousands of steps; larger ones let the gated blocks, which multiply
features with each other, explode. Here paths keep the variance, and what residual blocks add starts small. Upsampling
starts without a checkerboard (ICNR: Aitken et al., arXiv 1707.02937), flows start near zero, I-frames near grey,
latents with step and scale 1, where both have gradients; and a P-frame starts as the warped reference, half of it from
the masked prediction and half from the decoder, which passes three channels of its context through.
"""
import math

import torch
from torch import Tensor, nn

from models.hytip import HyTIP
from models.inter_codec import InterCodec
from models.layers.attention import ChannelTransform
from models.layers.blocks import DepthConv, Down, GateFFN, PlainFFN, Res, SumFFN, Up

GREY = 0.45
"""Mean of natural frames, near enough."""

BRANCHES = {GateFFN: "conv_out", SumFFN: "conv_out", PlainFFN: "conv.2", DepthConv: "conv2", Res: "conv2",
            Down: "conv2", Up: "conv"}
"""Last convolution of what each block adds to its input."""

BRANCH_GAIN = {Down: 0.5, Up: 0.2}
"""How large that starts; 0.1 where the input passes unchanged."""


@torch.no_grad()
def initialise(codec: HyTIP) -> None:
    """Draw new weights for the four networks, from PyTorch's generator."""
    for module in codec.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0, 1 / math.sqrt(module.weight[0].numel()))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in codec.modules():
        _settle_block(module)
    _settle_outputs(codec)


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


def _settle_outputs(codec: HyTIP) -> None:
    """What the last layers of each network start with."""
    for block in codec.motion_estimation.Blocks:
        block[-1].weight.mul_(0.1)
    codec.motion.mv_decoder.dec_3[-1][0].weight.mul_(0.1)
    codec.intra.refine[-1].weight.mul_(0.2)
    nn.init.constant_(codec.intra.refine[-1].bias, GREY)
    inter = codec.inter
    _pass_reference_through(inter)
    motion_prior = codec.motion.prior_fusion if codec.motion.config.remembers_latent else codec.motion.PA
    for block in (codec.intra.y_prior_fusion[-1].block, motion_prior[-1].block, inter.y_prior_fusion[-1].block):
        _bias_of(block).view(3, -1)[:2] = 1
    for prior in (codec.intra.y_spatial_prior[-1], *([] if inter.config.no_context else
                                                     [inter.context_model.y_spatial_prior])):
        _bias_of(prior.block).view(2, -1)[0] = 1


def _pass_reference_through(inter: InterCodec) -> None:
    """The first three channels of features, contexts and decoder at full resolution start as the frame."""
    inputs = [(inter.feature_adaptor_I, 0), (inter.feature_extractor.conv1, 0), (inter.mc_generator.adaptor, 0),
              *((adaptor, adaptor.in_channels - 3) for adaptor in getattr(inter, "feature_adaptor", ()))]
    recon = inter.recon_generation_net
    inputs += [(recon.first_conv, recon.first_conv.in_channels - recon.first_conv.out_channels)]
    inputs += [(block.block[0].adaptor, 0) for unet in (recon.unet_1, recon.unet_2)
               for block in (unet.conv1, unet.up_conv2) if block.block[0].adaptor is not None]
    for layer, first in inputs:
        layer.weight[:3] = 0
        middle = layer.kernel_size[0] // 2
        for n in range(3):
            layer.weight[n, first + n, middle, middle] = 1
    inter.mc_generator.conv2.weight.mul_(0.1)
    for out in (inter.context_fusion_net.conv1_out, inter.context_fusion_net.conv2_out,
                inter.context_fusion_net.conv3_out):
        out.weight.mul_(0.1)
    recon.recon_conv.weight.mul_(0.1)
    for n in range(3):
        recon.recon_conv.weight[n, n, 1, 1] = 0.5 if inter.MaskGenerator is not None else 0
    if inter.MaskGenerator is not None:
        last = [part for part in inter.MaskGenerator.modules() if isinstance(part, nn.Conv2d)][-1]
        last.weight.mul_(0.1)


def _bias_of(block: nn.Sequential) -> Tensor:
    """The bias that a block's output starts with."""
    return block[0].conv2.bias
