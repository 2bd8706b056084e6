"""Time and peak memory of one P-frame on the CPU in float32: codecs side by side, in turns.

    python -m benchmarks.p_frame dcvc-hem dcvc-mip st-xct-depthwise --size 1920x1080 --rounds 2

Each turn is a process of its own. It codes two P-frames (estimated bits, random weights, smooth random pictures) and
tells of the second, which finds everything in its memory that a P-frame can have. Peak: of the whole process while
that frame is coded (VmHWM, Linux alone). Columns: medians over the rounds, and times the first model's.
"""
import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F

from benchmarks.machine import peak_memory
from benchmarks.report import table
from models.catalogue import build_codec, find_model
from models.codec import FrameHeader
from models.entropy.coder import Estimator
from util.arithmetic import choose_arithmetic
from util.errors import InputError
from util.program import Parser, exit_status, wait_patiently

TAME = 0.5
"""Of the random kernels: as they are drawn, activations of some codecs overflow."""


def measure(name: str, size: tuple[int, int], threads: int) -> dict:
    """Of the second P-frame: seconds on the wall, CPU seconds, and GiB of the process before and at most."""
    arithmetic = choose_arithmetic("cpu", threads)
    torch.manual_seed(0)
    codec = build_codec(find_model(name))
    for parameter in codec.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(TAME)
    codec = arithmetic.place(codec)
    height, width = (side + -side % codec.grid.align for side in size)
    frames = F.interpolate(torch.rand(3, 3, height // 8, width // 8), (height, width), mode="bilinear").split(1)
    with torch.inference_mode():
        memory = codec.remember_frame(frames[0])
        for frame in frames[1:]:
            header = FrameHeader(intra=False, qp=21, size=(height, width))
            with peak_memory(arithmetic.device) as before:
                pass
            wall, cpu = time.perf_counter(), time.process_time()
            with peak_memory(arithmetic.device) as peak:
                memory = codec.code_frame(Estimator(), frame, memory, header).memory
            row = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "before": before.GiB,
                   "peak": peak.GiB}
    return row


def run(argv: list[str] | None = None) -> None:
    parser = Parser(prog="benchmarks.p_frame", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="names or YAML files of models")
    parser.add_argument("--size", default="1920x1080", metavar="WxH")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)        # a turn
    arguments = parser.parse_args(argv)
    if not Path("/proc/self/clear_refs").exists():
        raise InputError("peak memory is read from /proc, which only Linux has; run this there")
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", arguments.size) or arguments.rounds < 1:
        raise InputError(f"--size {arguments.size} --rounds {arguments.rounds}: give WIDTHxHEIGHT, such as 416x240, "
                         "and one round at least")
    width, height = map(int, arguments.size.split("x"))
    if arguments.one:
        print(json.dumps(measure(arguments.models[0], (height, width), arguments.threads)))
        return
    for name in arguments.models:
        find_model(name)
    rows = {name: [] for name in arguments.models}
    for _ in range(arguments.rounds):
        for name in arguments.models:
            words = [sys.executable, "-m", "benchmarks.p_frame", name, "--size", arguments.size, "--threads",
                     str(arguments.threads), "--one"]
            done = subprocess.run(words, stdout=subprocess.PIPE, text=True)
            if done.returncode:
                raise InputError(f"{name} ended with exit status {done.returncode}; at {arguments.size} a frame of "
                                 "these codecs takes 6 GiB, give a smaller --size where there is less")
            rows[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(name, rows[name][-1], file=sys.stderr, flush=True)
    found = {name: {key: median(row[key] for row in turns) for key in turns[0]} for name, turns in rows.items()}
    first = found[arguments.models[0]]
    print(table(["model", "s", "CPU s", "GiB before", "GiB at most", "time", "memory"],
                [[name, *(f"{row[key]:.2f}" for key in ("wall", "cpu", "before", "peak")),
                  f"{row['wall'] / first['wall']:.2f}", f"{row['peak'] / first['peak']:.2f}"]
                 for name, row in found.items()]))


if __name__ == "__main__":
    wait_patiently()
    sys.exit(exit_status("benchmarks.p_frame", run))
