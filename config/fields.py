"""What fields of a configuration's dataclass may hold, beyond their types; config/loader.py reads files by it."""
from dataclasses import field
from typing import Any


def one_of(*values: Any, **kwargs: Any) -> Any:
    """A field that takes one of a few values."""
    return field(metadata={"allowed": values}, **kwargs)


def from_zero(**kwargs: Any) -> Any:
    """An integer, or a list of them, that may be 0; others are at least 1."""
    return field(metadata={"least": 0}, **kwargs)


def require(condition: bool, message: str) -> None:
    """Refuse values that cannot work together.

    Raises:
        ValueError: the condition does not hold; the loader adds the file's name.
    """
    if not condition:
        raise ValueError(message)
