"""A conditional P-frame in the forms that could be faster: layouts, CUDA graphs, torch.compile.

All variants code the second P-frame after an I-frame, without entropy coding, over and over.
"""
import contextlib
import copy
import io
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from benchmarks.graphs import FrameGraphs
from benchmarks.machine import peak_memory
from benchmarks.networks import Rounding
from benchmarks.spans import synchronise
from util.arithmetic import choose_arithmetic
from util.cli.arguments import parse_arguments
from util.cli.setup import build_model, coding_plans

VARIANTS = ("eager", "contiguous", "graphs", "compile")
"""`eager` is what the program does: channels_last."""


def measure_variants(device: str, width: int, height: int, precision: str, model: list[str], seconds: float,
                     variants: list[str]) -> list[dict]:
    """A row per variant: median seconds of a frame, seconds until the first one, peak GiB; or why there are none.

    Args:
        seconds: to spend on each variant, besides its start.
    """
    arithmetic = replace(choose_arithmetic(device), dtype=getattr(torch, precision))
    arguments = parse_arguments([*model, "--gop", "8"])
    with contextlib.redirect_stdout(io.StringIO()):
        network = build_model(arguments)
    plan = coding_plans(arguments, ())[0].for_intra_rates(network.rates(intra=True))
    network = arithmetic.place(network)
    generator = torch.Generator().manual_seed(0)
    frames = [network.grid.pad(arithmetic.frame(torch.randint(256, (3, height, width), dtype=torch.uint8,
                                                              generator=generator)), 16) for _ in range(3)]
    headers = [plan.header(n, tuple(frames[0].shape[-2:])) for n in range(3)]
    memory = None
    with torch.inference_mode():
        for frame, header in zip(frames[:2], headers):
            memory = network.code_frame(Rounding(), frame, memory, header).memory
    rows = []
    for variant in variants:
        row = {"variant": variant, "precision": precision, "device": device, "width": width, "height": height}
        try:
            with peak_memory(arithmetic.device) as peak, torch.inference_mode():
                start = time.perf_counter()
                run = _form(variant, network, frames[2], memory, headers[2])
                run()
                synchronise(arithmetic.device)
                row["start_seconds"] = time.perf_counter() - start
                row["seconds"] = _median(run, arithmetic.device, seconds)
            row["peak_GiB"] = peak.GiB
        except Exception as error:                                  # one variant must not take the others along
            row["failed"] = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
        rows.append(row)
    return rows


def _form(variant: str, network, frame, memory, header) -> Callable[[], object]:
    """What codes the frame once."""
    if variant == "graphs":
        graphs = FrameGraphs(network)
        return lambda: graphs.code(frame, memory, header)
    if variant == "contiguous":
        network = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
        frame = frame.contiguous()
    code = torch.compile(network.code_frame) if variant == "compile" else network.code_frame
    return lambda: code(Rounding(), frame, memory, header)


def _median(run: Callable[[], object], device: torch.device, seconds: float) -> float:
    times, end = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        synchronise(device)
        start = time.perf_counter()
        run()
        synchronise(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)
