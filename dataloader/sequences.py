"""The test sequences and their place on disk: {root}/{dataset}/{sequence}/frame_{n}.png."""
import csv
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

from dataloader.source import FrameSource, PngFolder
from util.errors import InputError

VIDEO = "Video"
"""The data set of videos that belong to none."""


@dataclass(frozen=True)
class Sequence:
    """One row of sequences.tsv.

    Attributes:
        scene_cuts: 1-based numbers of the frames that begin a scene.
        raw_file_stem: name of the raw file, without its ending.
    """
    dataset: str
    name: str
    width: int
    height: int
    frames: int
    fps: int
    raw_file_stem: str
    scene_cuts: tuple[int, ...]

    @classmethod
    def of_video(cls, source: FrameSource) -> "Sequence":
        """A video that belongs to no data set."""
        return cls(VIDEO, Path(source.name).stem or "video", source.width, source.height, source.length or 0,
                   round(source.rate or 0), "", ())

    def report_name(self, color: str) -> str:
        """Name of folder and reports: `_BT709` is appended, except where the flag has no say over the colour."""
        return f"{self.name}_BT709" if color == "BT709" and self.dataset not in ("HEVC-RGB", VIDEO) else self.name

    def source(self, root: Path, color: str, length: int | None) -> PngFolder:
        """Its frames under `root`, the first `length` of them (None: all there are)."""
        return PngFolder(root / self.dataset / self.report_name(color), length=length, rate=Fraction(self.fps),
                         color="RGB" if self.dataset == "HEVC-RGB" else color)


@cache
def all_sequences() -> tuple[Sequence, ...]:
    """Every known sequence, in the order of the reports."""
    with (Path(__file__).parent / "sequences.tsv").open(encoding="utf-8", newline="") as file:
        return tuple(Sequence(row["dataset"], row["sequence"], int(row["width"]), int(row["height"]),
                              int(row["frames"]), int(row["fps"]), row["raw_file_stem"],
                              tuple(map(int, (row["scene_cuts"] or "").split())))
                     for row in csv.DictReader(file, delimiter="\t"))


def select(datasets: list[str], names: list[str] | None) -> list[Sequence]:
    """The sequences of some data sets, or of those only the named ones.

    Raises:
        InputError: an unknown data set or sequence.
    """
    known = list(dict.fromkeys(sequence.dataset for sequence in all_sequences()))
    for dataset in datasets:
        if dataset not in known:
            raise InputError(f"--test_dataset {dataset} is unknown; choose from {', '.join(known)}")
    chosen = [sequence for dataset in dict.fromkeys(datasets) for sequence in all_sequences()
              if sequence.dataset == dataset]
    for name in names or ():
        if name not in {sequence.name for sequence in chosen}:
            raise InputError(f"--test_seqs {name} is not in {', '.join(datasets)}; choose from "
                             f"{', '.join(sequence.name for sequence in chosen)}")
    return [sequence for sequence in chosen if not names or sequence.name in names]
