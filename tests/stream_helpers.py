"""Tiny codecs, clips and whole streams for the tests of streams."""
import io
from functools import lru_cache

import torch
from torch import Tensor

from helpers import seeded_model, tiny_config
from models.hytip.codec import HyTIP
from seeded import seeded_video
from util.arithmetic import choose_arithmetic
from util.coding.codec import Codec
from util.coding.gop import CodingPlan
from util.coding.session import DecodedFrame, EncodedPart

PLAN = CodingPlan(qp=42, intra_qp=42)


def codec_of(model: HyTIP) -> Codec:
    return Codec(model, choose_arithmetic("cpu", threads=1))


def exact_model(motion: str = "Motion", inter: str = "Inter") -> HyTIP:
    """Seeded weights, the same on every machine: those that come out of an exponential are rounded."""
    model = seeded_model(tiny_config(motion, inter))
    for name, value in model.named_parameters():
        if "q_" in name or "temperature" in name:
            round_coarsely(value)
    return model


def round_coarsely(value: Tensor) -> None:
    """To multiples of 1/64, in place, so that last bits of a maths library cannot matter."""
    value.mul_(64).round_().div_(64)


@lru_cache(maxsize=4)
@torch.inference_mode(False)                                        # whatever mode the first test is in
def tiny_codec(motion: str = "Motion", inter: str = "Inter") -> Codec:
    return codec_of(exact_model(motion, inter))


@lru_cache(maxsize=1)
@torch.inference_mode(False)
def wild_codec() -> Codec:
    """Weights whose scales span the whole ladder and whose latents leave the tables."""
    model = exact_model()
    with torch.no_grad():
        for encoder, factor in ((model.intra.enc, 3), (model.intra.hyper_enc, 2), (model.motion.mv_encoder, 20),
                                (model.motion.mv_hyper_prior_encoder, 100), (model.inter.contextual_encoder, 20),
                                (model.inter.contextual_hyper_prior_encoder, 100)):
            *_, last = (m for m in encoder.modules() if isinstance(m, torch.nn.Conv2d))
            last.weight *= factor                                  # the intra codec squares what it is given
        intra = model.intra.y_spatial_prior[-1].block[1].conv_out
        motion = model.motion.prior_fusion[-1].block[1].conv[2]
        inter = model.inter.context_model.y_spatial_prior.block[1].conv[2]
        for last, parts, part in ((intra, 2, 0), (motion, 3, 1), (inter, 2, 0)):
            channels = last.out_channels // parts
            last.bias[part * channels:(part + 1) * channels] = torch.logspace(-2, 2.6, channels)
            round_coarsely(last.bias)
    return codec_of(model)


def clip(frames: int, height: int, width: int, salt: int = 0) -> list[Tensor]:
    """uint8 (3, H, W) frames."""
    return list((seeded_video(frames, height, width, salt) * 255).round().to(torch.uint8))


def encode_parts(codec: Codec, frames: list[Tensor], plan: CodingPlan = PLAN, **options) -> list[EncodedPart]:
    return list(codec.encode(frames, plan, **options))


def encode(codec: Codec, frames: list[Tensor], plan: CodingPlan = PLAN, **options) -> bytes:
    return b"".join(codec.compress(frames, plan, **options))


def decode(codec: Codec, stream: bytes, **options) -> list[DecodedFrame]:
    return list(codec.decode(io.BytesIO(stream), **options))


def coded(codec, frames, plan=PLAN, **options):
    """The parts that hold frames, and the stream."""
    parts = encode_parts(codec, frames, plan, **options)
    return parts[1:-1], b"".join(part.data for part in parts)


def same(encoded, decoded) -> bool:
    """Bit for bit, in all that is known of a frame."""
    return (torch.equal(encoded.frame, decoded.frame) and encoded.header == decoded.header
            and encoded.number == decoded.number and encoded.bits == decoded.bits and decoded.matches
            and decoded.size == len(encoded.data) and torch.equal(encoded.coded.frame, decoded.coded.frame))
