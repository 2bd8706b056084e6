"""Training clips: Vimeo-90k septuplets, BVI-DVC, or any folder of clips (train_cfg/training_procedure.md).

All frames of a clip get the same random crop and horizontal flip. Clips are uint8 (T, 3, H, W), in coding order.
"""
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from dataloader.sampling import EpochOrder
from dataloader.sequences import all_sequences
from util.errors import InputError

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
ATTEMPTS = 20
"""Clips tried in place of a corrupt one before the data set is given up."""


@dataclass(frozen=True)
class Clip:
    """A folder of frames.

    Attributes:
        folder: where.
        frames: file names in display order; None lists the folder when the clip is read.
        tiles: folders in it that hold the same frames of parts of the picture (tiles.py); empty: the clip is whole.
    """
    folder: Path
    frames: tuple[str, ...] | None = None
    tiles: tuple[str, ...] = ()

    def one_tile(self, generator: np.random.Generator) -> "Clip":
        """The clip of one of the tiles; the clip itself where it is whole."""
        if not self.tiles:
            return self
        return Clip(self.folder / self.tiles[int(generator.integers(len(self.tiles)))], self.frames)

    def frame_paths(self) -> list[Path]:
        if self.frames is not None:
            return [self.folder / name for name in self.frames]
        found = [path for path in self.folder.iterdir() if path.suffix.lower() in IMAGE_ENDINGS]
        return sorted(found, key=lambda path: [int(part) if part.isdigit() else part
                                               for part in re.split(r"(\d+)", path.name)])


class ClipSet(NamedTuple):
    """A data set.

    Attributes:
        clips: sorted by folder.
        free: long clips: random start, direction and interval (1 or 2) in every stage, not only in those that ask.
        groups: numbers of clips that follow each other and are to have equal shares; empty: one group.
    """
    clips: tuple[Clip, ...]
    free: bool
    groups: tuple[int, ...] = ()


def vimeo(root: Path) -> ClipSet:
    """`vimeo_septuplet/sequences/*/*/im{1..7}.png`."""
    names = tuple(f"im{n}.png" for n in range(1, 8))
    return ClipSet(tuple(Clip(folder, names) for folder in _folders(root, "vimeo_septuplet/sequences/*/*")), False)


def bvi_dvc(root: Path) -> ClipSet:
    """`BVI-DVC/*/Frame_{0..63}.png`, or the tiles `BVI-DVC/*/x*_y*/Frame_{0..63}.png` of each."""
    names = tuple(f"Frame_{n}.png" for n in range(64))
    return ClipSet(tuple(Clip(folder, names, tuple(tile.name for tile in _folders(folder, "x*_y*")))
                         for folder in _folders(root, "BVI-DVC/*")), True)


def any_folder(root: Path) -> ClipSet:
    """Every folder below `root` that holds images, in natural order; the test data sets by their names are left out."""
    tests = {sequence.dataset for sequence in all_sequences()}
    found = sorted({path.parent for path in root.rglob("*") if path.suffix.lower() in IMAGE_ENDINGS
                    and path.relative_to(root).parts[0] not in tests})
    return ClipSet(tuple(map(Clip, found)), True)


DATASETS: dict[str, tuple[Callable[[Path], ClipSet], str]] = {
    "Vimeo-90k": (vimeo, "vimeo_septuplet/sequences/*/*/im{1..7}.png"),
    "BVI-DVC": (bvi_dvc, "BVI-DVC/*/Frame_{0..63}.png"),
    "folder": (any_folder, "folders of at least two frames each")}
"""`--train_dataset` -> how to find its clips, and what must be there."""


def find_clips(dataset: str, root: Path, parts: Sequence[str] = ()) -> ClipSet:
    """The clips of a data set.

    Args:
        parts: only what lies in these folders below `root`, each a group of its own; where there is none of them, all
            that lies below `root`, in one group.

    Raises:
        InputError: unknown data set, or nothing there.
    """
    if any((Path(root) / part).is_dir() for part in parts):
        sets = [find_clips(dataset, Path(root) / part) for part in parts]
        return ClipSet(tuple(clip for found in sets for clip in found.clips), sets[0].free,
                       tuple(len(found.clips) for found in sets))
    if dataset not in DATASETS:
        raise InputError(f"--train_dataset {dataset} is unknown; choose from {', '.join(DATASETS)}")
    search, layout = DATASETS[dataset]
    found = search(Path(root)) if Path(root).is_dir() else ClipSet((), False)
    if not found.clips:
        raise InputError(f"no training clips of {dataset} below {root}; expected {layout}; name the place with "
                         "--train_data")
    return found


