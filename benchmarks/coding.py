"""Files to files: what `--compress`, `--decompress` and `--test` take per frame, and where it goes.

The functions are those of the command line, in this process; starting Python and reading weights is not in the times.
Variants (number formats) take turns within every round, so that whatever else the machine does meets all of them.
"""
import argparse
import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.machine import peak_memory
from benchmarks.networks import ConditionalFrame, eager, macs_per_frame
from benchmarks.spans import SPANS, spans, synchronise
from dataloader.source import PngFolder
from models.layers.functional import pad_to_multiple
from util.arithmetic import Arithmetic, choose_arithmetic
from util.cli.arguments import parse_arguments
from util.cli.setup import build_model, coding_plans
from util.cli.stream_files import compress_file, decompress_file
from util.coding.codec import Codec
from util.coding.gop import CodingPlan
from util.errors import InputError
from util.evaluation.evaluate import evaluate
from util.evaluation.metrics import METRICS
from util.spans import each

PARTS = ("networks", *SPANS)
KINDS = ("encode", "decode", "test")
WARM_UP = (64, 64)


@dataclass(frozen=True)
class Setting:
    """What to measure.

    Attributes:
        width, height, frames: of the clip, in one GOP.
        device: cpu or cuda.
        precisions: the variants.
        threads: of the CPU.
        repeat: rounds, of which medians are taken.
        budget: seconds after which no further round begins.
        model: flags of HyTIP.py that choose model and rate.
    """
    width: int
    height: int
    frames: int
    device: str
    precisions: tuple[str, ...]
    threads: int
    repeat: int
    budget: float
    model: tuple[str, ...]

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width


class Bench:
    """Codecs, frames and files for one setting; a context, because the files are temporary."""

    def __init__(self, setting: Setting):
        self.setting = setting
        arithmetic = choose_arithmetic(setting.device, setting.threads)
        with _quiet():
            self.model = build_model(self._arguments())
        self.plain = eager(self.model).to(arithmetic.device)
        self.codecs = _codecs(self.model, arithmetic, setting.precisions)
        self.plan: CodingPlan = coding_plans(self._arguments(), ())[0].for_intra_rates(self.model.rates(intra=True))

    def __enter__(self) -> "Bench":
        with contextlib.ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark")))
            write_frames(self.frames, self.setting.frames, self.setting.size)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *failure) -> None:
        self._stack.close()

    @property
    def frames(self) -> Path:
        return self._folder / "frames"

    @property
    def device(self) -> torch.device:
        return torch.device(self.setting.device)

    def _arguments(self, *flags: str | Path) -> argparse.Namespace:
        gop = max(8, self.setting.frames)
        return parse_arguments([*self.setting.model, "--gop", str(gop), *map(str, flags)])

    def run(self, kind: str, precision: str, frames: Path | None = None) -> None:
        """Encode, decode or evaluate the clip (or the folder of frames) once."""
        codec, frames = self.codecs[precision], frames or self.frames
        stream = self._folder / f"{frames.name}-{precision}.bin"
        if kind == "encode":
            compress_file(self._arguments("--compress", "--input", frames, "--output", stream), lambda _: codec)
        elif kind == "decode":
            output = self._folder / "decoded"
            decompress_file(self._arguments("--decompress", "--input", stream, "--output", output), lambda _: codec)
        else:
            arithmetic = replace(codec.arithmetic, dtype=getattr(torch, precision))
            source = each(PngFolder(frames), "io")
            list(evaluate(codec.network(precision), arithmetic, source, [self.plan], [METRICS["PSNR"]], 16))

    def seconds(self, kind: str, precision: str) -> float:
        """Of one run, per frame."""
        with _quiet():
            synchronise(self.device)
            start = time.perf_counter()
            self.run(kind, precision)
            synchronise(self.device)
            return (time.perf_counter() - start) / self.setting.frames

    def split(self, kind: str, precision: str) -> dict[str, float]:
        """Seconds per frame by part, of one run in which nothing overlaps."""
        codec = self.codecs[precision]
        behind, codec.behind = codec.behind, 0
        try:
            with spans(self.device) as seconds:
                total = self.seconds(kind, precision)
        finally:
            codec.behind = behind
        parts = {name: spent / self.setting.frames for name, spent in seconds.items()}
        return {"total": total, "networks": total - sum(parts.values()), **parts}

    def warm_up(self) -> None:
        """Small frames will do on a CPU; a GPU also has to find its kernels and memory."""
        size = self.setting.size if self.device.type == "cuda" else WARM_UP
        write_frames(self._folder / "warm-up", min(3, self.setting.frames), size)
        with _quiet():
            for precision in self.codecs:
                for kind in KINDS:
                    self.run(kind, precision, self._folder / "warm-up")

    def rounds(self) -> Iterator[int]:
        """As many as were asked for, or as fit the budget; at least one."""
        start = time.monotonic()
        for n in range(self.setting.repeat):
            if n and time.monotonic() - start > self.setting.budget:
                return
            yield n


