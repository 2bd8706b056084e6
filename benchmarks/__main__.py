"""Measure encoding, decoding, evaluation and training on this machine, beside what its arithmetic would allow.

    python -m benchmarks                                 all of it; writes results/benchmark.md and .json
    python -m benchmarks --only ratios --repeat 7        the acceptance ratios alone
    python -m benchmarks -- --weights model.pth.tar      another model, by flags of HyTIP.py
    python -m benchmarks --gpu-day                       what a first day on a GPU must answer, in under 25 minutes
"""
import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks import gpu_day
from benchmarks.report import markdown
from util.choices import PRECISIONS
from util.cli.arguments import parse_arguments
from util.errors import InputError
from util.files import atomic_path
from util.program import Parser, exit_status, wait_patiently

ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "tests" / "tiny"
TINY_MODEL = ("--untrained", "--cond_motion_coder_conf", str(TINY / "Motion.yml"), "--residual_coder_conf",
              str(TINY / "Inter.yml"), "--intra_coder_conf", str(TINY / "Intra.yml"), "--motion_estimation_conf",
              str(TINY / "MENet.yml"))
RATIO_CLIP = {"width": 384, "height": 192, "frames": 8, "threads": 2}
PARTS = ("startup", "coding", "ratios", "training")


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure")
    parser.add_argument("--sizes", nargs="+", default=["416x240", "1280x720", "1920x1080"], metavar="WxH")
    parser.add_argument("--frames", type=int, default=3, help="per clip: an I-frame, then P-frames")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS[:2]))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the CPU; the ratios use 2")
    parser.add_argument("--repeat", type=int, default=3, help="rounds, of which medians are taken")
    parser.add_argument("--budget", type=float, default=300,
                        help="seconds per size and kind of work after which no further round begins")
    parser.add_argument("--steps", type=int, nargs="+", default=[2, 9, 12], help="of the training schedule")
    parser.add_argument("--output", type=Path, help="without .md and .json; default: results/benchmark")
    parser.add_argument("--gpu-day", action="store_true",
                        help="all number formats, layouts, compilation, graphs and training at the released batch, on "
                             "a GPU, within 25 minutes; writes results/gpu_day.md and .json after each measurement")
    parser.add_argument("--quick", action="store_true", help="tiny networks and frames: only shows that it works")
    parser.add_argument("model", nargs="*", metavar="-- FLAGS",
                        help="flags of HyTIP.py that choose model and rate; seeded weights by default")
    return parser


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Flags, checked.

    Raises:
        InputError: a value outside its bounds, or model flags that HyTIP.py would refuse.
    """
    arguments = build_parser().parse_args(argv)
    if arguments.quick:
        arguments.sizes, arguments.frames, arguments.repeat, arguments.steps = ["64x48"], 3, 1, [10]
        arguments.threads = 1                                       # tiny networks would wait for each other
        arguments.model = arguments.model or list(TINY_MODEL)
    arguments.model = arguments.model or ["--untrained"]
    arguments.output = arguments.output or Path("results", "gpu_day" if arguments.gpu_day else "benchmark")
    arguments.sizes = [_size(text) for text in arguments.sizes]
    for flag, least in (("frames", 3), ("threads", 1), ("repeat", 1)):
        if getattr(arguments, flag) < least:
            raise InputError(f"--{flag} {getattr(arguments, flag)} must be at least {least}")
    for step in arguments.steps:
        if not 1 <= step <= 12:
            raise InputError(f"--steps {step} is outside 1..12, the steps of the schedule")
    parse_arguments(arguments.model)
    return arguments


def _size(text: str) -> tuple[int, int]:
    width, cross, height = text.partition("x")
    if not (cross and width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise InputError(f"--sizes {text} is no WIDTHxHEIGHT, such as 416x240")
    return int(width), int(height)


def measure(job: str, timeout: float | None = None, **request: object) -> object:
    """The result of a job in a process of its own.

    Raises:
        InputError: it failed, or took longer than `timeout` seconds.
    """
    print(f"measuring {job} {request.get('width', '')} {request.get('device', '')}", file=sys.stderr, flush=True)
    try:
        done = subprocess.run([sys.executable, "-m", "benchmarks.jobs", json.dumps({"job": job, **request})], cwd=ROOT,
                              stdout=subprocess.PIPE, text=True, timeout=timeout,
                              env={**os.environ, "KINETO_LOG_LEVEL": "99"})         # the profiler's own remarks
    except subprocess.TimeoutExpired:
        raise InputError(f"measuring {job} took more than {timeout:.0f} s") from None
    if done.returncode:
        raise InputError(f"measuring {job} failed with exit status {done.returncode}; what it printed is above")
    return json.loads(done.stdout.splitlines()[-1])


def run(argv: list[str] | None = None) -> None:
    """Measure and write."""
    arguments = parse(argv)
    if arguments.gpu_day:
        gpu_day.run(arguments, measure)
        return
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    quick, only = arguments.quick, arguments.only
    common = {"precisions": arguments.precisions, "repeat": arguments.repeat, "budget": arguments.budget,
              "model": arguments.model}
    ratio_clip = {"width": 64, "height": 48, "frames": 3, "threads": 1} if quick else RATIO_CLIP
    results = {
        "machine": measure("machine"),
        "settings": {**common, "model": " ".join(arguments.model), "threads": arguments.threads, "quick": quick},
        "peaks": {device: measure("peaks", device=device, precisions=arguments.precisions, threads=arguments.threads,
                                  seconds=0.05 if quick else 2.0, small=quick)
                  if device in devices and only != ["startup"] else None
                  for device in ("cpu", "cuda")},
        "startup": measure("startup", repeat=arguments.repeat, model=arguments.model) if "startup" in only else [],
        "coding": [row for device in devices for width, height in arguments.sizes if "coding" in only
                   for row in measure("coding", device=device, width=width, height=height, frames=arguments.frames,
                                      threads=arguments.threads, **common)],
        "ratios": [measure("ratios", device=device, **ratio_clip, **common) if device in devices else None
                   for device in ("cpu", "cuda") if "ratios" in only],
        "training": [measure("training", device=device, threads=arguments.threads, step=step, repeat=arguments.repeat,
                             config=str(TINY) if quick else None)
                     for device in devices for step in arguments.steps if "training" in only],
    }
    text = markdown(results)
    for suffix, content in ((".json", json.dumps(results, indent=2) + "\n"), (".md", text)):
        with atomic_path(Path(f"{arguments.output}{suffix}")) as temporary:
            temporary.write_text(content, encoding="utf-8")
    print(text)


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 bad input, 130 interrupted."""
    wait_patiently()                                                # for the processes that measure, as HyTIP.py does
    return exit_status("benchmarks", lambda: run(argv))


if __name__ == "__main__":
    sys.exit(main())
