"""The photographs in the packages: photos.tsv lists those that are worth it, with what they are used for.

Left out are vector drawings, gradients, logos, tiny pictures, and all but one of several sizes or day and night
variants.
Each is decoded once, into a file that processes map into their memory.
"""
import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from dataloader.small.packages import version
from dataloader.small.scene import Photo
from util.errors import InputError
from util.files import atomic_path

LIST = Path(__file__).with_name("photos.tsv")
LARGEST_SIDE = 4096
USES = ("train", "valid")


@dataclass(frozen=True)
class Listed:
    """A line of photos.tsv.

    Attributes:
        package: which holds it.
        path: within the unpacked package.
        use: one of USES; no photograph serves two.
        weight: how often it is drawn, relative to others.
        licence: as the package states it.
    """
    package: str
    path: str
    use: str
    weight: float
    licence: str

    @property
    def name(self) -> str:
        """Of its decoded file; unique in the list."""
        parts = Path(self.path).with_suffix("").parts
        return f"{self.package}_{parts[-4]}" if "contents" in parts else f"{self.package}_{parts[-1]}"


def read_list(path: Path = LIST) -> tuple[Listed, ...]:
    """All lines."""
    with path.open(newline="") as file:
        return tuple(Listed(**{**row, "weight": float(row["weight"])}) for row in csv.DictReader(file, delimiter="\t"))


def decode(listed: Listed, packages: Path, folder: Path) -> Path | None:
    """Where its pixels are, .npy of uint8 (h, w, 3), made if need be; None if this version of the package lacks it.

    Raises:
        InputError: it is broken.
    """
    source, target = packages / listed.package / listed.path, folder / f"{listed.name}.npy"
    if not source.is_file():
        return None
    if not target.exists():
        try:
            with Image.open(source) as image:
                image = image.convert("RGB")
                image.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.HAMMING)
                pixels = np.asarray(image)
        except (OSError, UnidentifiedImageError, SyntaxError) as error:
            raise InputError(f"photograph {source} cannot be read ({error}); fetch {listed.package} again") from None
        with atomic_path(target) as temporary, temporary.open("wb") as file:
            np.save(file, pixels)
    return target


def load(listed: Listed, path: Path) -> Photo:
    """A decoded photograph, mapped into memory."""
    return Photo(listed.name, np.load(path, mmap_mode="r"), listed.weight)


def found(photos: tuple[Listed, ...], packages: Path, folder: Path) -> dict[Listed, Path]:
    """Decode all that the packages hold.

    Raises:
        InputError: more than half of those for one use are missing.
    """
    paths = {listed: path for listed in photos if (path := decode(listed, packages, folder)) is not None}
    for use in USES:
        wanted = [listed for listed in photos if listed.use == use]
        missing = [listed for listed in wanted if listed not in paths]
        if 2 * len(missing) > len(wanted):
            first = missing[0]
            raise InputError(f"{len(missing)} of {len(wanted)} photographs for {use} are missing, such as {first.path} "
                             f"in {first.package} {version(packages / first.package)}; give --packages DIR with other "
                             "versions")
    return paths
