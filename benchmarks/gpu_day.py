"""`python -m benchmarks --gpu-day`: what a first day on a GPU must answer, by itself, in one file, within the time.

Measurements come in the order in which they matter. Each has a process and a limit of its own; one that fails or takes
too long leaves its reason, and the file is written after each, so that a day that ends early leaves what it has.
"""
import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.report import coding_table, peaks_table, table
from util.choices import PRECISIONS
from util.errors import InputError
from util.files import atomic_path

TINY = Path(__file__).resolve().parents[1] / "tests" / "tiny"

MINUTES = 24.0
"""After which no measurement begins, and the last one ends."""

LIMIT = 300.0
"""Seconds for one measurement."""

Job = tuple[str, str, dict]
"""Section of the results, name of the job, its request."""


def jobs(arguments: argparse.Namespace, device: str) -> list[Job]:
    """The measurements; with `--quick` small ones."""
    quick, model = arguments.quick, arguments.model
    precisions = list(PRECISIONS if device == "cuda" else PRECISIONS[:2])   # a CPU takes minutes to emulate float16
    sizes = [{"width": width, "height": height} for width, height in arguments.sizes]
    clip = {"device": device, "precisions": precisions, "model": model, "threads": arguments.threads,
            "repeat": arguments.repeat, "budget": 1.0 if quick else 40.0}
    each = {"device": device, "model": model, "seconds": 0.1 if quick else 5.0}
    train = {"device": device, "threads": arguments.threads, "repeat": 1 if quick else 5,
             "config": str(TINY) if quick else None}
    found: list[Job] = [("machine", "machine", {}),
                        ("peaks", "peaks", {"device": device, "precisions": precisions,
                                            "threads": arguments.threads, "seconds": 0.05 if quick else 2.0,
                                            "small": quick})]
    found += [("coding", "coding", {**clip, **size, "frames": 3 if quick else 8}) for size in sizes]
    found += [("variants", "variants", {**each, **size, "precision": precision,
                                        "variants": ["eager", "contiguous", "graphs"] if precision == "float32"
                                        else ["eager", "graphs"]})
              for size in sizes for precision in PRECISIONS[:2]]
    found += [("training", "training", {**train, "step": step, "amp": amp, "tf32": tf32})
              for amp, tf32 in (("off", "on"), ("bfloat16", "on"), ("off", "off")) for step in arguments.steps]
    found += [("variants", "variants", {**each, **sizes[0], "precision": precision, "variants": ["compile"]})
              for precision in PRECISIONS[:2]]
    return found


def run(arguments: argparse.Namespace, measure: Callable[..., object], device: str = "cuda") -> dict:
    """Measure and write. Returns the results.

    Raises:
        InputError: there is no GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--gpu-day: no CUDA device is available; leave the flag out to measure the CPU")
    end = time.monotonic() + 60 * MINUTES
    results: dict = {"machine": None, "peaks": None, "coding": [], "variants": [], "training": [], "missing": []}
    for section, job, request in jobs(arguments, device):
        left = end - time.monotonic()
        try:
            if left <= 0:
                raise InputError("no time was left")
            found = measure(job, timeout=min(LIMIT, left), **request)
        except InputError as error:
            results["missing"].append({"job": job, **request, "why": str(error)})
        else:
            if isinstance(results[section], list):
                results[section] += found if isinstance(found, list) else [found]
            else:
                results[section] = found
        results["minutes"] = round(MINUTES - (end - time.monotonic()) / 60, 1)
        _write(results, arguments.output, device)
    print(markdown(results, device))
    return results


def _write(results: dict, output: Path, device: str) -> None:
    for suffix, content in ((".json", json.dumps(results, indent=2) + "\n"), (".md", markdown(results, device))):
        with atomic_path(Path(f"{output}{suffix}")) as temporary:
            temporary.write_text(content, encoding="utf-8")


def markdown(results: dict, device: str) -> str:
    """The results as a document."""
    machine, peaks = results["machine"] or {}, {"cpu": None, "cuda": None, device: results["peaks"]}
    parts = ["# A first day on a GPU",
             f"{machine.get('date')}: {machine.get('gpu')}, {machine.get('cpu')}, {machine.get('cores')} cores; CUDA "
             f"{machine.get('cuda')}; {machine.get('versions')}; {results['minutes']} minutes.", peaks_table(peaks)]
    if results["coding"]:
        parts.append(coding_table(results["coding"], peaks))
    parts.append("## Forms of one conditional P-frame\n\nWithout entropy coding. `eager` is what the program does "
                 "(channels_last); the start of graphs and of compilation is their cost.\n\n" + table(
                     ["size", "precision", "form", "s/frame", "start s", "peak GiB", ""],
                     [[f"{row['width']}x{row['height']}", row["precision"], row["variant"], row.get("seconds"),
                       row.get("start_seconds"), row.get("peak_GiB"), row.get("failed", "")]
                      for row in results["variants"]]))
    parts.append("## Training\n\nThe trainer's own steps in the last phase of a step of the schedule, at the released "
                 "batch and crop.\n\n" + table(
                     ["step", "batch", "crop", "amp", "TF32", "steps/s", "clips/s", "peak GiB"],
                     [[f"{row['step']:.0f}", f"{row['batch']:.0f}", f"{row['crop']:.0f}", row["amp"], row["tf32"],
                       row["steps_per_s"], row["clips_per_s"], row["peak_GiB"]] for row in results["training"]]))
    if results["missing"]:
        parts.append("## Not measured\n\n" + "\n".join(f"- {json.dumps(entry)}" for entry in results["missing"]))
    return "\n\n".join(parts) + "\n"
