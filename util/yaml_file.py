"""YAML files (and JSON, which is YAML) that hold a mapping."""
from pathlib import Path

import yaml

from util.errors import InputError


def read_mapping(path: str | Path, holds: str) -> dict:
    """Read a file that maps names to values.

    Args:
        holds: what the file must hold, for the message.

    Raises:
        InputError: it cannot be read, is no text, no YAML, or holds no mapping.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); name an existing file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not text; give a YAML file") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{path}{where}: is not valid YAML ({getattr(error, 'problem', None) or 'syntax'})") from None
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path}: must hold {holds}")
    return content
