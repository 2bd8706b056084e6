"""Random weights to train from, for `--restore scratch`.

PyTorch's own initial convolutions shrink a signal by the square root of 3 each, so that next to nothing of a frame
comes out of a deep codec and learning stalls for thousands of steps; larger ones let the gated blocks, which multiply
features with each other, explode. Here paths keep the variance, and what residual blocks add starts small. Upsampling
starts without a checkerboard (ICNR: Aitken et al., arXiv 1707.02937). SPyNet starts with a step along the gradient at
each level (gradient_flow.py), the intra codec as a block transform coder (transforms.py), the motion codec with every
eighth vector. A P-frame starts as the warped reference: the masked prediction, and from the decoder, which passes three
channels of its context through, what the mask left out; what it differs by is coded by a block transform, too.
Nothing else is added to it, as small errors grow from frame to frame.
Latents start with step 1 and the scales that these transforms imply; gains with the range of quantisation that the
bounds of lambda ask for.
"""
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.hytip.codec import HyTIP
from models.hytip.config import InterConfig, IntraConfig
from models.hytip.gradient_flow import follow_gradients
from models.hytip.inter import InterCodec
from models.hytip.motion import MotionCodec
from models.hytip.transforms import Stage, set_down, set_subpel, set_up, stages
from models.intra.dcvc_dc import IntraCodec
from models.layers.attention import ChannelTransform
from models.layers.blocks import DepthConv, Down, GateFFN, PlainFFN, Res, SumFFN, Up

GREY, DEVIATION, CORRELATION = 0.45, 0.25, 0.95
"""Mean and standard deviation of natural frames, and correlation of neighbouring pixels, near enough."""

RESIDUAL_DEVIATION, RESIDUAL_CORRELATION = 0.06, 0.9
"""The same of what a predicted frame differs by."""

FLOW_DEVIATION, FLOW_CORRELATION = 3.0, 0.97
"""The same of a flow at 1/8, in pixels."""

PRECISION, FLOW_PRECISION = 50.0, 25.0
"""Latent steps per unit of a value and per pixel of displacement, for lambda 1; they grow with its root."""

DEFAULT_LAMBDAS = (0.0018, 0.0483)

WIDE = 9.0
"""Standard deviation of a latent, at the highest rate, from which on its steps are coarser: priors do not like large
numbers."""

BRANCHES = {GateFFN: "conv_out", SumFFN: "conv_out", PlainFFN: "conv.2", DepthConv: "conv2", Res: "conv2",
            Down: "conv2", Up: "conv"}
"""Last convolution of what each block adds to its input."""

BRANCH_GAIN = {Down: 0.5, Up: 0.2, GateFFN: 0.0}
"""How large that starts; 0.1 where the input passes unchanged, and nothing of products, which grow with its square: a
white frame has latents of hundreds."""


class _Rates(NamedTuple):
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


@torch.no_grad()
def initialise(codec: "HyTIP", lambdas: tuple[float, float] | None = None) -> None:
    """Draw new weights for the four networks, from PyTorch's generator.

    Args:
        lambdas: of QP 0 and QP 63, for which the steps of quantisation are chosen; by default DEFAULT_LAMBDAS.
    """
    lambdas = lambdas or DEFAULT_LAMBDAS
    for module in codec.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0, 1 / math.sqrt(module.weight[0].numel()))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in codec.modules():
        _settle_block(module)
    _settle_outputs(codec, _Rates(lambdas[1] ** 0.5, (lambdas[1] / lambdas[0]) ** 0.5))


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


def _settle_outputs(codec: HyTIP, rates: _Rates) -> None:
    """What the last layers of each network start with."""
    follow_gradients(codec.motion_estimation)
    _settle_motion_transform(codec.motion, rates)
    _pass_reference_through(codec.inter)
    _settle_intra_transform(codec.intra, codec.config.intra, rates)
    _settle_inter_transform(codec.inter, rates)


