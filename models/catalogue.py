"""The only list of codecs, and of the models that come with the repository. Needs PyTorch only to build one."""
from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config.loader import build_config, changed
from config.model_file import ModelFile, read_model_file
from util.errors import InputError

if TYPE_CHECKING:
    from models.codec import VideoCodec

ROOT = Path(__file__).resolve().parents[1]

CODECS = {"hytip": "models.hytip.codec:HyTIP", "dcvc-hem": "models.hem.codec:DCVCHEM",
          "dcvc-mip": "models.mip.codec:DCVCMIP", "st-xct": "models.st_xct.codec:STXCT"}
"""Name of a codec, as model files have it -> module and class."""

MODELS = {"hytip": "config/hytip.yml", "small": "config/small/hytip.yml",
          "small-mip": "config/small/dcvc-mip.yml", "dcvc-hem": "config/dcvc-hem.yml",
          "dcvc-mip": "config/mip/E.yml", "st-xct": "config/st_xct/all.yml",
          "st-xct-depthwise": "config/st_xct/all_depthwise.yml"}
"""Name of a model (`--model`) -> its file."""

ROWS = {"hytip": "config/hytip/buffering", "dcvc-mip": "config/mip", "st-xct": "config/st_xct"}
"""Name of a model -> folder of the rows of its paper's tables; each is the file of a model, too (`--model FILE`)."""

ALIASES = {"full": "hytip"}

DEFAULT = "hytip"


def find_model(name: str | Path = DEFAULT) -> ModelFile:
    """The model of a name, or of a file `PATH.yml`.

    Raises:
        InputError: there is no such model, or its file cannot be used.
    """
    name = str(name)
    key = ALIASES.get(name, name)
    if key in MODELS:
        return read_model_file(ROOT / MODELS[key], key)
    if not name.endswith((".yml", ".yaml")):
        raise InputError(f"model {name!r} is unknown; choose from {', '.join(MODELS)}, or give the file of a model, "
                         "PATH.yml")
    return read_model_file(name)


def rows_of(name: str) -> list[ModelFile]:
    """The rows of the tables of a model's paper, in the order of their names."""
    return [read_model_file(path) for path in sorted((ROOT / ROWS[name]).glob("*.yml"))]


def codec_class(model: ModelFile) -> "type[VideoCodec]":
    """The codec that a model is of.

    Raises:
        InputError: there is none of that name.
    """
    if model.codec not in CODECS:
        raise InputError(f"{model.path}: codec {model.codec!r} is unknown; choose from {', '.join(CODECS)}")
    module, name = CODECS[model.codec].split(":")
    return getattr(import_module(module), name)


def configure(model: ModelFile, parts: Mapping[str, Path] | None = None,
              changes: Mapping[str, Any] | None = None) -> Any:
    """The codec's configuration.

    Args:
        parts: files that replace parts of it, by name (HyTIP: intra, motion_estimation, motion, inter).
        changes: other values for some of its parameters, as in `config.loader.changed`.

    Raises:
        InputError: a key or value is unknown, missing or impossible, or there is no such part.
    """
    schema = codec_class(model).config_type
    known = {entry.name for entry in fields(schema)}
    for name, path in (parts or {}).items():
        if name not in known:
            raise InputError(f"{path}: --model {model.name} has no part {name!r}; leave out the flag that names it")
    replaced = {name: str(Path(path).resolve()) for name, path in (parts or {}).items()}
    return build_config(model.path, "model_params", changed({**model.model_params, **replaced}, changes or {}), schema)


def build_codec(model: ModelFile, parts: Mapping[str, Path] | None = None) -> "VideoCodec":
    """A codec with new weights. Arguments and errors as in `configure`."""
    return codec_class(model)(configure(model, parts))


def codec_name(codec: "VideoCodec") -> str:
    """The name of a codec in this list; that of its class where it is not in it."""
    own = f"{type(codec).__module__}:{type(codec).__qualname__}"
    return next((name for name, place in CODECS.items() if place == own), type(codec).__name__)
