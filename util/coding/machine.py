"""What a float32 stream depends on besides weights: the encoder's device, processor and number of threads."""
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from util.coding.bitstream import DEVICES, NAME, StreamHeader

MOST_PER_CORE = 4
"""Threads per core up to which a decoder follows the encoder."""


@dataclass(frozen=True)
class Machine:
    """Where networks compute.

    Attributes:
        device: cpu, cuda or other.
        threads: of the CPU; None on a GPU.
        processor: instruction set that PyTorch uses on the CPU (AVX2, AVX512, ...), or name of the GPU.
    """
    device: str
    threads: int | None
    processor: str

    @classmethod
    def here(cls, device: torch.device) -> "Machine":
        if device.type == "cpu":
            return cls("cpu", torch.get_num_threads(), torch.backends.cpu.get_cpu_capability())
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        return cls(device.type if device.type in DEVICES else "other", None, name[:NAME.most])

    @classmethod
    def of(cls, header: StreamHeader) -> "Machine":
        """The encoder's."""
        return cls(header.device, header.threads, header.processor)

    def differences(self, encoder: "Machine") -> list[str]:
        """What may make this machine compute otherwise than the encoder, in words; nothing where all is equal."""
        if self.device != encoder.device:
            return [f"it was encoded on {_name(encoder)}, and this is {_name(self)}"]
        found = []
        if encoder.processor and self.processor != encoder.processor:
            found.append(f"it was encoded with {encoder.processor}, and this is {self.processor}")
        if encoder.threads and self.threads != encoder.threads:
            found.append(f"it was encoded with {_count(encoder.threads)}, and this has {self.threads} (--threads "
                         f"{encoder.threads} decodes it)")
        return found


def _name(machine: Machine) -> str:
    return f"{machine.device} ({machine.processor})" if machine.processor else machine.device


def _count(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def followed_threads(header: StreamHeader, device: torch.device) -> int | None:
    """The encoder's number of threads, where a decoder on this device should have it, too, and bearably can."""
    follow = device.type == header.device == "cpu" and not header.portable and header.threads
    return header.threads if follow and header.threads <= MOST_PER_CORE * (os.cpu_count() or 1) else None


@contextmanager
def using_threads(count: int | None) -> Iterator[None]:
    """PyTorch with so many CPU threads; None changes nothing."""
    before = torch.get_num_threads()
    if count in (None, before):
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
