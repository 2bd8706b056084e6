"""The JSON beside the reports: what was run, on what, and by which conventions."""
import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Sequence as List
from datetime import datetime, timezone
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dataloader.sequences import Sequence
from dataloader.source import FrameSource
from models.codec import Grid, VideoCodec
from util.arithmetic import Arithmetic
from util.checkpoint import fingerprint
from util.files import atomic_path

PACKAGES = ("torch", "torchvision", "numpy", "pytorch-msssim", "pillow")


def write_record(path: Path, arguments: argparse.Namespace, arithmetic: Arithmetic, model: VideoCodec,
                 weights: List[Path], items: List[tuple[Sequence, FrameSource | None]], rate_point: int,
                 metric: str, bits: str) -> None:
    """Write the record of one rate point of a run.

    Args:
        weights: the files they came from.
        items: sequences with their frames, or None where a stream was decoded without them.
        bits: `estimated`, or `actual` where files were written or read.
    """
    record = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
        "weights": {"file": "untrained" if arguments.untrained else " and ".join(map(str, weights)),
                    "sha256": fingerprint(model)},
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "arithmetic": arithmetic.describe(),
        "command": sys.argv,
        "flags": {name: _plain(value) for name, value in sorted(vars(arguments).items())},
        "sequences": [{"name": sequence.name, "dataset": sequence.dataset, **_describe(source)}
                      for sequence, source in items],
        "conventions": conventions(arguments, model.grid, rate_point, metric, bits),
    }
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _describe(source: FrameSource | None) -> dict:
    if source is None:
        return {}
    return {"frames": source.length, "width": source.width, "height": source.height, **source.facts.describe()}


def conventions(arguments: argparse.Namespace, grid: Grid, rate_point: int, metric: str, bits: str) -> dict[str, str]:
    """What changes results and must be said with every figure (docs/fidelity.md)."""
    padding = {"zeros": "zero"}.get(grid.mode, grid.mode)
    size = f"centre crop to multiples of {arguments.crop_factor}" if arguments.test_crop else "no crop"
    return {
        "color": f"RGB converted with {arguments.color_transform}, 8 bits (HEVC-RGB: as it is)",
        "size": f"{size}; {padding} padding to multiples of {grid.multiple(arguments.align_factor)} for coding, "
                "measured without",
        "bits": {"estimated": "estimated from likelihoods, per pixel of the measured frame",
                 "actual": "bytes of the frame's code in the file, with its length field; rate_bin: the whole "
                           "file; per pixel of the measured frame"}[bits],
        "quality": f"{metric}{' (6:1:1)' if metric == 'PSNR-YUV' else ' in RGB'} per frame on unrounded floats, "
                   "averaged over frames, then over GOPs",
        "gop": f"{arguments.gop} frames, the first intra; QP {arguments.QP[rate_point]}, "
               f"intra {(arguments.iframe_quality or arguments.QP)[rate_point]}",
        "frames": "all frames" if arguments.full_seq else f"the first {arguments.test_seq_len} frames",
        "scene_cuts": "intra frames inserted" if arguments.remove_scene_cut else "not treated",
        "bd_rate": "not computed here; state the interpolation (pchip or akima) with every figure",
    }


def _commit() -> str | None:
    """The checked-out commit, marked when the tree differs from it; None outside a checkout."""
    folder = Path(__file__).parent
    try:
        commit = subprocess.run(["git", "describe", "--always", "--abbrev=40", "--dirty"], cwd=folder,
                                capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path | Fraction) else value
