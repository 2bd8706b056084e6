"""How precisely targets are met: the figures of docs/rate_control.md.

    python -m dataloader.small --out ROOT                          the clips (docs/small_model_data.md)
    python -m benchmarks.rate_control --data ROOT                  all of it; results/rate_control_{part}.md and .json

two_pass: 3 clips, 2 codecs, 2 targets each, low and high. Each stream is written, decoded, and decoded again after it
was cut. one_pass: the clips joined, in two orders, at several rates with a buffer of a second, beside the same frames
at constant QPs. The codecs: `small`, and the tests' DCVC-HEM of tiny widths and seeded weights, whose pictures
are noise and whose rates only show that nothing depends on the codec. Frames are the middle of the clips' pictures.
"""
import argparse
import io
import itertools
import json
import math
import sys
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from benchmarks.report import table
from dataloader.source import PngFolder
from util.arithmetic import choose_arithmetic
from util.cli.amounts import bit_rate
from util.coding.codec import Codec
from util.coding.gop import CodingPlan
from util.coding.rate_control.controller import Rates
from util.coding.rate_control.one_pass import SURPRISE, OnePass
from util.coding.rate_control.search import Goal
from util.coding.rate_control.two_pass import Analysis
from util.errors import InputError
from util.evaluation.metrics import psnr
from util.files import atomic_path
from util.program import Parser, exit_status

ROOT = Path(__file__).resolve().parents[1]
FPS = 25
SHARES = {"low": 0.37, "high": 0.71}
"""Where the targets of two passes lie between the ends of the codec, in ln(bytes)."""


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="benchmarks.rate_control", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="what dataloader.small made")
    parser.add_argument("--clips", nargs="+", default=["bikes_416x176", "bigbuckbunny_416x240", "carphone_176x144"])
    parser.add_argument("--only", nargs="+", choices=("two_pass", "one_pass"), default=["two_pass", "one_pass"])
    parser.add_argument("--size", type=int, nargs=2, default=[96, 128], metavar=("H", "W"), help="of the middle")
    parser.add_argument("--short", type=int, default=32, help="frames per clip for two passes, in GOPs of 16")
    parser.add_argument("--frames", type=int, default=96, help="frames per clip for one pass, in GOPs of 32")
    parser.add_argument("--rates", type=bit_rate, nargs="+", default=[32e3, 36e3, 42e3], help="for one pass")
    parser.add_argument("--fixed", type=int, nargs="*", default=[0, 13, 26, 39, 52, 63], help="constant QPs beside it")
    parser.add_argument("--strict", action="store_true", help="one pass with three steps at most after cuts, too")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder")
    return parser


def read_clip(folder: Path, frames: int, size: tuple[int, int]) -> list[Tensor]:
    """The middle of the first frames, uint8 (3, H, W)."""
    height, width = size
    source = PngFolder(folder, length=frames)
    if source.height < height or source.width < width:
        raise InputError(f"--size {height} {width} is larger than {folder.name}, {source.height} {source.width}")
    top, left = (source.height - height) // 2, (source.width - width) // 2
    return [frame[:, top:top + height, left:left + width].contiguous() for frame in source]


def tiny_hem() -> Codec:
    """That of the tests."""
    sys.path.append(str(ROOT / "tests"))
    from seeded_hem import seeded_hem
    return Codec(seeded_hem(), choose_arithmetic("cpu", threads=1))


def measure_two_pass(arguments: argparse.Namespace) -> list[dict]:
    """A row per clip, codec and target."""
    rows = []
    plan = CodingPlan(qp=32, gop=16)
    for name, codec in (("small", Codec.load("small", threads=1)), ("tiny DCVC-HEM", tiny_hem())):
        rates = Rates.of(codec.model, plan)
        for clip in arguments.clips:
            frames = read_clip(arguments.data / "test" / clip, arguments.short, arguments.size)
            ends = Analysis(codec, frames, rates)
            least, most = (ends.size((base,) * len(frames)) for base in (0, rates.highest))
            for kind, share in SHARES.items():
                target = float(f"{least * (most / least) ** share:.3g}")
                rows.append({"clip": clip, "codec": name, "target": kind, "least": least, "most": most,
                             **two_passes(codec, frames, rates, target)})
                print(rows[-1], file=sys.stderr, flush=True)
    return rows


