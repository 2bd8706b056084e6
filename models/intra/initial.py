"""What the intra codec starts with: a block transform coder (models/layers/block_transform.py)."""
import torch
from torch import nn

from models.intra.dcvc_dc import IntraCodec, IntraConfig
from models.layers.block_transform import set_down, set_subpel, set_up, stages
from models.layers.initial import Rates, kept_channels, pass_through, quieten, scales_of, set_conv, start_scales

GREY, DEVIATION, CORRELATION = 0.45, 0.25, 0.95
"""Mean and standard deviation of natural frames, and correlation of neighbouring pixels, near enough."""


def settle(intra: IntraCodec, c: IntraConfig, rates: Rates) -> None:
    """Set transforms, gains and scales."""
    first, second, third, last = found = stages(
        kept_channels(c.g_ch_2x, c.g_ch_4x, c.g_ch_8x or c.channel_N, c.channel_N), CORRELATION, DEVIATION)
    quieten(intra.enc, intra.dec, intra.refine)
    gain, deviations = scales_of(last, rates)
    set_down(intra.enc.enc_1[0], first, torch.full((3,), GREY))
    set_down(intra.enc.enc_2[0], second)
    set_down(intra.enc.enc_2[2], third)
    set_conv(intra.enc.enc_2[4], last, gain)
    for block, stage in zip((intra.dec.dec_1[1], intra.dec.dec_1[3], intra.dec.dec_1[5], intra.dec.dec_2[1]),
                            reversed(found)):
        set_up(block, stage)
    set_subpel(intra.dec.dec_1[1].upsample, last, 1 / gain)
    unet, out = intra.refine
    for block in (unet.conv1, unet.up_conv2):
        pass_through(block.block[0].adaptor, 3)
    out.weight.mul_(0.1)
    for n in range(3):
        out.weight[n] = 0
        out.weight[n, n, 1, 1] = 1
    nn.init.constant_(out.bias, GREY)
    intra.q_scale_enc.copy_(rates.gains(4))
    intra.q_scale_dec.copy_(1 / intra.q_scale_enc)
    start_scales(intra.y_prior_fusion[-1].block, 3, deviations)
    start_scales(intra.y_spatial_prior[-1].block, 2, deviations)
