"""What DCVC-HEM starts with where its networks widen towards the latents (`scale_channels`), for `--restore scratch`.

Random weights that keep the variance (models/layers/initial.py), then: the motion codec carries the mean flow of every
4x4 pixels; the remembered feature begins with the three colours of the frame, which pass through feature extraction,
alignment and fusion unchanged, so that the first context begins with the warped reference; the encoder is a block
transform of frame less reference, the decoder its inverse, and the frame generator adds the reference again. What
DCVC-MIP and ST-XCT put between starts without effect.
"""
import torch
from torch import Tensor, nn

from models.flow.initial import follow_gradients
from models.hem.inter import FrameGenerator, InterCodec
from models.hem.motion import MotionCodec
from models.intra import initial as intra_initial
from models.layers.block_transform import set_difference_down, set_subpel
from models.layers.initial import (
    FLOW_PRECISION,
    Rates,
    draw,
    flow_stages,
    pass_through,
    quieten,
    residual_stages,
    scales_of,
    set_conv,
)
from models.layers.residual import ActivatedRes, BottleneckRes, ReluRes, SqueezeExciteBlock

DEFAULT_LAMBDAS = (0.003922, 0.038754)

LAST_LAYERS = {ActivatedRes: "conv2", BottleneckRes: "conv2", ReluRes: "conv2", SqueezeExciteBlock: "conv.2"}
"""Of what each residual block adds to its input."""


@torch.no_grad()
def initialise(codec: nn.Module, lambdas: tuple[float, float] | None = None) -> None:
    """Draw new weights for the four networks, from PyTorch's generator.

    Args:
        lambdas: of QP 0 and QP 63, for which the steps of quantisation are chosen; by default DEFAULT_LAMBDAS.
    """
    lambdas = lambdas or DEFAULT_LAMBDAS
    rates = Rates(lambdas[1] ** 0.5, (lambdas[1] / lambdas[0]) ** 0.5)
    draw(codec)
    for module in codec.modules():
        if type(module) in LAST_LAYERS:
            module.get_submodule(LAST_LAYERS[type(module)]).weight.mul_(0.1)
    if codec.config.intra is not None:
        intra_initial.settle(codec.intra, codec.config.intra, rates)
    if codec.config.motion_estimation is not None:
        follow_gradients(codec.motion_estimation)
    _settle_motion(codec.motion, rates)
    _settle_inter(codec.inter, rates)


def _settle_motion(motion: MotionCodec, rates: Rates) -> None:
    encoder, decoder, width = motion.mv_encoder, motion.mv_decoder, motion.config.channel_mv
    half, eighth, sixteenth = flow_stages(min(8, width), width)
    _pass_blocks(encoder, decoder)
    for block, stage, gain in ((encoder[0], half, 0.5), (encoder[2], half, 0.5), (encoder[4], eighth, 1.0)):
        set_difference_down(block, stage, gain)
    precision = FLOW_PRECISION * rates.root
    set_conv(encoder[6], sixteenth, precision)
    set_subpel(decoder[1].upsample, sixteenth, 1 / precision)
    set_subpel(decoder[3].upsample, eighth)
    for up in (decoder[5].upsample, decoder[7]):
        set_subpel(up, half, 2.0)
    motion.mv_y_q_scale.copy_(1 / rates.gains(4))
    deviations = (precision * sixteenth.deviations.float() / rates.span ** 0.5).clamp(min=0.2)
    _start_scales(motion.mv_y_prior_fusion, motion.mv_y_spatial_prior, deviations)


def _settle_inter(inter: InterCodec, rates: Rates) -> None:
    c, encoder, decoder = inter.config, inter.contextual_encoder, inter.contextual_decoder
    _pass_reference_through(inter)
    first, second, third, last = residual_stages(*c.scales[1:], c.channel_M)
    gain, deviations = scales_of(last, rates)
    _pass_blocks(encoder, decoder)
    set_conv(encoder.conv1, first)
    encoder.conv1.weight[:len(first.rotation), 3:6] = -first.kernel(3)
    set_conv(encoder.conv2, second)
    set_conv(encoder.conv3, third)
    set_conv(encoder.conv4, last, gain)
    set_subpel(decoder.up1, last, 1 / gain)
    for up, stage in ((decoder.up2, third), (decoder.up3, second), (decoder.up4, first)):
        set_subpel(up, stage)
    inter.y_q_scale.copy_(1 / rates.gains(4))
    _start_scales(inter.y_prior_fusion, inter.y_spatial_prior, deviations)


def _pass_reference_through(inter: InterCodec) -> None:
    """Three channels of feature and finest context start as the frame; nothing else is added to them, as small errors
    grow from frame to frame."""
    extractor, fusion = inter.feature_extractor, inter.context_fusion_net
    for layer in (inter.feature_adaptor_I, inter.feature_adaptor_P, extractor.conv1):
        pass_through(layer, 3)
    for layer in (extractor.res_block1.conv2, fusion.conv1_out, fusion.res_block1_out.conv2):
        layer.weight[:3] = 0
    for layer in (fusion.conv2_out, fusion.conv3_out):
        layer.weight.mul_(0.1)
    _pass_frame(inter.recon_generation_net, inter.config.recon_channel)


def _pass_frame(generator: FrameGenerator, decoded: int) -> None:
    """Decoded difference, in the first channels, plus context, behind the `decoded` ones, is the frame."""
    pass_through(generator.first_conv, 3, decoded)
    for n in range(3):
        generator.first_conv.weight[n, n, 1, 1] = 1
    for unet in (generator.unet_1, generator.unet_2):
        for block in (unet.conv1, unet.up_conv2):
            pass_through(block.up_dim, 3)
            block.conv[2].weight[:3] = 0
    pass_through(generator.recon_conv, 3)


def _pass_blocks(*networks: nn.Module) -> None:
    """Let residual blocks add nothing yet where a transform passes."""
    quieten(*networks)
    for network in networks:
        for module in network.modules():
            if type(module) in (ActivatedRes, BottleneckRes):
                module.conv2.weight.mul_(0.01)


def _start_scales(fusion: nn.Sequential, spatial: nn.Sequential, deviations: Tensor) -> None:
    """Steps start as 1, scales as these, means as 0, in both passes; what the networks see changes little of it yet."""
    channels = spatial[-1].out_channels // 2
    scales = deviations.new_full((channels,), 0.3)
    scales[:len(deviations)] = deviations
    for network in (fusion, spatial):
        network[-1].weight.mul_(0.1)
    nothing = torch.zeros_like(scales)
    fusion[-1].bias.copy_(torch.cat((torch.ones_like(scales), scales, nothing)))
    of_halves = torch.stack((scales, nothing)).unflatten(1, (2, -1))              # scale and mean, half, channel
    spatial[-1].bias.copy_(of_halves.transpose(0, 1).flatten())
