"""Training clips cut into tiles, once: python -m dataloader.prepare crop --data ROOT --out DIR

    {root}/BVI-DVC/{clip}/Frame_{n}.png   ->   {out}/BVI-DVC/{clip}/x{left}_y{top}/Frame_{n}.png

Training decodes whole frames to take a small crop of each: of a 1080p PNG a core decodes about 19 a second, of a 4K PNG
6; a tile takes its share of that. A sample of `--train_dataset BVI-DVC` takes one of its clip's tiles at random, so
that an epoch has as many samples as before. Tiles cover the frame and overlap where they must; crops across their
borders are lost. A clip appears when it is complete, so an interrupted run goes on where it stopped.
"""
import argparse
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from PIL import Image

from dataloader.clips import DATASETS, Clip, CorruptClip, find_clips
from util.errors import InputError
from util.files import atomic_folder
from util.program import Parser

DATASET = "BVI-DVC"
SMALLEST = 256
"""The released crop."""


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = Parser(prog="python -m dataloader.prepare crop", description=__doc__.splitlines()[0])
    flags.add_argument("--data", type=Path, required=True, help=f"holds {DATASETS[DATASET][1]}")
    flags.add_argument("--out", type=Path, required=True, help=f"gets {DATASET}/; then --train_data OUT")
    flags.add_argument("--size", type=int, default=512, help="side of a tile (default: 512)")
    flags.add_argument("--jobs", type=int, default=1, help="clips cut at a time")
    return flags


def corners(side: int, size: int) -> list[int]:
    """Where tiles begin along a side: as few as cover it, evenly spread."""
    count = -(-side // size)
    return [round(n * (side - size) / max(1, count - 1)) for n in range(count)]


def cut(clip: Clip, out: Path, size: int) -> int:
    """Write the tiles of one clip, unless it is there. Returns how many tiles it has.

    Raises:
        InputError: frames are smaller than a tile, of different sizes, missing or broken; or `out` cannot be written.
    """
    target = out / DATASET / clip.folder.name
    if target.is_dir():
        return sum(1 for _ in target.iterdir())
    with atomic_folder(target) as folder:
        try:
            return _cut_frames(clip.frame_paths(), folder, size)
        except (OSError, SyntaxError, CorruptClip) as error:
            raise InputError(f"{clip.folder}: {error}; get the clip again, or remove it") from None


def _cut_frames(paths: list[Path], folder: Path, size: int) -> int:
    first, tiles = None, []
    for path in paths:
        with Image.open(path) as image:
            if first is None:
                first = image.size
                if min(first) < size:
                    raise CorruptClip(f"frames of {image.width}x{image.height} are smaller than tiles of {size}")
                tiles = [(left, top) for top in corners(image.height, size) for left in corners(image.width, size)]
            if image.size != first:
                raise CorruptClip(f"{path.name} is {image.width}x{image.height}, others {first[0]}x{first[1]}")
            pixels = image.convert("RGB")
        for left, top in tiles:
            tile = folder / f"x{left}_y{top}"
            tile.mkdir(exist_ok=True)
            pixels.crop((left, top, left + size, top + size)).save(tile / path.name, compress_level=1)
    return len(tiles)


def _try_cut(clip: Clip, out: Path, size: int) -> tuple[int, str | None]:
    try:
        return cut(clip, out, size), None
    except InputError as error:
        return 0, str(error)


def run(args: argparse.Namespace, say: Callable[[str], None] = print) -> list[str]:
    """Cut what is not there yet; returns what went wrong.

    Raises:
        InputError: no clips, or a flag out of bounds.
    """
    if args.size < SMALLEST:
        raise InputError(f"--size {args.size} must be at least {SMALLEST}, the crop that training takes of a tile")
    if args.jobs < 1:
        raise InputError(f"--jobs {args.jobs} must be at least 1")
    if args.out.resolve() == args.data.resolve():
        raise InputError(f"--out {args.out} is --data itself; choose another place")
    clips, problems = find_clips(DATASET, args.data).clips, []
    work = partial(_try_cut, out=args.out, size=args.size)
    with ProcessPoolExecutor(args.jobs) as pool:
        for clip, (tiles, problem) in zip(clips, (pool.map if args.jobs > 1 else map)(work, clips)):
            say(f"{clip.folder.name}: {problem or f'{tiles} tiles'}")
            problems += [problem] if problem else []
    return problems
