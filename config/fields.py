"""What fields of a configuration's dataclass may hold, beyond their types; config/loader.py reads files by it."""
from dataclasses import field
from typing import Any


def one_of(*values: Any, **kwargs: Any) -> Any:
    """A field that takes one of a few values."""
    return field(metadata={"allowed": values}, **kwargs)


def require(condition: bool, message: str) -> None:
    """Refuse values that cannot work together.

    Raises:
        ValueError: the condition does not hold; the loader adds the file's name.
    """
    if not condition:
        raise ValueError(message)