def _settle_motion_transform(motion: MotionCodec, rates: _Rates) -> None:
    """The flow passes as every eighth vector, in the first two channels, of which 2x2 are rotated into the latent."""
    encoder, decoder = motion.mv_encoder, motion.mv_decoder
    stage, = stages(_kept(motion.config.channel_N, planes=2), FLOW_CORRELATION, FLOW_DEVIATION, planes=2, between=0)
    _quieten(encoder, decoder)
    for down in (encoder.enc_1[0], encoder.enc_2, encoder.enc_3[0]):
        _pass(down.downsample, 2)
        down.conv2.weight[:2].mul_(0.01)
    for block in (encoder.adaptor_0, encoder.adaptor_1, encoder.adaptor_3_1, decoder.adaptor_0_1, decoder.adaptor_1_1,
                  decoder.dec_1[0]):
        depth = block.block[0]
        if depth.adaptor is not None and depth.adaptor.out_channels > stage.rotation.shape[0]:
            _pass(depth.adaptor, stage.rotation.shape[0])
    encoder.enc_3[2].weight.mul_(0.05)
    precision = FLOW_PRECISION * rates.root
    _set_conv(encoder.enc_3[2], stage, precision)
    set_subpel(decoder.dec_1[1].upsample, stage, 1 / precision)
    for up in (decoder.dec_1[3].upsample, decoder.dec_2.upsample, decoder.dec_3[1]):
        up[0].weight[:8] = 0
        for n in range(8):
            up[0].weight[n, n // 4] = 1
    prior = motion.prior_fusion if motion.config.buffer.latent else motion.PA
    _weaken(prior[0].block)                                       # the last block passes its input
    deviations = precision * stage.deviations.float()
    if motion.config.variable_rate:
        motion.mv_q_encoder.copy_(rates.gains(64).expand_as(motion.mv_q_encoder))
        motion.mv_q_decoder.copy_(1 / motion.mv_q_encoder)
        deviations /= rates.span ** 0.5
    _start_scales(prior[-1].block, 3, deviations.clamp(min=0.2))


def _quieten(*networks: nn.Module) -> None:
    """Let the residual blocks add next to nothing, where a transform is to pass."""
    for network in networks:
        for module in network.modules():
            if type(module) in (GateFFN, SumFFN, DepthConv, Up):
                module.get_submodule(BRANCHES[type(module)]).weight.mul_(0.01)
            elif isinstance(module, ChannelTransform):
                for name, part in module.named_modules():
                    if name.endswith("project_out"):
                        part.weight.mul_(0.2)


def _scales_of(stage: Stage, rates: _Rates) -> tuple[Tensor, Tensor]:
    """How much each output of the last stage is enlarged, and its standard deviation then, at the middle rate."""
    precision = PRECISION * rates.root
    deviations = precision * stage.deviations.float()
    shrink = (WIDE / deviations.clamp(min=WIDE)).sqrt()
    return precision * shrink, (deviations * shrink / rates.span ** 0.5).clamp(min=0.2)


def _kept(*widths: int, planes: int = 3) -> list[int]:
    """Channels that each stage keeps: not more than there are."""
    result, before = [], planes
    for width in widths:
        before = min(width, 4 * before)
        result.append(before)
    return result


def _settle_intra_transform(intra: IntraCodec, c: IntraConfig, rates: _Rates) -> None:
    first, second, third, last = found = stages(
        _kept(c.g_ch_2x, c.g_ch_4x, c.g_ch_8x or c.channel_N, c.channel_N), CORRELATION, DEVIATION)
    _quieten(intra.enc, intra.dec, intra.refine)
    gain, deviations = _scales_of(last, rates)
    set_down(intra.enc.enc_1[0], first, torch.full((3,), GREY))
    set_down(intra.enc.enc_2[0], second)
    set_down(intra.enc.enc_2[2], third)
    _set_conv(intra.enc.enc_2[4], last, gain)
    for block, stage in zip((intra.dec.dec_1[1], intra.dec.dec_1[3], intra.dec.dec_1[5], intra.dec.dec_2[1]),
                            reversed(found)):
        set_up(block, stage)
    set_subpel(intra.dec.dec_1[1].upsample, last, 1 / gain)
    unet, out = intra.refine
    for block in (unet.conv1, unet.up_conv2):
        _pass(block.block[0].adaptor, 3)
    out.weight.mul_(0.1)
    for n in range(3):
        out.weight[n] = 0
        out.weight[n, n, 1, 1] = 1
    nn.init.constant_(out.bias, GREY)
    intra.q_scale_enc.copy_(rates.gains(4))
    intra.q_scale_dec.copy_(1 / intra.q_scale_enc)
    _start_scales(intra.y_prior_fusion[-1].block, 3, deviations)
    _start_scales(intra.y_spatial_prior[-1].block, 2, deviations)


def _settle_inter_transform(inter: InterCodec, rates: _Rates) -> None:
    c = inter.config
    first, second, third, last = stages(_kept(c.g_ch_2x, c.g_ch_4x, c.g_ch_8x, c.g_ch_16x), RESIDUAL_CORRELATION,
                                        RESIDUAL_DEVIATION)
    encoder, decoder, recon = inter.contextual_encoder, inter.contextual_decoder, inter.recon_generation_net
    _quieten(encoder, decoder, recon)
    gain, deviations = _scales_of(last, rates)
    double = 2 if c.has_ctm else 1                                # a channel transform starts as twice its input
    _set_conv(encoder.conv1, first)
    if _rest(c):
        kernel = first.kernel(3)
        encoder.conv1.weight[:len(kernel), 3:6] = kernel * -_rest(c)
    _set_conv(encoder.conv2, second)
    _set_conv(encoder.conv3, third)
    _set_conv(encoder.conv4, last, gain / double)
    set_subpel(decoder.up1, last, 1 / (double * gain))
    set_subpel(decoder.up2, third)
    set_subpel(decoder.up3, second)
    set_subpel(decoder.up4, first)
    for n in range(3):
        recon.first_conv.weight[n, n, 1, 1] = 1
    if c.variable_rate:
        inter.q_encoder.copy_(rates.gains(64).expand_as(inter.q_encoder))
        inter.q_decoder.copy_((1 / rates.gains(64)).expand_as(inter.q_decoder))
    prior = inter.y_prior_fusion[-1].block
    _start_scales(prior, 3, deviations)
    for layer in _last_layers(prior):                             # a mean that is not 0 would add something
        layer.weight[2 * c.g_ch_16x:] = 0
    if not c.no_context:
        _hand_parameters_on(inter.context_model.y_spatial_prior.block)


def _set_conv(layer: nn.Conv2d, stage: Stage, gain: Tensor | float = 1.0) -> None:
    """Let a convolution of stride 2 compute the stage from its first inputs, and nothing from the others."""
    kernel = stage.kernel(layer.kernel_size[0]) * torch.as_tensor(gain).view(-1, 1, 1, 1)
    kept, inputs = kernel.shape[:2]
    layer.weight[:kept] = 0
    layer.weight[:kept, :inputs] = kernel


def _start_scales(block: nn.Sequential, parts: int, deviations: Tensor) -> None:
    """Scales start as these; step, where there is one, as 1; what the prior sees changes little of that yet."""
    _weaken(block)
    bias = _bias_of(block).view(parts, -1)
    bias[parts - 2] = 0.3
    bias[parts - 2, :len(deviations)] = deviations
    if parts == 3:
        bias[0] = 1


def _hand_parameters_on(block: nn.Sequential) -> None:
    """Later passes start with the scales and means of the first: cat(y_hat, scales, means) -> cat(scales, means)."""
    for layer in _last_layers(block):
        layer.weight.zero_()
    adaptor = block[0].adaptor
    if adaptor is not None:                                       # a skip without weights does so anyway
        for n in range(adaptor.out_channels):
            adaptor.weight[n, adaptor.out_channels // 2 + n] = 1


def _last_layers(block: nn.Sequential) -> list[nn.Conv2d]:
    """Of the branches that a block of the priors sums."""
    depth, ffn = block
    layers = depth.conv2, depth.adaptor, ffn.get_submodule(BRANCHES[type(ffn)])
    return [layer for layer in layers if layer is not None]


def _weaken(block: nn.Sequential) -> None:
    """Let what enters a block change little of what leaves it, unless it passes unchanged."""
    depth = block[0]
    for layer in (depth.conv2, depth.adaptor):
        if layer is not None:
            layer.weight.mul_(0.1)


def _pass(layer: nn.Conv2d | None, count: int, first: int = 0) -> None:
    """The first outputs become as many inputs from `first` on; without a layer they are already."""
    if layer is None:
        return
    layer.weight[:count] = 0
    middle = layer.kernel_size[0] // 2
    for n in range(count):
        layer.weight[n, first + n, middle, middle] = 1


def _pass_reference_through(inter: InterCodec) -> None:
    """The first three channels of features, contexts and decoder at full resolution start as the frame."""
    c, recon = inter.config, inter.recon_generation_net
    inputs = [(inter.feature_adaptor_I, 0), (inter.feature_extractor.conv1, 0),
              *((adaptor, max(0, adaptor.in_channels - 3)) for adaptor in getattr(inter, "feature_adaptor", ()))]
    if c.predicts:
        inputs += [(inter.mc_generator.adaptor, 0)]
    for layer, first in inputs:
        _pass(layer, min(3, layer.in_channels), first)
    if _rest(c):
        _pass(recon.first_conv, 3, c.recon_channel)
        recon.first_conv.weight[:3].mul_(_rest(c))
    for block in (block for unet in recon.unets for block in (unet.conv1, unet.up_conv2)):
        _pass(block.block[0].adaptor, 6 if _stands_in(c) else 3)
    fusion = inter.context_fusion_net
    for out in (fusion.conv2_out, fusion.conv3_out):
        out.weight.mul_(0.1)
    added = [inter.feature_extractor.res_block1.conv2, fusion.conv1_out, fusion.res_block1_out.conv2, recon.recon_conv]
    if c.predicts:
        added.append(inter.mc_generator.conv2)
    if inter.MaskGenerator is not None:
        last = [part for part in inter.MaskGenerator.modules() if isinstance(part, nn.Conv2d)][-1]
        nn.init.constant_(last.bias, math.log(1 / _rest(c) - 1))
        added.append(last)
    for layer in added:                                           # what is remembered must not fade: nothing is added
        layer.weight[:3] = 0
    for n in range(3):
        recon.recon_conv.weight[n, n, 1, 1] = 1
    if _stands_in(c):
        _remember_the_frame(inter)


def _rest(c: InterConfig) -> float:
    """How much of the predicted frame the decoder adds, as the mask leaves it out.

    A small part where it may: what passes through the decoder has to be mended, frame by frame, even of a still scene.
    With a clamped residual, which cannot be negative, half.
    """
    if not c.predicts:
        return 1.0
    if not c.has_mask:
        return 0.0
    return 0.5 if c.clamp_residual else 0.05


def _stands_in(c: InterConfig) -> bool:
    """Whether the feature starts as the frame, which is not remembered; very narrow networks have no room for it."""
    return not c.buffer.frame and c.buffer.feature >= 3 and min(c.g_ch_1x, c.unet_channels[0]) >= 6


def _remember_the_frame(inter: InterCodec) -> None:
    """Where the frame is not remembered, the last three channels of the feature stand for it.

    The frame generator adds up warped reference and decoded difference in channels 3 to 5. Without contexts in the
    decoder there is nothing to add the difference to, and the feature starts as that alone.
    """
    c, recon, generator = inter.config, inter.recon_generation_net, inter.frame_feature_generator.recon_conv
    for n in range(3):
        recon.first_conv.weight[3 + n] = 0
        recon.first_conv.weight[3 + n, n, 1, 1] = 1
        if c.uses_contexts:
            recon.first_conv.weight[3 + n, c.recon_channel + n, 1, 1] = 1
        channel = generator.out_channels - 3 + n
        generator.weight[channel] = 0
        generator.weight[channel, 3 + n, 1, 1] = 1


def _bias_of(block: nn.Sequential) -> Tensor:
    """The bias that a block's output starts with."""
    return block[0].conv2.bias
