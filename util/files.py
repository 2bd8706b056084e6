"""Files and folders that appear under their final name only when they are complete."""
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from util.errors import InputError


def atomic_path(path: str | Path) -> AbstractContextManager[Path]:
    """A temporary path beside `path`, renamed to it when the block ends, removed when it fails.

    Raises:
        InputError: the folder cannot be made or written, or the disk is full.
    """
    def make(parent: Path, prefix: str) -> str:
        handle, name = tempfile.mkstemp(dir=parent, prefix=prefix)
        os.close(handle)
        return name
    return _atomic(Path(path), make, 0o666, lambda temporary: temporary.unlink(missing_ok=True))


def atomic_folder(path: str | Path) -> AbstractContextManager[Path]:
    """A temporary folder beside `path`, renamed to it when the block ends, removed when it fails.

    Raises:
        InputError: it cannot be made or written, the disk is full, or `path` is there and not empty.
    """
    return _atomic(Path(path), lambda parent, prefix: tempfile.mkdtemp(dir=parent, prefix=prefix), 0o777,
                   lambda temporary: shutil.rmtree(temporary, ignore_errors=True))


@contextmanager
def _atomic(path: Path, make: Callable[[Path, str], str], mode: int, discard: Callable[[Path], None]) -> Iterator[Path]:
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(make(path.parent, f".{path.name}."))
        os.chmod(temporary, mode & ~_umask())
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror or error}); choose another place") from None
    finally:
        if temporary is not None:
            discard(temporary)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
