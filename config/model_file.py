"""The file of a whole model: which codec, its parameters, where its weights are, what it is.

    codec: hytip                          # one of models/catalogue.py
    model_params:                         # the codec's configuration; a part may stand in a file of its own
      intra: Intra.yml
      ...
    weights: {PSNR: ../models/PSNR-RGB.pth.tar}      # one file or several, by what they were trained for
    origin: where to get them
    paper: what to cite
    size: {parameters: 47.59, encode: 1270.9, ...}   # figures for the list of models
    published: -17.4 % of VTM-17.0        # the rate that the paper reports
    verified: tensors of the release      # what has been verified here

Paths are relative to the file. Nothing here needs PyTorch.
"""
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from util.errors import InputError
from util.yaml_file import read_mapping

SIZES = ("parameters", "encode", "decode", "buffer")
"""Millions; kMAC/pixel of a P-frame, twice; full-resolution channels that a decoder keeps."""

_KEYS = ("codec", "model_params", "weights", "origin", "paper", "size", "published", "verified")


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """What the file of a model says. Attributes are the keys above, and:

    Attributes:
        name: under which the user knows the model.
        path: of the file.
        named_by_file: the user gave the path, not a name.
    """
    name: str
    path: Path
    codec: str
    model_params: Mapping[str, Any]
    weights: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    origin: str = ""
    paper: str = ""
    size: Mapping[str, float] = field(default_factory=dict)
    published: str = ""
    verified: str = ""
    named_by_file: bool = False

    @property
    def selector(self) -> str:
        """What to give `--model`: the name, or the name of the file where it comes from one."""
        return self.path.name if self.named_by_file else self.name

    def foreign(self, files: Sequence[str | Path]) -> str:
        """The names of those weight files that are not the model's usual ones; "" if it has none but those."""
        own = {Path(path).resolve() for path in self.weights.get("PSNR", ())}
        return " ".join(Path(path).name for path in files if Path(path).resolve() not in own)

    def weight_files(self, ssim: bool = False) -> tuple[Path, ...]:
        """Its weights for PSNR or MS-SSIM.

        Raises:
            InputError: the file names none.
        """
        metric = "MS-SSIM" if ssim else "PSNR"
        if metric not in self.weights:
            known = f"--model {self.name} has weights for {', '.join(self.weights)} only" if self.weights else \
                f"{self.path} names no weights (from: {self.origin or 'not said'})"
            raise InputError(f"{'--ssim: ' if ssim else ''}{known}; name a file with --weights, or use another --model")
        return self.weights[metric]


def read_model_file(path: str | Path, name: str | None = None) -> ModelFile:
    """Read the file of a model.

    Args:
        name: under which the user knows it; None for those who gave the path.

    Raises:
        InputError: it cannot be read, or a key is unknown, missing or holds the wrong kind of value.
    """
    path = Path(path)
    content = read_mapping(path, f"the keys {', '.join(_KEYS)}")
    for key in content:
        if key not in _KEYS:
            raise InputError(f"{path}: unknown key {key!r}; allowed are {', '.join(_KEYS)}")
    for key, kind in (("codec", str), ("model_params", dict), ("weights", dict), ("origin", str), ("paper", str),
                      ("size", dict), ("published", str), ("verified", str)):
        if not isinstance(content.get(key, kind()), kind):
            raise InputError(f"{path}: {key} must be {'a text' if kind is str else 'a mapping'}")
    if "codec" not in content:
        raise InputError(f"{path}: key 'codec' is missing")
    weights = {}
    for metric, files in content.get("weights", {}).items():
        if metric not in ("PSNR", "MS-SSIM"):
            raise InputError(f"{path}: weights.{metric} is unknown; allowed are PSNR and MS-SSIM")
        weights[metric] = tuple(Path(os.path.normpath(path.parent / file))
                                for file in ([files] if isinstance(files, str) else files))
    for key in content.get("size", {}):
        if key not in SIZES:
            raise InputError(f"{path}: size.{key} is unknown; allowed are {', '.join(SIZES)}")
    return ModelFile(name=name or path.stem, named_by_file=name is None, path=path, codec=content["codec"],
                     model_params=content.get("model_params", {}), weights=weights, origin=content.get("origin", ""),
                     paper=content.get("paper", ""), size=content.get("size", {}),
                     published=content.get("published", ""), verified=content.get("verified", ""))
