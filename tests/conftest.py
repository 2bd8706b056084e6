"""Shared fixtures: configurations, seeded models, synthetic sequences, and the command line."""
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("MKL_ENABLE_INSTRUCTIONS", "AVX2")        # before torch: docs/fidelity.md, "Bits of I-frames"

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import HyTIP  # noqa: E402
from helpers import full_config, seeded_model, tiny_config  # noqa: E402
from seeded import seeded_video  # noqa: E402
from toy_codec import toy_in_the_catalogue  # noqa: E402
from util.arithmetic import choose_arithmetic  # noqa: E402
from util.checkpoint import save_model  # noqa: E402

SEQUENCES = {                    # (dataset, folder): (frames, height, width, salt) behind the golden reports
    ("HEVC-D", "BlowingBubbles"): (8, 64, 128, 3),
    ("HEVC-D", "BQSquare"): (8, 72, 104, 4),
    ("HEVC-D", "BasketballPass"): (4, 176, 192, 5),
    ("MCL-JCV", "videoSRC25"): (20, 64, 64, 6),
    ("HEVC-D", "RaceHorses1_BT709"): (6, 136, 200, 8),
    ("HEVC-E", "Johnny"): (6, 72, 136, 9),
    ("HEVC-E", "FourPeople"): (6, 136, 72, 10),
    ("HEVC-D", "RaceHorses1"): (6, 136, 200, 11),
}


@pytest.fixture(scope="session", autouse=True)
def _arithmetic():
    """The arithmetic of an evaluation, on one thread: one value of a golden report flips with two."""
    return choose_arithmetic("cpu", threads=1)


@pytest.fixture(autouse=True)
def _one_thread():
    """Whatever a test did to the number of threads."""
    torch.set_num_threads(1)


def write_frames(folder: Path, frames: torch.Tensor) -> Path:
    """Write float frames (T 3 H W in [0, 1]) as frame_1.png, frame_2.png, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for n, frame in enumerate(frames, start=1):
        pixels = (frame * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(np.ascontiguousarray(pixels)).save(folder / f"frame_{n}.png")
    return folder


@pytest.fixture(scope="session")
def golden_root(tmp_path_factory) -> Path:
    """The data set behind the golden reports. Read only."""
    root = tmp_path_factory.mktemp("sequences")
    for (dataset, name), shape in SEQUENCES.items():
        write_frames(root / dataset / name, seeded_video(*shape))
    return root


@pytest.fixture(scope="session")
def full_weights(tmp_path_factory) -> Path:
    """A released-layout file with seeded weights for Motion + Inter at full width. Read only."""
    path = tmp_path_factory.mktemp("weights") / "PSNR-RGB.pth.tar"
    save_model(seeded_model(full_config()), path, epoch=50, loss=1.23)
    return path


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    """A released-layout file with seeded weights for the widths of tests/tiny. Read only."""
    path = tmp_path_factory.mktemp("weights") / "tiny.pth.tar"
    save_model(seeded_model(tiny_config()), path)
    return path


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Iterator[Path]:
    """The toy codec is in the catalogue; the folder of its files."""
    with toy_in_the_catalogue(tmp_path_factory.mktemp("toy")) as folder:
        yield folder


@pytest.fixture
def hytip(capsys) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process: hytip("--test", ...) -> (status, stdout, stderr)."""
    def run(*argv: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = HyTIP.main([str(word) for word in argv])
        return status, *capsys.readouterr()
    return run


@contextmanager
def pipes(data: bytes) -> Iterator[io.BytesIO]:
    """Standard input that gives `data`; yields what standard output is given, as long as the block lasts."""
    written = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        patch.setattr(sys, "stdout", io.TextIOWrapper(written, write_through=True))
        yield written
