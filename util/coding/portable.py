"""The float64 networks of portable streams.

Decoders on other machines must come to the same symbols. In float32 a difference in the last bit soon turns a scale
index, and every later symbol is wrong; in float64 such a turn needs a scale within about 1e-13 of a boundary.
"""
import copy

import torch

from models.hytip import HyTIP
from models.layers.float64 import keep_float32, use_fast_float64


def portable_copy(model: HyTIP) -> HyTIP:
    """A copy that codes in float64, but analyses the source in float32: only the encoder runs that part."""
    model = copy.deepcopy(model).to(torch.float64, memory_format=torch.contiguous_format)
    use_fast_float64(model)
    intra, motion, inter = model.intra, model.motion, model.inter
    keep_float32((intra.enc, intra.hyper_enc, model.motion_estimation, motion.mv_encoder,
                  motion.mv_hyper_prior_encoder, inter.contextual_encoder, inter.contextual_hyper_prior_encoder))
    return model.eval()
