"""Reading a configuration file into its dataclass, with errors that name file, key and what is allowed."""
import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from util.errors import InputError
from util.yaml_file import read_mapping

Config = TypeVar("Config")

IGNORED_KEYS = ("ec_thread", "stream_part", "inplace")
"""Keys of the released files that belong to its entropy coder and activations."""


def load_config(path: str | Path, schema: type[Config]) -> Config:
    """Read `model_architecture` and `model_params` from a YAML file.

    Raises:
        InputError: the file cannot be read, or a key or value is unknown, missing or impossible.
    """
    return build_config(path, "model_params", _read(path, schema), schema)


def _read(path: str | Path, schema: type) -> Any:
    """The `model_params` of a file of this architecture, unchecked."""
    content = read_mapping(path, "the keys model_architecture and model_params")
    _check_keys(path, "the file", content, {"model_architecture", "model_params"}, set())
    if content["model_architecture"] != schema.architecture:
        raise InputError(f"{path}: model_architecture {content['model_architecture']!r} cannot be used here; "
                         f"it must be {schema.architecture!r}")
    return content["model_params"]


def _check_keys(path: str | Path, where: str, given: dict, required: set[str], optional: set[str]) -> None:
    allowed = sorted(required | optional)
    for key in given:
        if key not in required | optional:
            raise InputError(f"{path}: unknown key {key!r} in {where}; allowed are {', '.join(allowed)}")
    for key in sorted(required - given.keys()):
        raise InputError(f"{path}: key {key!r} is missing in {where}")


def build_config(path: str | Path, where: str, given: Any, schema: type[Config]) -> Config:
    """A configuration from a mapping that stands in a file.

    A nested part may be the name of a file of its own, as `load_config` reads it, relative to this one; or a mapping
    with such a name as `file`, whose other keys change what the file says.

    Args:
        where: of the mapping in the file, for messages.

    Raises:
        InputError: as `load_config`.
    """
    if given is None:
        given = {}
    if not isinstance(given, dict):
        raise InputError(f"{path}: {where} must be a mapping of keys to values")
    given = {key: value for key, value in given.items() if key not in IGNORED_KEYS}
    try:
        given = schema.from_released(given) if hasattr(schema, "from_released") else given
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    fields = {field.name: field for field in dataclasses.fields(schema)}
    required = {name for name, field in fields.items() if field.default is dataclasses.MISSING}
    _check_keys(path, where, given, required, fields.keys() - required)
    hints = typing.get_type_hints(schema)
    values = {}
    for key, value in given.items():
        values[key] = _convert(path, f"{where}.{key}", value, hints[key], **fields[key].metadata)
    try:
        return schema(**values)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


def changed(params: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a model with other values for some keys, key by key in nested mappings.

    A part that stands in a file of its own becomes a mapping that names the file beside what differs.
    """
    result = dict(params)
    for key, value in changes.items():
        old = result.get(key)
        if isinstance(value, Mapping) and isinstance(old, str):
            old = {"file": old}
        result[key] = changed(old, value) if isinstance(value, Mapping) and isinstance(old, Mapping) else value
    return result


def _changed(path: Path, schema: type[Config], changes: dict) -> Config:
    """What a file says, with other values for some keys."""
    content = _read(path, schema)
    try:
        given = schema.from_released(content) if hasattr(schema, "from_released") else content
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    return build_config(path, "model_params", changed(given, changes), schema)


def _convert(path: str | Path, where: str, value: Any, hint: Any, allowed: tuple | None = None, least: int = 1) -> Any:
    """Check one value against its annotation; lists become tuples, the string `None` becomes None."""
    if value == "None":
        value = None
    if allowed is not None:
        if not any(value == each and type(value) is type(each) for each in allowed):
            raise InputError(f"{path}: {where}: {value!r} is not allowed; use one of {', '.join(map(str, allowed))}")
        return value
    if isinstance(hint, types.UnionType):                          # `X | None`
        if value is None:
            return None
        hint = next(arg for arg in typing.get_args(hint) if arg is not types.NoneType)
    if dataclasses.is_dataclass(hint) and isinstance(value, str):
        return load_config(Path(path).parent / value, hint)
    if dataclasses.is_dataclass(hint) and isinstance(value, dict) and "file" in value:
        return _changed(Path(path).parent / str(value["file"]), hint, {k: v for k, v in value.items() if k != "file"})
    if dataclasses.is_dataclass(hint):
        return build_config(path, where, value, hint)
    if hint is bool and isinstance(value, bool):
        return value
    if hint is int and _is_integer(value, least):
        return value
    if typing.get_origin(hint) is tuple and isinstance(value, list) and all(_is_integer(each, least) for each in value):
        return tuple(value)
    expected = {bool: "True or False", int: f"an integer of at least {least}"}.get(
        hint, f"a list of integers of at least {least}")
    raise InputError(f"{path}: {where}: {value!r} is not allowed; it must be {expected}")


def _is_integer(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
