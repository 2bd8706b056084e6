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


def read_named(path: str | Path, kind: str, beside: tuple[str, ...] = ()) -> dict[str, dict]:
    """Read a file that maps names to settings, in order: at top level, or under `{kind}s` with `defaults` for all.

    Args:
        kind: what has the names, e.g. "step".
        beside: other keys that may stand beside `{kind}s`.

    Raises:
        InputError: as `read_mapping`, and for unknown keys and what is no mapping.
    """
    content = read_mapping(path, "a mapping of names to settings")
    defaults, listed = {}, content
    if f"{kind}s" in content:
        allowed = ("defaults", *beside)
        unknown = sorted(content.keys() - {f"{kind}s", *allowed})
        if unknown:
            raise InputError(f"{path}: unknown key {unknown[0]!r}; beside {kind}s there may be {' and '.join(allowed)}")
        defaults, listed = content.get("defaults") or {}, content[f"{kind}s"]
    if not isinstance(listed, dict) or not isinstance(defaults, dict):
        raise InputError(f"{path}: {kind}s and defaults must be mappings")
    for name, settings in listed.items():
        if not isinstance(settings, dict):
            raise InputError(f"{path}: {kind} {name} must map keys to values")
    return {str(name): {**defaults, **settings} for name, settings in listed.items()}
