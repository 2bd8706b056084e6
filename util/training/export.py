"""A checkpoint as a small weight file: python -m util.training.export SRC DST

What only training needs is left out (optimizer, progress, heads); the rest is in half precision, in the released
layout. Loading casts it back: the values in use, and the fingerprints of streams, are those of the float32 numbers.
"""
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.catalogue import DEFAULT, codec_class, find_model
from util.checkpoint import read_file
from util.errors import InputError
from util.files import atomic_path
from util.program import Parser, exit_status


def half(name: str, value: Tensor) -> Tensor:
    """The entry as it is stored; integers stay.

    Raises:
        InputError: a number is not finite in half precision.
    """
    if not value.is_floating_point():
        return value
    stored = value.to(torch.float16).contiguous()
    if not stored.isfinite().all():
        raise InputError(f"entry {name} reaches {value.abs().max().item():g}, beyond the 65504 of half precision; "
                         "train on, or use the checkpoint as it is")
    return stored


def export(source: str | Path, target: str | Path, model: str = DEFAULT) -> None:
    """Write the file; its name appears when it is complete.

    Args:
        model: tells which entries coding has no use for.

    Raises:
        InputError: the source cannot be read, has no state_dict, or a weight that half precision cannot hold.
    """
    content = read_file(source, "a training run")
    state = content.get("state_dict")
    if not isinstance(state, dict):
        raise InputError(f"{source} has no state_dict; give a checkpoint of a training run, or a released file")
    codec = codec_class(find_model(model))
    kept = {name: half(name, value) for name, value in state.items() if not codec.is_dropped(name)}
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target) as temporary:
        torch.save({"epoch": content.get("epoch", 0), "state_dict": kept, "optimizer": {},
                    "loss": np.float64(content.get("loss", float("nan")))}, temporary)
    print(f"{target}: {len(kept)} entries, {Path(target).stat().st_size / 1e6:.1f} MB")


def main(argv: list[str] | None = None) -> int:
    """The program. Returns its exit status."""
    parser = Parser(prog="python -m util.training.export", description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, metavar="SRC", help="a checkpoint of a training run")
    parser.add_argument("target", type=Path, metavar="DST", help="the file to write")
    parser.add_argument("--model", default=DEFAULT, metavar="NAME", help="the model that was trained")
    return exit_status(parser.prog, lambda: export(**vars(parser.parse_args(argv))))


if __name__ == "__main__":
    sys.exit(main())
