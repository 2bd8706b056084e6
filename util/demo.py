"""`python -m util.demo`, which `./install.sh demo` runs: the small model on the bundled clip beside x264 and x265.

    evaluate -> compress -> decompress in another process, compare every frame -> x264, x265 -> table and plot

The first three run the commands that a user would, and show them.
"""
import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from dataloader.source import PngFolder
from util.anchors.__main__ import run as measure_anchor
from util.anchors.measure import folder_of
from util.comparison.bd_rate import Refused, bd_rate
from util.comparison.curves import Codec, Point, read_codec, read_report
from util.comparison.plots import plot_dataset
from util.errors import InputError
from util.program import Ended, Parser, exit_status

ROOT = Path(__file__).parents[1]
CLIP = ROOT / "demo" / "Demo" / "BigBuckBunny"
PIXELS, RATE = 416 * 240, 25
"""Of a frame, and frames per second."""
QPS = (0, 21, 42, 63)
ANCHORS = {"x264-fair": "x264 veryfast", "x265-fair": "x265 veryslow"}
ANCHOR_QPS = (24, 28, 32, 36, 40, 44)
"""Of these the report takes those whose quality is that of our rates; BD-rates over a small shared range say little."""
MODEL = "HyTIP small"


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = Parser(prog="python -m util.demo", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    flags.add_argument("--out", type=Path, default=Path("results/demo"), help="folder for everything it writes")
    flags.add_argument("--frames", type=int, default=32, help="frames of the clip, 2 to 33 (default: 32, one GOP)")
    flags.add_argument("--QP", type=int, nargs="+", default=list(QPS), help="rates (default: 0 21 42 63)")
    return flags


class Demo:
    """Args:
        out: folder for results.
        frames: of the clip.
        qps: rates, 0 to 63.
    """

    def __init__(self, out: Path, frames: int, qps: Sequence[int] = QPS):
        self.out, self.frames, self.qps = out, frames, qps
        self.started = time.monotonic()

    def run(self) -> None:
        """All of it.

        Raises:
            InputError: a command failed, or a decoded frame is not the one that was encoded.
        """
        rates = list(map(str, self.qps))
        clip = ["-data", ROOT / "demo", "--test_dataset", "Demo", "--test_seq_len", self.frames, "--gop", self.frames]
        self._title(f"1/5 evaluate {self.frames} frames of Big Buck Bunny (416x240) at QP {', '.join(rates)}")
        self._hytip("--test", *clip, "--QP", *rates, "--save_dir", self._folder("estimated"))
        self._title("2/5 compress them")
        self._hytip("--compress", *clip, "--QP", *rates, "--save_dir", self._folder("coded"), "--PNG_FILE")
        self._title("3/5 decompress the files, each in a process of its own")
        for qp in self.qps:
            self._hytip("--decompress", "--input", self._stream(qp), "--output", self._decoded(qp))
        for qp in self.qps:
            self._compare(qp)
        print(f"all {len(self.qps)} x {self.frames} decoded frames are those that the encoder had")
        self._title("4/5 x264 and x265: zerolatency, fixed QP, the same intra period")
        for anchor in ANCHORS:
            self._anchor(anchor)
        self._title("5/5 beside each other: bits of the whole files, PSNR in RGB")
        self._report()
        print(f"\nplot: {self.out / 'curve.png'}; files, frames and reports: {self.out}")
        print(f"took {time.monotonic() - self.started:.0f} seconds")

    def _title(self, text: str) -> None:
        print(f"\n== {text} [{time.monotonic() - self.started:.0f} s]", flush=True)

    def _hytip(self, *flags: object) -> None:
        words = [str(flag) for flag in ("HyTIP.py", flags[0], "--model", "small", *flags[1:])]
        shown = [word.replace(f"{ROOT}/", "") for word in words]
        print(f"$ python {shlex.join(shown)}", flush=True)
        status = subprocess.run([sys.executable, ROOT / words[0], *words[1:]]).returncode
        if status > 128:                                           # ended by a signal, which was meant for us as well
            raise Ended(status - 128)
        if status:
            raise InputError(f"the command above failed: {words[1]}; what it said stands above")

    def _folder(self, name: str) -> Path:
        """For `--save_dir`, which gets a folder per rate where there are several: {out}/{name}/{QP} either way."""
        return self.out / name if len(self.qps) > 1 else self.out / name / str(self.qps[0])

    def _stream(self, qp: int) -> Path:
        found = list((self.out / "coded" / str(qp) / "bin").glob("*.bin"))
        if len(found) != 1:
            raise InputError(f"{self.out / 'coded' / str(qp) / 'bin'} holds {len(found)} streams, 1 is expected; give "
                             "--out an empty folder")
        return found[0]

    def _decoded(self, qp: int) -> Path:
        return self.out / "decoded" / str(qp)

    def _compare(self, qp: int) -> None:
        encoder = PngFolder(self.out / "coded" / str(qp) / "png" / CLIP.name)
        decoder = PngFolder(self._decoded(qp))
        for n, (sent, received) in enumerate(zip(encoder, decoder, strict=True), start=1):
            if not torch.equal(sent, received):
                raise InputError(f"frame {n} of {self._stream(qp)} was decoded differently; report this")

    def _anchor(self, name: str) -> None:
        flags = [name, "--QP", *ANCHOR_QPS, "--input", CLIP, "--color_transform", "BT709", "--metrics", "PSNR",
                 "--test_seq_len", self.frames, "--gop", self.frames, "--save_dir", self.out]
        measure_anchor([str(flag) for flag in flags])

    def _curves(self) -> list[Codec]:
        """Ours with the sizes of the files, and the anchors."""
        points = []
        for qp in self.qps:
            report, = (self.out / "coded" / str(qp) / "report").glob("*_enc.csv")
            metric, point = read_report(report, self.frames)
            points.append(point._replace(rate=8 * self._stream(qp).stat().st_size / (PIXELS * self.frames)))
        ours = Codec(MODEL, metric, {CLIP.name: points})
        return [ours, *(read_codec(label, self._folders(name, points), self.frames) for name, label in ANCHORS.items())]

    def _folders(self, anchor: str, ours: list[Point]) -> list[Path]:
        """Those of an anchor's results that span our range of quality."""
        folders = [folder_of(self.out, anchor, "PSNR", qp) for qp in sorted(ANCHOR_QPS, reverse=True)]
        points = [read_report(path, self.frames)[1] for folder in folders for path in (folder / "report").glob("*.csv")]
        kept = spanning(points, ours)
        return [folder for folder, point in zip(folders, points, strict=True) if point in kept]

    def _report(self) -> None:
        curves = self._curves()
        for codec in curves:
            for point in codec.curves[CLIP.name]:
                print(f"{codec.name:14} {point.rate:8.4f} bpp {RATE * PIXELS * point.rate / 1e3:8.1f} kbit/s "
                      f"at {RATE} fps {point.quality:7.2f} dB")
        for codec in curves[1:]:                                   # negative: we need fewer bits
            print(f"BD-rate of {MODEL} against {codec.name}: "
                  f"{describe_bd_rate(codec.curves[CLIP.name], curves[0].curves[CLIP.name])}")
        self._comparison(curves[0].curves[CLIP.name])
        plot_dataset(self.out / "curve.png", "Big Buck Bunny, 416x240", [*curves[1:], curves[0]], [CLIP.name])


    def _comparison(self, ours: list[Point]) -> None:
        """The command that makes tables and plots of the same results."""
        words = ["--anchor", "x264", "--out", self.out / "comparison", "--gop", self.frames,
                 "--curve", "small", *(self.out / "coded" / str(qp) for qp in self.qps)]
        for name in ANCHORS:
            words += ["--curve", name.removesuffix("-fair"), *self._folders(name, ours)]
        print(f"the same as tables: python -m util.comparison {shlex.join(map(str, words))}")


def spanning(anchor: list[Point], ours: list[Point]) -> list[Point]:
    """The anchor's points, in order of rate, that span our range of quality: those in it and one beyond each end."""
    low, high = min(point.quality for point in ours), max(point.quality for point in ours)
    below = [point for point in anchor if point.quality < low][-1:]
    above = [point for point in anchor if point.quality > high][:1]
    return below + [point for point in anchor if low <= point.quality <= high] + above


def describe_bd_rate(anchor: list[Point], test: list[Point]) -> str:
    """BD-rate in percent, or why there is none."""
    try:
        return f"{bd_rate(anchor, test):+.1f} %"
    except Refused as reason:
        return f"none, {reason}"


def run(argv: list[str] | None) -> None:
    """The demo that the flags ask for."""
    args = parser().parse_args(argv)
    if not 2 <= args.frames <= 33:
        raise InputError(f"--frames {args.frames} must be 2 to 33; the clip has 33 frames")
    if len(set(args.QP)) < len(args.QP) or not all(0 <= qp <= 63 for qp in args.QP):
        raise InputError(f"--QP {' '.join(map(str, args.QP))}: rates are 0 to 63, each once")
    Demo(args.out, args.frames, sorted(args.QP)).run()


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0, or 2 for bad input."""
    return exit_status("demo", lambda: run(argv))


if __name__ == "__main__":
    sys.exit(main())
