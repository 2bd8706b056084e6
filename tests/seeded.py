"""Weights and clips that follow from names and numbers alone, so that golden numbers need no weight file.

The rule is the one behind the golden numbers: a generator seeded by crc32("{salt}:{name}") draws each tensor, and
its kind decides the scale. Names are the released ones without `module`, e.g. `Residual.net.q_encoder`.
"""
import zlib

import numpy as np
import torch

CONSTANTS = {"bound", "pedestal", "scale_bound", "mean", "std", "win", "beta", "gamma", "target"}


def seeded_tensor(name: str, like: torch.Tensor, salt: int = 0) -> torch.Tensor:
    """The seeded value of one state-dict entry; integers, empty buffers and constants come back unchanged."""
    leaf = name.split(".")[-1]
    if leaf in CONSTANTS or like.numel() == 0 or not like.is_floating_point():
        return like
    shape = tuple(like.shape)
    normal = np.random.default_rng(zlib.crc32(f"{salt}:{name}".encode())).standard_normal(shape, dtype=np.float32)
    if "bit_estimator" in name:
        value = 0.3 * normal
    elif leaf == "q_scale_enc":
        value = np.geomspace(0.6, 1.8, shape[0], dtype=np.float32).reshape(shape)
    elif leaf == "q_scale_dec":
        value = np.geomspace(1.8, 0.6, shape[0], dtype=np.float32).reshape(shape)
    elif leaf == "temperature" or leaf.startswith(("q_", "mv_q_")):
        value = np.exp(0.2 * normal)
    elif name.endswith("if_model.net.refine.1.bias"):
        value = 0.5 + 0.05 * normal
    elif leaf == "bias":
        value = 0.05 * normal
    elif len(shape) == 1:
        value = 1 + 0.1 * normal
    else:
        gain = 3.0 if name.endswith("if_model.net.refine.1.weight") else 0.7
        value = gain * normal / np.float32(np.sqrt(np.prod(shape[1:])))          # NumPy 1 and 2 alike
    return torch.from_numpy(np.ascontiguousarray(value, dtype=np.float32))


def seeded_state(state: dict[str, torch.Tensor], prefix: str = "", salt: int = 0) -> dict[str, torch.Tensor]:
    """A state dict with every entry seeded by `prefix` plus its name."""
    return {name: seeded_tensor(prefix + name, tensor, salt) for name, tensor in state.items()}


def seeded_video(frames: int, height: int, width: int, salt: int = 0) -> torch.Tensor:
    """Twelve drifting gratings and a little noise: float32 (frames, 3, height, width) in [0, 1], in 8-bit steps."""
    rng = np.random.default_rng(1000 + salt)
    y, x = np.meshgrid(np.arange(height, dtype=np.float64), np.arange(width, dtype=np.float64), indexing="ij")
    clip = np.zeros((frames, 3, height, width))
    for _ in range(12):
        fx, fy = rng.uniform(-0.25, 0.25, 2)
        vx, vy = rng.uniform(-2.5, 2.5, 2)
        phases = rng.uniform(0, 2 * np.pi, 3)
        amplitudes = rng.uniform(0.02, 0.08, 3)
        for t in range(frames):
            angle = 2 * np.pi * (fx * (x - vx * t) + fy * (y - vy * t))
            for c in range(3):
                clip[t, c] += amplitudes[c] * np.sin(angle + phases[c])
    clip += 0.5 + 0.01 * rng.standard_normal(clip.shape)
    return torch.from_numpy((np.round(clip.clip(0, 1) * 255) / 255).astype(np.float32))
