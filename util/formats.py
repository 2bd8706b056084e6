"""Which parts of the networks compute in which number format, for portable streams and for half precision.

Portable: decoders on other machines must come to the same symbols. In float32 a difference in the last bit soon turns
a scale index, and every later symbol is wrong; in float64 such a turn needs a scale within about 1e-13 of a boundary.

Half precision: bfloat16 has 8 significant bits, not enough for a pixel, a displacement of many pixels, or a large
latent. So the wide networks, which hold nearly all arithmetic, compute in it, while everything that crosses from one
network to another as a frame, a flow, a latent or a probability stays in float32, with the layer that makes it.
"""
import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from models.hytip.codec import HyTIP
from models.layers.float64 import use_fast_float64
from models.layers.formats import autocast_in, compute_in

HALF = (torch.bfloat16, torch.float16)


def portable_copy(model: HyTIP) -> HyTIP:
    """A copy that codes in float64, but analyses the source in float32: only the encoder runs that part."""
    model = copy.deepcopy(model).to(torch.float64, memory_format=torch.contiguous_format)
    use_fast_float64(model)
    intra, motion, inter = model.intra, model.motion, model.inter
    compute_in(torch.float32, outside=torch.float64, parts=(
        intra.enc, intra.hyper_enc, model.motion_estimation, motion.mv_encoder, motion.mv_hyper_prior_encoder,
        inter.contextual_encoder, inter.contextual_hyper_prior_encoder))
    return model


def half_copy(model: HyTIP, dtype: torch.dtype) -> HyTIP:
    """A copy with wide networks in bfloat16 or float16; frames, flows and latents in and out are float32."""
    model = copy.deepcopy(model).to(memory_format=torch.channels_last)
    compute_in(dtype, [*_wide_intra(model), *_wide(model)])
    compute_in(torch.float32, [*_intra_heads(model), *_heads(model)])
    compute_in(torch.float32, [model.inter.contextual_decoder.CTM], outside=dtype)
    return model


@contextmanager
def half_inside(model: HyTIP, dtype: torch.dtype, intra: bool = False) -> Iterator[None]:
    """Training in half precision: inside the block the parts that `half_copy` would convert compute in `dtype`.

    Weights stay float32; autocast makes a copy of each, once in the block.

    Args:
        intra: let the intra codec do so, and no other network; I-frames that nobody learns from stay in float32.
    """
    kind = next(model.parameters()).device.type
    wide, heads = (_wide_intra(model), _intra_heads(model)) if intra else (_wide(model), _heads(model))
    with torch.autocast(kind, enabled=False), ExitStack() as hooks:
        for part in wide:
            hooks.enter_context(autocast_in(part, kind, dtype))
        for part in (*heads, model.inter.contextual_decoder.CTM):
            hooks.enter_context(autocast_in(part, kind, None))
        yield


def _wide_intra(model: HyTIP) -> list[nn.Module]:
    return [model.intra.enc, model.intra.dec, model.intra.refine]


def _intra_heads(model: HyTIP) -> list[nn.Module]:
    return [model.intra.enc.enc_2[-1], model.intra.refine[-1]]


def _wide(model: HyTIP) -> list[nn.Module]:
    """What of P-frames may compute in half precision."""
    motion, inter = model.motion, model.inter
    wide = [*model.motion_estimation.Blocks,
            motion.feature_extractor, motion.mv_encoder, motion.mv_decoder, motion.feature_generator,
            inter.feature_adaptor_I, *(inter.feature_adaptor if inter.config.remembers else ()),
            inter.feature_extractor, inter.context_fusion_net, inter.contextual_encoder, inter.contextual_decoder,
            inter.recon_generation_net, inter.frame_feature_generator]
    if inter.MaskGenerator is not None:
        wide.append(inter.MaskGenerator.net)
    return [part for part in wide if part is not None]


def _heads(model: HyTIP) -> list[nn.Module]:
    """What makes a frame, a flow or a latent of the features of a wide network, or goes on with them in float32."""
    motion, inter = model.motion, model.inter
    heads = [*(block[-1] for block in model.motion_estimation.Blocks),
             motion.mv_encoder.enc_3[-1], motion.mv_decoder.dec_3[-1], inter.mc_generator,
             inter.contextual_encoder.conv4, inter.contextual_encoder.CTM, inter.recon_generation_net.recon_conv,
             inter.temporal_prior_encoder]
    if inter.MaskGenerator is not None:
        heads.append(inter.MaskGenerator.net.up_1[-1])
    if inter.config.Pretrain:
        heads += [inter.mc_generate_1, inter.mc_generate_2, inter.mc_generate_3, inter.mc_generate_3_2]
    return heads


def fast_layout(model: HyTIP) -> HyTIP:
    """The model itself, in channels_last, which convolutions are fastest in.

    The intra codec keeps the contiguous layout of the released system. I-frames are rare, so it costs little, and
    other sums would turn the one value of the golden reports that lies on a rounding tie.
    """
    model.to(memory_format=torch.channels_last)
    model.intra.to(memory_format=torch.contiguous_format)
    return model


def is_supported(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether convolutions in this number format run on the device at all."""
    network = nn.Conv2d(1, 1, 3).to(device, dtype)
    try:
        network(torch.zeros(1, 1, 3, 3, device=device, dtype=dtype))
    except RuntimeError:
        return False
    return True
