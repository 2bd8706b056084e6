"""Weight files: reading them safely and writing them. Which names they hold the codec says.

Released layout: a dict with `epoch`, `state_dict`, `optimizer` and `loss`; its names begin with what the codec has for
each network, such as `Residual.module.net.q_encoder`. Files of single parts have flat names.
"""
import hashlib
import pickle
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.codec import VideoCodec
from util.errors import InputError
from util.files import atomic_path

RELEASE = "the release page of its authors"

State = dict[str, Tensor]


def _numpy_scalar_types() -> list:
    """What unpickling a NumPy scalar needs (the `loss` of released files), under its old and new module names."""
    scalar = np.float64(0).__reduce__()[0]
    dtypes = [type(np.dtype(t)) for t in (np.float64, np.float32)]
    return [np.dtype, *dtypes, (scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar"),
            (_encode_latin1, "_codecs.encode")]


def _encode_latin1(text: str, encoding: str = "latin1") -> bytes:
    """Old pickles spell bytes as an encoded string."""
    return text.encode("latin1")


def read_file(path: str | Path, origin: str | None = RELEASE) -> dict:
    """Unpickle a weight file; nothing but tensors, containers and NumPy scalars is allowed in it.

    Args:
        origin: where to get a file of this name; None where only its maker knows.

    Raises:
        InputError: no such file, not a weight file, truncated, or with forbidden content.
    """
    path = Path(path)
    cure = f"get {path.name} from {origin}" if origin else "name a weight file with --weights"
    if not path.is_file():
        raise InputError(f"weights {path} are missing; {cure}"
                         + (" and put it there, or name another file with --weights" if origin else ""))
    try:
        with torch.serialization.safe_globals(_numpy_scalar_types()), warnings.catch_warnings():
            warnings.simplefilter("ignore")                        # an unusual file is refused or read, not both
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = "it holds objects other than tensors" if "Unsupported" in str(error) else "it is damaged"
        raise InputError(f"weights {path} cannot be used: {reason}; {cure}") from None
    except (RuntimeError, EOFError, OSError, zipfile.BadZipFile, ValueError, KeyError, IndexError, AttributeError):
        raise InputError(f"weights {path} cannot be read: truncated or not a PyTorch file; {cure}"
                         ) from None
    if not isinstance(content, dict):
        raise InputError(f"weights {path} cannot be used: a dict of tensors was expected, "
                         f"not {type(content).__name__}; {cure}")
    return content


def load_model(codec: VideoCodec, paths: Path | Sequence[Path], origin: str | None = RELEASE) -> None:
    """Fill the whole codec from weight files, strictly. Half precision becomes the model's float32.

    Args:
        paths: a file in the released layout, or several that together hold everything. A file of flat names holds
            one part, the one that most of its names fit; a leading `module.` does not count.

    Raises:
        InputError: as `read_file`, and for a missing, unexpected or misshapen entry, which it names.
    """
    paths = [paths] if isinstance(paths, str | Path) else list(paths)
    own = codec.state_dict()
    wanted = {codec.released_name(name): name for name in own if not codec.is_dropped(codec.released_name(name))}
    given: State = {}
    for path in paths:
        given |= _rooted(_entries(path, origin), wanted, {root.split(".")[0] for root in codec.roots.values()})
    given = {name: value for name, value in given.items() if not codec.is_dropped(name)}
    _check_entries(" and ".join(map(str, paths)), given, {released: own[name] for released, name in wanted.items()})
    codec.load_state_dict({name: given[released] for released, name in wanted.items()}, strict=False)


def _entries(path: Path, origin: str | None) -> State:
    """The state dict of a file: under `state_dict` or `net`, or the file itself."""
    content = read_file(path, origin)
    for key in ("state_dict", "net"):
        if isinstance(content.get(key), dict):
            return content[key]
    if not content or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"weights {path} have no state_dict; give a file in the released layout")
    return content


def _rooted(entries: State, wanted: Mapping[str, str], files: set[str]) -> State:
    """Flat names with the word of their file in front; whole files as they are."""
    flat = {name.removeprefix("module."): value for name, value in entries.items()}
    fits = {file: sum(f"{file}.{name}" in wanted for name in flat) for file in files}
    best = max(files, key=fits.get)
    if fits[best] <= sum(name in wanted for name in entries):
        return dict(entries)
    return {f"{best}.{name}": value for name, value in flat.items()}


def _check_entries(path: str, given: State, wanted: State) -> None:
    cure = "the file belongs to another architecture; choose the --model, its configuration and weights that belong " \
           "together"
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


def released_layout(codec: VideoCodec, *, epoch: int = 0, loss: float = float("nan"), optimizer: dict | None = None
                    ) -> dict:
    """The codec as a released file holds it."""
    state = {codec.released_name(name): value.detach().cpu() for name, value in codec.state_dict().items()}
    return {"epoch": epoch, "state_dict": state, "optimizer": optimizer or {}, "loss": np.float64(loss)}


def save_model(model: VideoCodec, path: str | Path, **extra) -> None:
    """Write the released layout; the name appears when the file is complete. `extra` as in `released_layout`."""
    with atomic_path(path) as temporary:
        torch.save(released_layout(model, **extra), temporary)


def fingerprint(model: VideoCodec) -> str:
    """SHA-256 over released names, shapes, number formats and values of what coding uses, as hexadecimal digits.

    And over the codec's settings, where these are not as released.
    """
    digest = hashlib.sha256("".join(f"{name} {value}\n" for name, value in sorted(model.settings.items())).encode())
    named = ((model.released_name(name), value) for name, value in model.state_dict().items())
    for name, value in sorted(named, key=lambda entry: entry[0]):
        if model.is_dropped(name):
            continue
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
