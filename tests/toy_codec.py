"""The toy codec of docs/adding_a_codec.md, as it stands there: for tests of that page, and for tests of the trainer
that depend on no codec, of which a step takes milliseconds with it.
"""
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from helpers import ROOT
from models import catalogue
from util.training.options import TrainingOptions


def blocks(language: str) -> list[str]:
    """The blocks of a language in the page."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs" / "adding_a_codec.md").read_text(), re.DOTALL)


@contextmanager
def toy_in_the_catalogue(folder: Path) -> Iterator[Path]:
    """The toy on Python's path and in the catalogue, its model file `toy.yml` in the folder."""
    package = folder / "toy_package"
    (package / "toy").mkdir(parents=True)
    (package / "toy" / "codec.py").write_text("".join(blocks("python")))
    (folder / "toy.yml").write_text(blocks("yaml")[0].replace("../models/toy.pth.tar", "toy.pth.tar"))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(package))
        patch.setitem(catalogue.CODECS, "toy", "toy.codec:Toy")
        patch.setitem(catalogue.MODELS, "toy", str(folder / "toy.yml"))
        yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "toy"]:
        del sys.modules[name]


def toy_options(tmp_path: Path, **changes) -> TrainingOptions:
    """A short run of the toy, from its initial weights, without validation."""
    values = {"model": "toy", "restore": "scratch", "data": tmp_path / "data", "train_dataset": "folder",
              "crop_size": 32, "results": tmp_path / "results", "device": "cpu", "no_sanity": True, **changes}
    return TrainingOptions(**values)
