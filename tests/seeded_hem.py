"""DCVC-HEM's golden numbers: the rule that makes its weights from names, and models that follow it.

Rooted names are `hem.image.` and `hem.video.` plus the released name. The gains keep four frames from vanishing and
from exploding.
"""
import zlib
from pathlib import Path

import numpy as np
import torch

from models.catalogue import configure, find_model
from models.hem.codec import DCVCHEM
from models.hem.config import HemConfig

GAINS = {"image.enc.6": 4.0, "image.hyper_enc.8": 8.0, "image.refine.1": 0.5,
         "video.mv_encoder.6": 3.0, "video.mv_hyper_prior_encoder.8": 8.0, "video.mv_decoder.7.0": 1.0,
         "video.contextual_encoder.conv4": 10.0, "video.contextual_hyper_prior_encoder.4": 4.0,
         "video.recon_generation_net.recon_conv": 1.0}
"""Of the weights of some layers; of all others 0.8."""

AROUND_HALF = ("prior_fusion.4", "spatial_prior.4", "refine.1", "recon_conv")
"""Layers whose biases lie around 0.5: entropy parameters and frames."""

TINY_MODEL = Path(__file__).parent / "tiny" / "dcvc-hem.yml"
TINY_HEM: HemConfig = configure(find_model(TINY_MODEL))


def seeded_entry(name: str, shape: tuple[int, ...], salt: int = 0) -> torch.Tensor:
    """The seeded value of the entry with this released name, its root first: `video.mv_decoder.7.0.weight`."""
    layer, leaf = name.rsplit(".", 1)
    seed = zlib.crc32(f"{salt}:hem.{name}".encode())
    normal = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    if "bit_estimator" in name:
        value = 0.3 * normal
    elif leaf.endswith("q_scale"):
        value = np.geomspace(2.0, 0.5, shape[0]).reshape(shape) * np.exp(0.05 * normal)
    elif leaf.endswith("q_basic"):
        value = np.exp(0.5 * normal)
    elif leaf == "bias":
        value = 0.05 * normal + 0.5 * layer.endswith(AROUND_HALF)
    else:
        value = GAINS.get(layer, 0.8) * normal / np.float32(np.sqrt(np.prod(shape[1:])))          # NumPy 1 and 2 alike
    return torch.from_numpy(np.ascontiguousarray(value, dtype=np.float32))


def seeded_hem(config: HemConfig = TINY_HEM, salt: int = 0) -> DCVCHEM:
    """A codec with seeded weights, frozen for evaluation."""
    codec = DCVCHEM(config)
    codec.load_state_dict({name: seeded_entry(codec.released_name(name), tuple(value.shape), salt)
                           for name, value in codec.state_dict().items()})
    return codec.eval().requires_grad_(False)