def some_shapes(clips: ClipSet, most: int = ATTEMPTS) -> list[tuple[int, int, int]]:
    """Frames, height and width of clips that are spread over the set; those that cannot be read are left out."""
    shapes = []
    for clip in clips.clips[::max(1, len(clips.clips) // most)][:most]:
        try:
            paths = clip.one_tile(np.random.default_rng(0)).frame_paths()
            with Image.open(paths[0]) as image:
                shapes.append((len(paths), image.height, image.width))
        except (OSError, SyntaxError, IndexError):
            continue
    return shapes


def _folders(root: Path, pattern: str) -> list[Path]:
    return sorted(path for path in root.glob(pattern) if path.is_dir())


class CorruptClip(Exception):
    """A clip that cannot be used; the message says why."""


@dataclass(frozen=True)
class ClipRecipe:
    """What is taken from each clip.

    Attributes:
        frames: number of them.
        crop: side of the square crop.
        random_start: start anywhere and run in either direction, at interval 1.
        still: share of the clips that stand still: one frame of them, any, again and again.
    """
    frames: int
    crop: int
    random_start: bool
    still: float = 0.0

    def choose(self, available: int, free: bool, generator: np.random.Generator) -> list[int]:
        """Indices of the frames in coding order.

        Args:
            available: frames of the clip.
            free: random start, direction and interval whatever the stage.

        Raises:
            CorruptClip: the clip is too short.
        """
        if available < self.frames:
            raise CorruptClip(f"it has {available} frames, {self.frames} are needed")
        if self.still and generator.random() < self.still:
            return [int(generator.integers(available))] * self.frames
        if not (self.random_start or free):
            return list(range(self.frames))
        interval = int(generator.integers(1, 3)) if free else 1
        if available < interval * (self.frames - 1) + 1:
            interval = 1
        span = interval * (self.frames - 1) + 1
        start = int(generator.integers(available - span + 1))
        chosen = list(range(start, start + span, interval))
        return chosen[::-1] if generator.integers(2) else chosen

    def cut(self, height: int, width: int, generator: np.random.Generator) -> tuple[int, int, bool]:
        """Top, left and whether to flip.

        Raises:
            CorruptClip: the frames are smaller than the crop.
        """
        if min(height, width) < self.crop:
            raise CorruptClip(f"its frames of {width}x{height} are smaller than the crop of {self.crop}")
        top, left = (int(generator.integers(side - self.crop + 1)) for side in (height, width))
        return top, left, bool(generator.integers(2))


def read_clip(clip: Clip, recipe: ClipRecipe, free: bool, generator: np.random.Generator) -> Tensor:
    """The frames that the recipe takes, uint8 (T, 3, crop, crop).

    Raises:
        CorruptClip: a frame is missing, broken or of another size, or the clip is too short or too small.
    """
    try:
        paths = clip.one_tile(generator).frame_paths()
        chosen = [paths[i] for i in recipe.choose(len(paths), free, generator)]
        cut = size = None
        frames = []
        for path in chosen:
            with Image.open(path) as image:
                if size is None:
                    size = image.size
                    cut = recipe.cut(image.height, image.width, generator)
                if image.size != size:
                    raise CorruptClip(f"{path.name} is {image.width}x{image.height}, others {size[0]}x{size[1]}")
                top, left, _ = cut
                pixels = np.asarray(image.convert("RGB"))[top:top + recipe.crop, left:left + recipe.crop]
            frames.append(pixels[:, ::-1] if cut[2] else pixels)
    except OSError as error:
        raise CorruptClip(error.strerror or str(error)) from None
    except SyntaxError:                                                # how Pillow reports a broken PNG
        raise CorruptClip("a broken PNG") from None
    return torch.from_numpy(np.ascontiguousarray(np.stack(frames).transpose(0, 3, 1, 2)))


class Sample(NamedTuple):
    """One training clip, or a batch of them (then with B in front).

    Attributes:
        frames: uint8 (T, 3, H, W), in coding order.
        qp: rate index of the variable-rate models, int64.
        noise_key: of the quantisation noise, int64.
        corrupt: messages about clips that were skipped on the way.
    """
    frames: Tensor
    qp: Tensor
    noise_key: Tensor
    corrupt: tuple[str, ...]


class EpochClips(Dataset):
    """The samples of one epoch by their place in it.

    Args:
        qps: that rate indices are drawn from, in ascending order.
    """

    def __init__(self, clips: ClipSet, order: EpochOrder, recipe: ClipRecipe, qps: Sequence[int]):
        self.clips, self.order, self.recipe, self.qps = clips, order, recipe, qps

    def __len__(self) -> int:
        return len(self.order.order)

    def __getitem__(self, place: int) -> Sample:
        """A corrupt clip is replaced by another that the sample's own generator draws.

        Raises:
            InputError: many in a row are corrupt.
        """
        generator = self.order.generator(place)
        index, corrupt = int(self.order.order[place]), []
        for _ in range(ATTEMPTS):
            clip = self.clips.clips[index]
            try:
                frames = read_clip(clip, self.recipe, self.clips.free, generator)
                return Sample(frames, torch.tensor(self.qps[self.order.rate(place, len(self.qps))]),
                              torch.tensor(self.order.noise_key(place)), tuple(corrupt))
            except CorruptClip as error:
                corrupt.append(f"{clip.folder}: {error}")
                index = int(generator.integers(len(self.clips.clips)))
        raise InputError(f"{ATTEMPTS} training clips in a row cannot be used, the last one {corrupt[-1]}; check the "
                         "data, or --crop_size")


def collate(samples: Sequence[Sample]) -> Sample:
    """A batch of samples."""
    return Sample(torch.stack([sample.frames for sample in samples]),
                  torch.stack([sample.qp for sample in samples]),
                  torch.stack([sample.noise_key for sample in samples]),
                  tuple(message for sample in samples for message in sample.corrupt))
