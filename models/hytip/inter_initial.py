"""What the inter codec starts with: the warped reference, and a block transform of what the frame differs by.

The prediction comes from masked frame and decoder together: the decoder passes three channels of its context through,
as much of them as the mask left out. Nothing else is added to it, as small errors grow from frame to frame.
"""
import math

from torch import nn

from models.hytip.config import InterConfig
from models.hytip.inter import InterCodec
from models.layers.block_transform import set_subpel
from models.layers.initial import (
    Rates,
    last_layers,
    pass_through,
    quieten,
    residual_stages,
    scales_of,
    set_conv,
    start_scales,
)


def settle(inter: InterCodec, rates: Rates) -> None:
    """Set the path of the reference, transforms, gains and scales."""
    _pass_reference_through(inter)
    _settle_transform(inter, rates)


def _settle_transform(inter: InterCodec, rates: Rates) -> None:
    c = inter.config
    first, second, third, last = residual_stages(c.g_ch_2x, c.g_ch_4x, c.g_ch_8x, c.g_ch_16x)
    encoder, decoder, recon = inter.contextual_encoder, inter.contextual_decoder, inter.recon_generation_net
    quieten(encoder, decoder, recon)
    gain, deviations = scales_of(last, rates)
    double = 2 if c.has_ctm else 1                                # a channel transform starts as twice its input
    set_conv(encoder.conv1, first)
    if _rest(c):
        kernel = first.kernel(3)
        encoder.conv1.weight[:len(kernel), 3:6] = kernel * -_rest(c)
    set_conv(encoder.conv2, second)
    set_conv(encoder.conv3, third)
    set_conv(encoder.conv4, last, gain / double)
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
    start_scales(prior, 3, deviations)
    for layer in last_layers(prior):                             # a mean that is not 0 would add something
        layer.weight[2 * c.g_ch_16x:] = 0
    if not c.no_context:
        _hand_parameters_on(inter.context_model.y_spatial_prior.block)


def _hand_parameters_on(block: nn.Sequential) -> None:
    """Later passes start with the scales and means of the first: cat(y_hat, scales, means) -> cat(scales, means)."""
    for layer in last_layers(block):
        layer.weight.zero_()
    adaptor = block[0].adaptor
    if adaptor is not None:                                       # a skip without weights does so anyway
        for n in range(adaptor.out_channels):
            adaptor.weight[n, adaptor.out_channels // 2 + n] = 1


def _pass_reference_through(inter: InterCodec) -> None:
    """The first three channels of features, contexts and decoder at full resolution start as the frame."""
    c, recon = inter.config, inter.recon_generation_net
    inputs = [(inter.feature_adaptor_I, 0), (inter.feature_extractor.conv1, 0),
              *((adaptor, max(0, adaptor.in_channels - 3)) for adaptor in getattr(inter, "feature_adaptor", ()))]
    if c.predicts:
        inputs += [(inter.mc_generator.adaptor, 0)]
    for layer, first in inputs:
        pass_through(layer, min(3, layer.in_channels), first)
    if _rest(c):
        pass_through(recon.first_conv, 3, c.recon_channel)
        recon.first_conv.weight[:3].mul_(_rest(c))
    for block in (block for unet in recon.unets for block in (unet.conv1, unet.up_conv2)):
        pass_through(block.block[0].adaptor, 6 if _stands_in(c) else 3)
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
