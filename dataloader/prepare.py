"""Raw data sets to the layout of the program: `python -m dataloader.prepare --help`; docs/video.md tells more.

    test     {raw}/**/{raw_file_stem}.yuv   ->   {root}/{dataset}/{sequence}[_BT709]/frame_{n}.png   (sequences.tsv)
    BVI-DVC  {raw}/**/*_{W}x{H}_*.yuv|mp4   ->   {root}/BVI-DVC/{stem}/Frame_{0..63}.png             (training)
    crop     {root}/BVI-DVC/{stem}/         ->   {out}/BVI-DVC/{stem}/x{left}_y{top}/                (tiles.py)

A frame appears when it is complete, so an interrupted run goes on where it stopped. `prepared.json` beside the frames
records what they were made from; a folder made otherwise is not mixed with. `raw_source` reads the same frames without
any PNG.
"""
import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

from PIL import Image
from torch import Tensor

from dataloader import tiles
from dataloader.frames_out import to_pixels
from dataloader.open import VideoOptions, open_source
from dataloader.raw import RawVideo, parse_name
from dataloader.sequences import Sequence, all_sequences, select
from dataloader.source import FrameSource
from util.choices import MATRICES, RANGES
from util.color import Color
from util.errors import InputError
from util.files import atomic_path
from util.program import Parser
from util.video import ColorTags

TRAINING_SET, TRAINING_FRAMES, TRAINING_SEQUENCES = "BVI-DVC", 64, 800
SPELLINGS = r"(fps)?(_(420|444))?(_(8|10)bit)?(_yuv|_rgb)?\.(yuv|rgb|raw)"
"""What may follow the stem, as in Beauty_1920x1080_120fps_420_8bit_YUV.yuv."""


@dataclass(frozen=True)
class Job:
    """One folder to be made.

    Attributes:
        target: the folder.
        frame: name of a frame, with {} for its number.
        first: number of the first frame.
        frames: how many are needed.
        recipe: what decides the pixels; kept in prepared.json.
        open: the frames.
    """
    target: Path
    frame: str
    first: int
    frames: int
    recipe: dict[str, str | int]
    open: "Opener"


@dataclass(frozen=True)
class Opener:
    """Opens a source in whichever process asks (a closure could not be sent there)."""
    sequence: Sequence | None
    path: Path
    color: str
    range: str
    rgb_planes: str | None
    length: int | None

    def __call__(self) -> FrameSource:
        if self.sequence is None:
            return open_source(self.path, VideoOptions(matrix=self.color, range=self.range))
        return _raw_video(self.sequence, self.path, Color(self.color, self.range), self.rgb_planes, self.length)


def find_raw(sequence: Sequence, raw: Path) -> Path:
    """The raw file of a sequence anywhere under `raw`.

    Raises:
        InputError: there is none, or several.
    """
    if not sequence.raw_file_stem:
        raise InputError(f"{sequence.dataset} {sequence.name} has no raw file; it comes as PNGs")
    wanted = re.compile(re.escape(sequence.raw_file_stem) + SPELLINGS, re.IGNORECASE)
    found = sorted(path for path in raw.rglob("*") if wanted.fullmatch(path.name))
    if len(found) != 1:
        problem = f"several files ({', '.join(map(str, found))}), keep one" if found else f"no file under {raw}"
        raise InputError(f"{sequence.dataset} {sequence.name}: {sequence.raw_file_stem}.yuv: {problem}")
    return found[0]


def raw_source(sequence: Sequence, raw: Path, color: str, *, length: int | None = None, range_: str = "limited",
               rgb_planes: str | None = None) -> RawVideo:
    """The frames of a test sequence straight from its raw file: the same pixels as the prepared PNGs.

    Args:
        raw: folder that holds the raw files, at any depth.
        color: "BT601" or "BT709", as for `Sequence.source`.
        length: how many frames, from the first; None uses all.
        range_: of the raw YUV; the test sequences are limited.
        rgb_planes: "rgb" or "gbr", the plane order of the HEVC-RGB files; no file tells it.

    Raises:
        InputError: the file is missing or its size is wrong.
    """
    return _raw_video(sequence, find_raw(sequence, raw), Color(color, range_), rgb_planes, length)


