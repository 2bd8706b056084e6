"""The one place that chooses device, number format and determinism of a run."""
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from models.codec import VideoCodec
from util.errors import InputError
from util.formats import HALF, fast_layout, half_copy, is_supported, portable_copy


@dataclass(frozen=True)
class Arithmetic:
    """How the networks compute. Networks contain no casts; they follow their weights and inputs.

    Attributes:
        device: where.
        dtype: number format of the networks; in bfloat16 and float16 frames, flows and latents are float32
            (util/formats.py).
    """
    device: torch.device
    dtype: torch.dtype = torch.float32

    def place(self, network: VideoCodec) -> VideoCodec:
        """The network, frozen for evaluation, on the device; in float32 itself, in other formats a copy.

        Args:
            network: with float32 weights.

        Raises:
            InputError: the device cannot compute in this number format.
        """
        network = network.to(self.device).eval().requires_grad_(False)
        if self.dtype == torch.float64:
            return portable_copy(network)
        if self.dtype not in HALF:
            return fast_layout(network)
        if not is_supported(self.dtype, self.device):
            raise InputError(f"--precision {self.name}: this {self.device.type} device has no convolutions in "
                             f"{self.name}; use another precision or device")
        return half_copy(network, self.dtype)

    def frame(self, pixels: Tensor) -> Tensor:
        """8-bit pixels (3, H, W) as a frame (1, 3, H, W) in [0, 1], float64 or float32."""
        exact = self.dtype == torch.float64
        return pixels.to(self.device).unsqueeze(0).to(
            torch.float64 if exact else torch.float32,
            memory_format=torch.contiguous_format if exact else torch.channels_last) / 255

    @property
    def name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def describe(self) -> dict:
        """For the record of a run: what PyTorch says now, not what was asked of it."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        return {"device": str(self.device), "device_name": name, "dtype": self.name,
                "threads": torch.get_num_threads(),
                "tf32": torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32,
                "autotuning": torch.backends.cudnn.benchmark,
                "deterministic_algorithms": torch.are_deterministic_algorithms_enabled()}


def choose_arithmetic(device: str = "auto", threads: int | None = None, precision: str = "float32") -> Arithmetic:
    """Settle the arithmetic of this process: no tf32, deterministic algorithms, no autotuning.

    Args:
        device: auto (CUDA where there is one), cpu or cuda.
        threads: CPU threads; None keeps PyTorch's choice. Results are reproducible at an equal number.
        precision: one of util.choices.PRECISIONS.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: no CUDA device is available; use --device cpu")
    if threads is not None:
        if threads < 1:
            raise InputError(f"--threads {threads} must be at least 1")
        torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")     # what deterministic cuBLAS asks for
    torch.set_deterministic_debug_mode("error")     # as use_deterministic_algorithms, but loads no compiler (3 s)
    torch.utils.deterministic.fill_uninitialized_memory = False      # costs time; nothing reads such memory
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    return Arithmetic(torch.device(device), getattr(torch, precision))


@contextmanager
def tf32_in_convolutions(allowed: bool) -> Iterator[None]:
    """Inside the block, whether CUDA's float32 convolutions may take 10 bits of their 23; matrix products may not."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = allowed, False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
