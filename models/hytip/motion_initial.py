"""What the motion codec starts with: every eighth vector of the flow, of which 2x2 are rotated into the latent."""
from models.hytip.motion import MotionCodec
from models.layers.block_transform import set_subpel, stages
from models.layers.initial import Rates, kept_channels, pass_through, quieten, set_conv, start_scales, weaken

FLOW_DEVIATION, FLOW_CORRELATION = 3.0, 0.97
"""Standard deviation of a flow at 1/8, in pixels, and correlation of neighbouring vectors."""

FLOW_PRECISION = 25.0
"""Latent steps per pixel of displacement, for lambda 1; they grow with its root."""


def settle(motion: MotionCodec, rates: Rates) -> None:
    """The flow passes in the first two channels."""
    encoder, decoder = motion.mv_encoder, motion.mv_decoder
    kept = kept_channels(motion.config.channel_N, planes=2)
    stage, = stages(kept, FLOW_CORRELATION, FLOW_DEVIATION, planes=2, between=0)
    quieten(encoder, decoder)
    for down in (encoder.enc_1[0], encoder.enc_2, encoder.enc_3[0]):
        pass_through(down.downsample, 2)
        down.conv2.weight[:2].mul_(0.01)
    for block in (encoder.adaptor_0, encoder.adaptor_1, encoder.adaptor_3_1, decoder.adaptor_0_1, decoder.adaptor_1_1,
                  decoder.dec_1[0]):
        depth = block.block[0]
        if depth.adaptor is not None and depth.adaptor.out_channels > stage.rotation.shape[0]:
            pass_through(depth.adaptor, stage.rotation.shape[0])
    encoder.enc_3[2].weight.mul_(0.05)
    precision = FLOW_PRECISION * rates.root
    set_conv(encoder.enc_3[2], stage, precision)
    set_subpel(decoder.dec_1[1].upsample, stage, 1 / precision)
    for up in (decoder.dec_1[3].upsample, decoder.dec_2.upsample, decoder.dec_3[1]):
        up[0].weight[:8] = 0
        for n in range(8):
            up[0].weight[n, n // 4] = 1
    prior = motion.prior_fusion if motion.config.buffer.latent else motion.PA
    weaken(prior[0].block)                                       # the last block passes its input
    deviations = precision * stage.deviations.float()
    if motion.config.variable_rate:
        motion.mv_q_encoder.copy_(rates.gains(64).expand_as(motion.mv_q_encoder))
        motion.mv_q_decoder.copy_(1 / motion.mv_q_encoder)
        deviations /= rates.span ** 0.5
    start_scales(prior[-1].block, 3, deviations.clamp(min=0.2))