def _raw_video(sequence: Sequence, path: Path, color: Color, rgb_planes: str | None, length: int | None) -> RawVideo:
    named = parse_name(sequence.raw_file_stem)
    rgb = sequence.dataset == "HEVC-RGB"
    if rgb and rgb_planes is None:
        raise InputError(f"{sequence.dataset} {sequence.name}: {path.name} does not tell its plane order; give "
                         "--rgb_planes rgb or gbr")
    source = RawVideo(path, width=sequence.width, height=sequence.height, depth=named.depth or 8,
                      chroma=rgb_planes if rgb else named.chroma or "420", color=None if rgb else ColorTags.of(color),
                      rate=Fraction(sequence.fps))
    if source.length != sequence.frames:
        raise InputError(f"{sequence.dataset} {sequence.name}: {path} has {source.length} frames, the sequence has "
                         f"{sequence.frames}; get the whole file")
    if length is not None and not 1 <= length <= sequence.frames:
        raise InputError(f"{sequence.dataset} {sequence.name}: {length} frames are asked for, it has {sequence.frames}")
    source.length = length or sequence.frames
    return source


def test_job(sequence: Sequence, raw: Path, root: Path, color: str, range_: str, rgb_planes: str | None,
             frames: int | None) -> Job:
    """The job of one test sequence, checked.

    Raises:
        InputError: see raw_source.
    """
    frames = min(frames or sequence.frames, sequence.frames)
    opener = Opener(sequence, find_raw(sequence, raw), color, range_, rgb_planes, frames)
    source = opener()
    recipe = {"source": opener.path.name, "pixel_format": source.pixels.chroma, "bit_depth": source.pixels.depth}
    recipe |= {"rgb_planes": rgb_planes} if source.color == "RGB" else {"matrix": color, "range": range_}
    return Job(root / sequence.dataset / sequence.report_name(color), "frame_{}.png", 1, frames, recipe, opener)


def training_jobs(raw: Path, root: Path, color: str, range_: str) -> list[Job]:
    """One job per BVI-DVC video under `raw`, raw or compressed."""
    videos = sorted(path for path in raw.rglob("*") if path.suffix.lower() in (".yuv", ".mp4", ".mkv", ".y4m"))
    return [Job(root / TRAINING_SET / path.stem, "Frame_{}.png", 0, TRAINING_FRAMES,
                {"source": path.name, "matrix": color, "range": range_}, Opener(None, path, color, range_, None, None))
            for path in videos]


def convert(job: Job) -> int:
    """Write the frames that are not there yet; returns how many.

    Raises:
        InputError: the folder was made otherwise, the source is too short or cannot be read, or the disk is full.
    """
    record = job.target / "prepared.json"
    if record.is_file() and json.loads(record.read_text(encoding="utf-8")) != job.recipe:
        raise InputError(f"{job.target} was made from {record.read_text(encoding='utf-8').strip()}, not from "
                         f"{json.dumps(job.recipe)}; remove it or choose another --root")
    paths = [job.target / job.frame.format(job.first + n) for n in range(job.frames)]
    if not record.is_file() and any(path.exists() for path in paths):
        raise InputError(f"{job.target} has frames of unknown origin; remove it or choose another --root")
    missing = [not path.exists() for path in paths]
    if any(missing):
        with atomic_path(record) as temporary:
            temporary.write_text(json.dumps(job.recipe) + "\n", encoding="utf-8")
        for path, frame in zip(paths, _exactly(job), strict=True):
            if not path.exists():
                with atomic_path(path) as temporary:
                    Image.fromarray(to_pixels(frame)).save(temporary, format="PNG")
    return sum(missing)


def _exactly(job: Job) -> Iterator[Tensor]:
    n = 0
    for frame in islice(job.open(), job.frames):
        n += 1
        yield frame
    if n < job.frames:
        raise InputError(f"{job.open.path} has {n} frames, but {job.frames} are needed; get the whole file")


