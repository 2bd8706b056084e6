"""Weight files: reading them safely, the map between this project's names and the released ones, writing them.

Released layout: a dict with `epoch`, `state_dict`, `optimizer` and `loss`; its names have a root per network and
`module` as second element, `Residual.module.net.q_encoder`. Bare files of single networks have flat names.
"""
import hashlib
import pickle
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from util.errors import InputError
from util.files import atomic_path

ROOTS = {"intra": "if_model", "motion_estimation": "MENet", "motion": "CondMotion", "inter": "Residual"}
"""Our name of each network -> root of its names in the released files."""

RELEASE = "the release page of github.com/NYCU-MAPL/HyTIP"

State = dict[str, Tensor]


def released_name(name: str) -> str:
    """`inter.q_encoder` -> `Residual.module.net.q_encoder`."""
    root, rest = name.split(".", 1)
    return f"{ROOTS[root]}.module.net.{rest}"


def is_dropped(name: str) -> bool:
    """Entries of released files that evaluation has no use for: loss and pre-training heads."""
    return (name.startswith(("criterion.", "feature_frame_generate."))
            or (name.startswith("Residual.") and "mc_generate" in name.replace("mc_generator", "")))


def _numpy_scalar_types() -> list:
    """What unpickling a NumPy scalar needs (the `loss` of released files), under its old and new module names."""
    scalar = np.float64(0).__reduce__()[0]
    dtypes = [type(np.dtype(t)) for t in (np.float64, np.float32)]
    return [np.dtype, *dtypes, (scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar"),
            (_encode_latin1, "_codecs.encode")]


def _encode_latin1(text: str, encoding: str = "latin1") -> bytes:
    """Old pickles spell bytes as an encoded string."""
    return text.encode("latin1")


def read_file(path: str | Path, origin: str = RELEASE) -> dict:
    """Unpickle a weight file; nothing but tensors, containers and NumPy scalars is allowed in it.

    Raises:
        InputError: no such file, not a weight file, truncated, or with forbidden content.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"weights {path} are missing; get {path.name} from {origin} and put it there, "
                         "or name another file with --weights")
    try:
        with torch.serialization.safe_globals(_numpy_scalar_types()), warnings.catch_warnings():
            warnings.simplefilter("ignore")                        # an unusual file is refused or read, not both
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = "it holds objects other than tensors" if "Unsupported" in str(error) else "it is damaged"
        raise InputError(f"weights {path} cannot be used: {reason}; get {path.name} from {origin}") from None
    except (RuntimeError, EOFError, OSError, zipfile.BadZipFile, ValueError, KeyError, IndexError, AttributeError):
        raise InputError(f"weights {path} cannot be read: truncated or not a PyTorch file; "
                         f"get {path.name} from {origin}") from None
    if not isinstance(content, dict):
        raise InputError(f"weights {path} cannot be used: a dict of tensors was expected, "
                         f"not {type(content).__name__}; get {path.name} from {origin}")
    return content


def load_model(model: nn.Module, path: str | Path) -> None:
    """Fill the whole model from a file in the released layout, strictly. Half precision becomes the model's float32.

    Raises:
        InputError: as `read_file`, and for a missing, unexpected or misshapen entry, which it names.
    """
    content = read_file(path).get("state_dict")
    if not isinstance(content, dict):
        raise InputError(f"weights {path} have no state_dict; give a file in the released layout")
    given = {name: value for name, value in content.items() if not is_dropped(name)}
    own = model.state_dict()
    wanted = {released_name(name): name for name in own if not is_dropped(released_name(name))}
    _check_entries(path, given, {released: own[name] for released, name in wanted.items()})
    model.load_state_dict({name: given[released] for released, name in wanted.items()}, strict=False)


def _check_entries(path: str | Path, given: State, wanted: State) -> None:
    cure = "the file belongs to another architecture; choose matching --cond_motion_coder_conf, " \
           "--residual_coder_conf and weights"
    for name in wanted:
        if name not in given:
            raise InputError(f"weights {path}: entry {name} is missing; {cure}")
    for name in given:
        if name not in wanted:
            raise InputError(f"weights {path}: entry {name} is unexpected; {cure}")
    for name, value in wanted.items():
        if not isinstance(given[name], Tensor) or given[name].shape != value.shape:
            shape = list(getattr(given[name], "shape", []))
            raise InputError(f"weights {path}: entry {name} has shape {shape}, not {list(value.shape)}; {cure}")


def released_layout(model: nn.Module, *, epoch: int = 0, loss: float = float("nan"), optimizer: dict | None = None
                    ) -> dict:
    """The model as a released file holds it."""
    state = {released_name(name): value.detach().cpu() for name, value in model.state_dict().items()}
    return {"epoch": epoch, "state_dict": state, "optimizer": optimizer or {}, "loss": np.float64(loss)}


def save_model(model: nn.Module, path: str | Path, **extra) -> None:
    """Write the released layout; the name appears when the file is complete. `extra` as in `released_layout`."""
    with atomic_path(path) as temporary:
        torch.save(released_layout(model, **extra), temporary)


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over names, shapes, number formats and values of what coding uses, as hexadecimal digits."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if is_dropped(released_name(name)):
            continue
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
