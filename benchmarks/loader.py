"""Clips per second that the training loader delivers: python benchmarks/loader.py [-n WORKERS ...]

Without --train_data, septuplets of Vimeo-90k's size (448x256, PNG, noise on gradients, hence slower to decode than most
real frames) are made in a temporary folder. Compare with clips_per_s of benchmarks/training.py: the loader must be the
faster one. Columns: a line per stage and number of workers, tab-separated.
"""
import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
warnings.filterwarnings("ignore", message=r".*torch\.jit.*")

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

from dataloader.clips import DATASETS, ClipRecipe, ClipSet, EpochClips, collate, find_clips  # noqa: E402
from dataloader.sampling import EpochOrder, Share  # noqa: E402

CASES = {"2Pframes": (3, 24, True), "fullgop, 4 P": (5, 10, False), "fullgop, 6 P": (7, 7, False)}
"""Stage -> frames per clip, batch, random start."""


def make_clips(root: Path, count: int) -> None:
    """Septuplets with noise of two grey levels."""
    rng = np.random.default_rng(0)
    base = np.linspace(40, 200, 448)[None, :, None] + np.linspace(-30, 30, 256)[:, None, None] + np.zeros((1, 1, 3))
    for clip in range(count):
        folder = root / "vimeo_septuplet" / "sequences" / "00001" / f"{clip:04}"
        folder.mkdir(parents=True)
        for n in range(1, 8):
            frame = np.roll(base, 2 * n, 1) + rng.normal(0, 2, base.shape)
            Image.fromarray(frame.clip(0, 255).astype(np.uint8)).save(folder / f"im{n}.png")


def measure(clips: ClipSet, case: tuple[int, int, bool], workers: int, seconds: float) -> float:
    """Clips per second over some seconds, the start of the workers not counted."""
    frames, batch, random_start = case
    many = ClipSet(clips.clips * (1 + 100_000 // len(clips.clips)), clips.free)
    order = EpochOrder(0, 1, len(many.clips), 1.0, batch)
    parts = list(Share().micro_batches(order))
    loader = DataLoader(EpochClips(many, order, ClipRecipe(frames, 256, random_start), range(64)), collate_fn=collate,
                        batch_sampler=[part.samples for part in parts], num_workers=workers,
                        prefetch_factor=4 if workers else None)
    delivered = 0
    started = None
    for sample in loader:
        if started is None:
            started = time.perf_counter()
            continue
        delivered += len(sample.frames)
        if time.perf_counter() - started > seconds:
            break
    return delivered / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", "--num_workers", type=int, nargs="+", default=[0, 2, 4])
    parser.add_argument("--train_data", type=Path)
    parser.add_argument("--train_dataset", choices=list(DATASETS), default="Vimeo-90k")
    parser.add_argument("--seconds", type=float, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.train_data or Path(temporary)
        if arguments.train_data is None:
            make_clips(root, 32)
        clips = find_clips(arguments.train_dataset, root)
        print("stage\tworkers\tbatch\tclips_per_s\tframes_per_s")
        for name, case in CASES.items():
            for workers in arguments.num_workers:
                rate = measure(clips, case, workers, arguments.seconds)
                print(f"{name}\t{workers}\t{case[1]}\t{rate:.1f}\t{rate * case[0]:.1f}", flush=True)


if __name__ == "__main__":
    main()