def try_convert(job: Job) -> tuple[int, str | None]:
    """(frames written, what went wrong)."""
    try:
        return convert(job), None
    except InputError as error:
        return 0, str(error)


def parser() -> argparse.ArgumentParser:
    """The flags."""
    flags = Parser(prog="python -m dataloader.prepare", description=__doc__.splitlines()[0])
    flags.add_argument("--raw", type=Path, required=True, help="folder that holds the raw files, at any depth")
    flags.add_argument("--root", type=Path, required=True, help="gets {dataset}/{sequence}/frame_{n}.png")
    flags.add_argument("--color_transform", choices=MATRICES, nargs="+", required=True,
                       help="matrix of YUV to RGB, or both")
    flags.add_argument("--color_range", choices=RANGES, default="limited", help="of the raw YUV (default: limited)")
    flags.add_argument("--rgb_planes", choices=("rgb", "gbr"), help="plane order of the HEVC-RGB files")
    known = list(dict.fromkeys(sequence.dataset for sequence in all_sequences() if sequence.raw_file_stem))
    flags.add_argument("--dataset", nargs="+", default=known, metavar="NAME",
                       help=f"of {', '.join(known)} (default: these), or {TRAINING_SET} for training")
    flags.add_argument("--test_seqs", nargs="+", metavar="NAME", help="only these sequences")
    flags.add_argument("--frames", type=int, help="only so many of each sequence, from the first (default: all)")
    flags.add_argument("--check", action="store_true", help="tell what is there and what is missing; write nothing")
    flags.add_argument("--jobs", type=int, default=1, help="sequences converted at a time")
    return flags


def plan(args: argparse.Namespace) -> tuple[list[Job], list[str]]:
    """What can be done, and what stands in the way of the rest."""
    if not args.raw.is_dir():
        raise InputError(f"--raw {args.raw} is no folder; give the folder of the raw files")
    for name in ("frames", "jobs"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise InputError(f"--{name} {getattr(args, name)} must be at least 1")
    jobs, problems = [], []
    tests = [name for name in args.dataset if name != TRAINING_SET]
    for sequence in select(tests, args.test_seqs) if tests else []:
        for color in args.color_transform[:1] if sequence.dataset == "HEVC-RGB" else args.color_transform:
            try:
                jobs.append(test_job(sequence, args.raw, args.root, color, args.color_range, args.rgb_planes,
                                     args.frames))
            except InputError as error:
                problems.append(str(error))
    if TRAINING_SET in args.dataset:
        if len(args.color_transform) > 1:
            raise InputError(f"{TRAINING_SET} has one layout; give one --color_transform")
        training = training_jobs(args.raw, args.root, args.color_transform[0], args.color_range)
        if len(training) < TRAINING_SEQUENCES:
            problems.append(f"{TRAINING_SET}: {len(training)} of {TRAINING_SEQUENCES} videos are under {args.raw}; "
                            "get the rest")
        jobs += training
    return jobs, list(dict.fromkeys(problems))


def run(args: argparse.Namespace, say: Callable[[str], None] = print) -> list[str]:
    """Do what can be done; returns what is missing or went wrong."""
    jobs, problems = plan(args)
    if args.check:
        for job in jobs:
            done = sum((job.target / job.frame.format(job.first + n)).exists() for n in range(job.frames))
            say(f"{job.target}: {done} of {job.frames} frames")
        return problems
    with ProcessPoolExecutor(args.jobs) as pool:
        for job, (written, problem) in zip(jobs, (pool.map if args.jobs > 1 else map)(try_convert, jobs)):
            say(f"{job.target}: {problem or f'{job.frames} frames, {written} new'}")
            problems += [problem] if problem else []
    return problems


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 if everything is there, else 2."""
    words = sys.argv[1:] if argv is None else argv
    try:
        problems = tiles.run(tiles.parser().parse_args(words[1:])) if words[:1] == ["crop"] else run(
            parser().parse_args(words))
    except InputError as error:
        problems = [str(error)]
    for problem in problems:
        print(f"prepare: error: {problem}", file=sys.stderr)
    return 2 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
