"""From `--model` and the flags that overlay it to a codec: for every program that has these flags."""
from pathlib import Path
from typing import Any

from config.model_file import ModelFile
from models.catalogue import build_codec, configure, find_model

PART_FLAGS = {"cond_motion_coder_conf": "motion", "residual_coder_conf": "inter", "intra_coder_conf": "intra",
              "motion_estimation_conf": "motion_estimation"}
"""The released flags, each for the file of a part of the model -> the part's name in the model's configuration."""


def model_of(flags: Any) -> ModelFile:
    """The model of `--model`.

    Raises:
        InputError: there is no such model.
    """
    return find_model(flags.model)


def parts_of(flags: Any) -> dict[str, Path]:
    """The files of parts that flags name."""
    return {part: getattr(flags, flag) for flag, part in PART_FLAGS.items() if getattr(flags, flag, None) is not None}


def configuration(flags: Any) -> Any:
    """The configuration of the codec.

    Raises:
        InputError: a file is unreadable or wrong, or the files do not belong together.
    """
    return configure(model_of(flags), parts_of(flags), getattr(flags, "changes", None))


def new_codec(flags: Any):
    """The codec with new weights, from PyTorch's generator. Errors as in `configuration`."""
    return build_codec(model_of(flags), parts_of(flags))
