"""The one place that chooses device, number format and determinism of a run."""
import os
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from util.errors import InputError


@dataclass(frozen=True)
class Arithmetic:
    """How the networks compute. Networks contain no casts; they follow their weights and inputs.

    Attributes:
        device: where.
        dtype: number format of weights and activations.
    """
    device: torch.device
    dtype: torch.dtype = torch.float32

    def place(self, network: nn.Module) -> nn.Module:
        """The network, frozen for evaluation, on the device, in the number format and memory layout.

        A float32 intra codec keeps the contiguous layout of the released system. I-frames are rare, so it costs
        little, and other sums would turn the one value of the golden reports that lies on a rounding tie.
        """
        network.to(self.device, self.dtype, memory_format=self.layout).eval().requires_grad_(False)
        if self.dtype == torch.float32 and hasattr(network, "intra"):
            network.intra.to(memory_format=torch.contiguous_format)
        return network

    def frame(self, pixels: Tensor) -> Tensor:
        """8-bit pixels (3, H, W) as a frame (1, 3, H, W) in [0, 1]."""
        return pixels.to(self.device).unsqueeze(0).to(self.dtype, memory_format=self.layout) / 255

    @property
    def layout(self) -> torch.memory_format:
        """channels_last, which convolutions are fastest in; not in float64, whose convolutions are matrix products."""
        return torch.contiguous_format if self.dtype == torch.float64 else torch.channels_last

    def describe(self) -> dict:
        """For the record of a run: what PyTorch says now, not what was asked of it."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        return {"device": str(self.device), "device_name": name, "dtype": str(self.dtype).removeprefix("torch."),
                "threads": torch.get_num_threads(),
                "tf32": torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32,
                "autotuning": torch.backends.cudnn.benchmark,
                "deterministic_algorithms": torch.are_deterministic_algorithms_enabled()}


def choose_arithmetic(device: str = "auto", threads: int | None = None) -> Arithmetic:
    """Settle the arithmetic of this process: exact float32, deterministic algorithms, no autotuning.

    Args:
        device: auto (CUDA where there is one), cpu or cuda.
        threads: CPU threads; None keeps PyTorch's choice. Results are reproducible at an equal number.
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
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False      # costs time; nothing reads such memory
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    return Arithmetic(torch.device(device))