def _codecs(model, arithmetic: Arithmetic, precisions: tuple[str, ...]) -> dict[str, Codec]:
    """A codec per precision that this device has, all with the same float32 weights."""
    codecs = {}
    for precision in precisions:
        codec = Codec(model, replace(arithmetic, dtype=getattr(torch, precision)))
        try:
            codec.network(precision)
        except InputError:
            continue
        codecs[precision] = codec
    return codecs


def measure_coding(setting: Setting) -> list[dict]:
    """A row per kind of work and precision: medians over rounds of seconds per frame, in parts; multiply-adds; memory.

    On a CPU the parts are those of the timed runs, whose sum is the total; on a GPU those of runs without overlap.
    """
    with Bench(setting) as bench:
        bench.warm_up()
        counts = {decode: macs_per_frame(bench.plain, bench.plan, setting.frames, setting.size, decode)
                  for decode in (False, True)}
        macs = {kind: counts[kind == "decode"] for kind in KINDS}
        del bench.plain
        rows = []
        for kind in KINDS:
            runs: dict[str, list[dict]] = {precision: [] for precision in bench.codecs}
            peaks = dict.fromkeys(bench.codecs)
            for n in bench.rounds():
                for precision in bench.codecs:
                    with peak_memory(bench.device) if n == 0 else nullcontext() as peak:
                        run = bench.split(kind, precision)
                    if n == 0:
                        peaks[precision] = peak.GiB
                    if bench.device.type == "cuda":
                        run["total"] = bench.seconds(kind, precision)
                    runs[precision].append(run)
            rows += [{"kind": kind, "precision": precision, "device": setting.device, "width": setting.width,
                      "height": setting.height, "frames": setting.frames, "threads": torch.get_num_threads(),
                      "rounds": len(of), "macs": macs[kind], "peak_GiB": peaks[precision],
                      "seconds": {part: statistics.median(run[part] for run in of) for part in ("total", *PARTS)},
                      "samples": [run["total"] for run in of]}
                     for precision, of in runs.items()]
        return rows


TARGETS = {"float32": 0.90, "bfloat16": 0.57}


def measure_ratios(setting: Setting) -> dict:
    """Time per frame, file to file, over that of one conditional P-frame's networks in plain float32, in turns.

    The plain time of a round is the mean of one before and one after its runs; ratios are medians over rounds.
    """
    with Bench(setting) as bench:
        frames = [pad_to_multiple(pixels.to(bench.device).unsqueeze(0) / 255, 16)
                  for pixels, _ in zip(PngFolder(bench.frames), range(3))]
        plain = ConditionalFrame(bench.plain, frames, bench.plan)
        bench.warm_up()
        plain.seconds()
        kinds = [(kind, precision) for kind in ("encode", "decode") for precision in bench.codecs]
        base, runs = [plain.seconds()], {key: [] for key in kinds}
        for _ in bench.rounds():
            for key in kinds:
                runs[key].append(bench.seconds(*key))
            base.append(plain.seconds())
        bases = [(a + b) / 2 for a, b in zip(base, base[1:])]
        return {"width": setting.width, "height": setting.height, "frames": setting.frames, "device": setting.device,
                "threads": torch.get_num_threads(), "rounds": len(bases), "plain_seconds": statistics.median(base),
                "plain_samples": base,
                "rows": [{"kind": kind, "precision": precision, "seconds": statistics.median(times),
                          "ratio": statistics.median(t / b for t, b in zip(times, bases)),
                          "target": TARGETS.get(precision), "samples": times}
                         for (kind, precision), times in runs.items()]}


def write_frames(folder: Path, count: int, size: tuple[int, int]) -> None:
    """PNG frames: gradients and waves that drift, with a little noise."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    y, x = np.meshgrid(np.arange(size[0]), np.arange(size[1]), indexing="ij")
    base = np.stack([110 + 60 * np.sin(x / (17 + 9 * c) + y / 31) + 40 * np.cos(y / (13 + 5 * c)) for c in range(3)], 2)
    for n in range(count):
        frame = np.roll(base, (n, 2 * n), (0, 1)) + rng.normal(0, 2, base.shape)
        Image.fromarray(frame.round().clip(0, 255).astype(np.uint8)).save(folder / f"frame_{n + 1}.png")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the command line says."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
