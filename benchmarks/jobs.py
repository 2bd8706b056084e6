"""One measurement in a process of its own, so that no other's memory, threads or settings are in it.

    python -m benchmarks.jobs '{"job": "coding", ...}'       prints its result as JSON, on the last line
"""
import json
import sys
from pathlib import Path

import torch

from benchmarks import training
from benchmarks.coding import Setting, measure_coding, measure_ratios
from benchmarks.machine import describe_machine
from benchmarks.networks import peak_rate
from benchmarks.startup import measure_startup
from benchmarks.variants import measure_variants
from util.arithmetic import choose_arithmetic
from util.formats import is_supported
from util.training.phases import TRAIN_CFG, read_phases
from util.training.schedule import read_schedule


def measure_peaks(device: str, precisions: list[str], threads: int | None, seconds: float, small: bool = False
                  ) -> dict[str, float | None]:
    """Multiply-adds per second by number format; None for those that the device lacks."""
    place = choose_arithmetic(device, threads).device
    torch.use_deterministic_algorithms(False)                       # the best there is
    formats = {name: getattr(torch, name) for name in precisions}
    return {name: peak_rate(place, dtype, seconds, small) if is_supported(dtype, place) else None
            for name, dtype in formats.items()}


def measure_training(device: str, threads: int, step: int, repeat: int, config: str | None, amp: str = "off",
                     tf32: str = "on") -> dict:
    """The last phase of a step of the released schedule."""
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = True
    arguments = training.build_parser().parse_args(["--device", device, "--repeat", str(repeat), "--amp", amp,
                                                   "--tf32", tf32])
    chosen = read_schedule(TRAIN_CFG / "schedule.yml")[step - 1]
    folder = Path(config) if config else training.ROOT / "config"
    row = training.measure(chosen, read_phases(chosen.train_conf)[-1], torch.device(device), arguments, folder)
    return {"step": step, "device": device, "threads": threads, "amp": amp, "tf32": tf32,
            **{name: float(value) for name, value in row.items()}}


def run(request: dict) -> object:
    """What a request asks for."""
    job = request.pop("job")
    if job in ("coding", "ratios"):
        setting = Setting(**{name: tuple(value) if isinstance(value, list) else value
                             for name, value in request.items()})
        return (measure_coding if job == "coding" else measure_ratios)(setting)
    return {"machine": describe_machine, "peaks": measure_peaks, "training": measure_training,
            "startup": measure_startup, "variants": measure_variants}[job](**request)


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