def two_passes(codec: Codec, frames: list[Tensor], rates: Rates, target: float) -> dict:
    """What becomes of a size in bytes; `kept` frames are left of a stream that is cut."""
    analysis = Analysis(codec, frames, rates)
    found = analysis.search(Goal.size(target))
    parts = list(codec.encode(frames, analysis.scheduled(found.bases, target)))
    stream = b"".join(part.data for part in parts)
    decoded = list(codec.decode(stream))
    kept = len(frames) // 2 + 1
    cut = codec.decode(b"".join(part.data for part in parts[:kept + 1]), keep_going=True, report=lambda line: None)
    qps = [part.header.qp for part in parts[1:-1]]
    return {"bytes": len(stream), "wanted": target, "error %": 100 * (len(stream) / target - 1),
            "passes": analysis.passes, "least QP": min(qps), "most QP": max(qps),
            "decodes": [torch.equal(a.frame, b.frame) for a, b in zip(parts[1:-1], decoded, strict=True)].count(True),
            "decodes, cut": len(list(cut)), "kept": kept}


def measure_one_pass(arguments: argparse.Namespace) -> list[dict]:
    """A row per order and rate."""
    codec, plan = Codec.load("small", threads=1), CodingPlan(qp=32)
    clips = [read_clip(arguments.data / "test" / clip, arguments.frames, arguments.size) for clip in arguments.clips]
    rates = Rates.of(codec.model, plan)
    forward, rows = list(itertools.chain(*clips)), []
    fixed = Analysis(codec, forward, rates, psnr)
    curve = []
    for qp in arguments.fixed:
        bases = (qp,) * len(forward)
        curve.append((8 * FPS * fixed.size(bases) / len(forward), fixed.quality(bases)))
        print(qp, curve[-1], file=sys.stderr, flush=True)
    for order, frames in (("as listed", forward), ("reversed", list(itertools.chain(*clips[::-1])))):
        for rate in arguments.rates:
            law = OnePass(rates, rate, FPS, surprise=math.inf if arguments.strict else SURPRISE)
            rows.append({"order": order, **one_pass(codec, frames, law, curve)})
            print({**rows[-1], "QPs": ""}, file=sys.stderr, flush=True)
    return rows


def one_pass(codec: Codec, frames: list[Tensor], law: OnePass, curve: list[tuple[float, float]]) -> dict:
    """What becomes of a bit rate, beside a curve of bits per second and PSNR at constant QPs."""
    parts = list(codec.encode(frames, law))
    coded = parts[1:-1]
    rate = 8 * FPS * sum(len(part.data) for part in parts) / len(frames)
    quality = fmean(psnr(part.frame, codec.arithmetic.frame(frame)) for part, frame in zip(coded, frames, strict=True))
    points, values = zip(*curve) if curve else ((rate,), (math.nan,))
    same = float(np.interp(math.log(rate), np.log(points), values))
    qps = [part.header.qp for part in coded]
    changes = [abs(b.header.qp - a.header.qp) for a, b in itertools.pairwise(coded)]
    decoded = sum(frame.matches for frame in codec.decode(io.BytesIO(b"".join(part.data for part in parts))))
    return {"wanted": law.bitrate, "rate": rate, "error %": 100 * (rate / law.bitrate - 1),
            "peak %": 100 * law.bucket.peak / law.bucket.size, "underflows": law.bucket.underflows,
            "coded again": law.repeated, "PSNR": quality,
            "constant QP": same, "difference": quality - same, "changes": sum(c > 0 for c in changes),
            "beyond three steps": sum(c > 3 for c in changes), "decodes": decoded, "QPs": qps[::8]}


def report(part: str, rows: list[dict]) -> str:
    """A table, and what it comes to."""
    names = [name for name in rows[0] if name != "QPs"]
    errors = [abs(row["error %"]) for row in rows]
    text = table(names, [[f"{row[name]:.2f}" if isinstance(row[name], float) else str(row[name]) for name in names]
                         for row in rows])
    return f"{text}\n\n{part}: mean absolute error {fmean(errors):.2f} %, worst {max(errors):.2f} %\n"


def run(argv: list[str] | None = None) -> None:
    """Measure and write."""
    arguments = build_parser().parse_args(argv)
    for part in arguments.only:
        rows = {"two_pass": measure_two_pass, "one_pass": measure_one_pass}[part](arguments)
        for suffix, text in ((".json", json.dumps(rows, indent=1)), (".md", report(part, rows))):
            with atomic_path(arguments.output / f"rate_control_{part}{suffix}") as temporary:
                temporary.write_text(text, encoding="utf-8")
        print(report(part, rows), flush=True)


if __name__ == "__main__":
    sys.exit(exit_status("benchmarks.rate_control", run))
