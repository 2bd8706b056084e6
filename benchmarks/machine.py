"""What the numbers were measured on, and the memory that a measurement took."""
import ctypes
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import torch

PACKAGES = ("torch", "constriction", "numpy", "pillow")


def describe_machine() -> dict:
    """CPU, GPU, versions and date."""
    cuda = torch.cuda.is_available()
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpu": _proc("cpuinfo", r"model name\s*:\s*(.+)") or platform.processor() or platform.machine(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_GiB": round(int(_proc("meminfo", r"MemTotal:\s*(\d+)") or 0) / 2 ** 20, 1),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "cuda": torch.version.cuda if cuda else None,
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }


def _proc(name: str, pattern: str) -> str | None:
    """The first match in a file of /proc, where there is one."""
    try:
        found = re.search(pattern, Path("/proc", name).read_text())
    except OSError:
        return None
    return found and found[1].strip()


class Peak:
    """Attributes:
        GiB: of the whole process while the block ran; of the tensors on a GPU, on a GPU. None where the system does
            not tell.
    """
    GiB: float | None = None


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Peak]:
    """The peak memory of a block, whatever the process held before and gave back."""
    peak = Peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield peak
        peak.GiB = torch.cuda.max_memory_allocated(device) / 2 ** 30
        return
    known = _forget_peak()
    yield peak
    peak.GiB = int(_proc("self/status", r"VmHWM:\s*(\d+)")) / 2 ** 20 if known else None


def _forget_peak() -> bool:
    """Give freed memory back and start the kernel's high-water mark again. Returns whether it can be."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return False
    return True
