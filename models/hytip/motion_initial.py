"""What the motion codec starts with: the mean flow of every 4x4 pixels, by blocks of 4x4 such vectors.

The first two halvings of the encoder take the mean of four vectors, as one of them plus what the mean differs by; the
other two rotate four neighbours onto the principal axes. Only differences pass through activations, lifted to where
these are linear; vectors, which may be long, do not. The decoder undoes this and repeats the vectors.
"""
from models.hytip.motion import MotionCodec
from models.layers.block_transform import set_difference_down, set_subpel
from models.layers.initial import (
    FLOW_PRECISION,
    Rates,
    flow_stages,
    pass_through,
    quieten,
    set_conv,
    start_scales,
    weaken,
)


def settle(motion: MotionCodec, rates: Rates) -> None:
    """Set transform, gains and scales. Narrow codecs keep fewer axes of the block."""
    encoder, decoder, width = motion.mv_encoder, motion.mv_decoder, motion.config.channel_mv
    half, eighth, sixteenth = flow_stages(min(8, width), min(width, motion.config.channel_N))
    kept = len(eighth.deviations), len(sixteenth.deviations)
    quieten(encoder, decoder)
    set_difference_down(encoder.enc_1[0], half, 0.5)
    set_difference_down(encoder.enc_2, half, 0.5)
    set_difference_down(encoder.enc_3[0], eighth)
    for block, count in ((encoder.adaptor_0, 2), (encoder.adaptor_1, 2), (encoder.adaptor_3_1, kept[0]),
                         (decoder.dec_1[0], kept[1]), (decoder.adaptor_0_1, kept[0]), (decoder.adaptor_1_1, 2)):
        pass_through(block.block[0].adaptor, count)
    encoder.enc_3[2].weight.mul_(0.05)
    precision = FLOW_PRECISION * rates.root
    set_conv(encoder.enc_3[2], sixteenth, precision)
    set_subpel(decoder.dec_1[1].upsample, sixteenth, 1 / precision)
    set_subpel(decoder.dec_1[3].upsample, eighth)
    for up in (decoder.dec_2.upsample, decoder.dec_3[1]):
        set_subpel(up, half, 2.0)
    prior = motion.prior_fusion if motion.config.buffer.latent else motion.PA
    weaken(prior[0].block)                                       # the last block passes its input
    deviations = precision * sixteenth.deviations.float()
    if motion.config.variable_rate:
        motion.mv_q_encoder.copy_(rates.gains(64).expand_as(motion.mv_q_encoder))
        motion.mv_q_decoder.copy_(1 / motion.mv_q_encoder)
        deviations /= rates.span ** 0.5
    start_scales(prior[-1].block, 3, deviations.clamp(min=0.2))
