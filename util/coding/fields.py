"""Kinds of fields of the container, each with its bounds, and records of them: declared once, written and read by it.

Integers are LEB128 ("varint": seven bits per byte, lowest first, no superfluous zero bytes, below 2^32). A record
begins with a varint whose bits say which of its optional fields follow, in the order of declaration.
"""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

LIMIT = 1 << 32
"""Integers lie below."""


class Malformed(ValueError):
    """What was read is no value of the field. The message goes on after its name."""


class Source(Protocol):
    """Where bytes come from."""

    def read(self, count: int) -> bytes:
        """Exactly so many bytes."""

    def varint(self) -> int:
        """An integer, 0..LIMIT - 1."""


def varint(value: int) -> bytes:
    """LEB128: seven bits per byte, the lowest first."""
    assert 0 <= value < LIMIT
    result = bytearray()
    while value >= 0x80:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*result, value))


class Kind(Protocol):
    """How the values of a field are written."""

    def pack(self, value: Any) -> bytes:
        """Its bytes.

        Raises:
            Malformed: it cannot be written.
        """

    def read(self, source: Source) -> Any:
        """What was written.

        Raises:
            Malformed: nothing that `pack` writes.
        """


@dataclass(frozen=True)
class Number:
    """An integer in least..most."""
    least: int = 0
    most: int = LIMIT - 1

    def _checked(self, value: int) -> int:
        if not self.least <= value <= self.most:
            raise Malformed(f"{value} is outside {self.least}..{self.most}")
        return value

    def pack(self, value: int) -> bytes:
        return varint(self._checked(value))

    def read(self, source: Source) -> int:
        return self._checked(source.varint())


@dataclass(frozen=True)
class Signed:
    """An integer of either sign, |value| < 2^31: 0, -1, 1, -2, ... are 0, 1, 2, 3, ..."""

    def pack(self, value: int) -> bytes:
        if not -LIMIT // 2 < value < LIMIT // 2:
            raise Malformed(f"{value} is outside +-2^31")
        return varint(2 * value if value >= 0 else -2 * value - 1)

    def read(self, source: Source) -> int:
        value = source.varint()
        return -(value + 1) // 2 if value & 1 else value // 2


@dataclass(frozen=True)
class Choice:
    """One of some names, each with a number that never changes."""
    numbers: Mapping[str, int]

    def pack(self, value: str) -> bytes:
        if value not in self.numbers:
            raise Malformed(f"{value!r} is none of {', '.join(self.numbers)}")
        return varint(self.numbers[value])

    def read(self, source: Source) -> str:
        number = source.varint()
        for name, known in self.numbers.items():
            if known == number:
                return name
        raise Malformed(f"{number} is unknown to this program, which knows {', '.join(self.numbers)}")


@dataclass(frozen=True)
class Text:
    """Printable ASCII, at most so many characters."""
    most: int

    def pack(self, value: str) -> bytes:
        if len(value) > self.most or not (value.isascii() and value.isprintable()):
            raise Malformed(f"{value!r} must be at most {self.most} printable ASCII characters")
        return varint(len(value)) + value.encode("ascii")

    def read(self, source: Source) -> str:
        length = source.varint()
        if length > self.most:
            raise Malformed(f"of {length} characters is longer than {self.most}")
        text = source.read(length).decode("ascii", "replace")
        if not (text.isascii() and text.isprintable()):
            raise Malformed("is no printable ASCII")
        return text


@dataclass(frozen=True)
class Bytes:
    """So many bytes."""
    count: int

    def pack(self, value: bytes) -> bytes:
        assert len(value) == self.count
        return value

    def read(self, source: Source) -> bytes:
        return source.read(self.count)


@dataclass(frozen=True)
class Word:
    """An unsigned integer of so many bytes, little-endian."""
    count: int

    def pack(self, value: int) -> bytes:
        return value.to_bytes(self.count, "little")

    def read(self, source: Source) -> int:
        return int.from_bytes(source.read(self.count), "little")


@dataclass(frozen=True)
class Ratio:
    """A positive fraction in lowest terms, numerator before denominator."""

    def pack(self, value: Fraction) -> bytes:
        if not (value > 0 and max(value.as_integer_ratio()) < LIMIT):
            raise Malformed(f"{value} must be positive, with terms below 2^32; give a simpler fraction")
        return varint(value.numerator) + varint(value.denominator)

    def read(self, source: Source) -> Fraction:
        numerator, denominator = source.varint(), source.varint()
        if not (numerator and denominator):
            raise Malformed(f"{numerator}/{denominator} is no positive fraction")
        return Fraction(numerator, denominator)


@dataclass(frozen=True)
class Flag:
    """True by being there."""

    def pack(self, value: bool) -> bytes:
        return b""

    def read(self, source: Source) -> bool:
        return True


@dataclass(frozen=True)
class Field:
    """A field of a record.

    Attributes:
        name: of the attribute that it holds.
        kind: how it is written.
        optional: it is left out where it has its default.
        default: which that is.
        about: what it means, for docs/bitstream.md.
    """
    name: str
    kind: Kind
    about: str
    optional: bool = False
    default: Any = None


def pack(fields: Sequence[Field], record: Any) -> bytes:
    """The attributes of a record that the fields name.

    Raises:
        Malformed: a value is out of bounds; the message names the field.
    """
    values = {field.name: getattr(record, field.name) for field in fields}
    optional = [field for field in fields if field.optional]
    present = sum(1 << i for i, field in enumerate(optional) if values[field.name] != field.default)
    parts = [varint(present)] if optional else []
    for field in fields:
        if not field.optional or values[field.name] != field.default:
            try:
                parts.append(field.kind.pack(values[field.name]))
            except Malformed as error:
                raise Malformed(f"{field.name} {error}") from None
    return b"".join(parts)


def read(fields: Sequence[Field], source: Source) -> dict[str, Any]:
    """What `pack` wrote, by name; optional fields that are not there have their defaults.

    Raises:
        Malformed: a value is out of bounds, or there are fields that this program does not know.
    """
    optional = [field for field in fields if field.optional]
    present = source.varint() if optional else 0
    if present >> len(optional):
        raise Malformed("has fields that this program does not know; use a newer one")
    there = {field.name for i, field in enumerate(optional) if present >> i & 1}
    values = {}
    for field in fields:
        if field.optional and field.name not in there:
            values[field.name] = field.default
            continue
        try:
            values[field.name] = field.kind.read(source)
        except Malformed as error:
            raise Malformed(f"{field.name} {error}") from None
    return values
