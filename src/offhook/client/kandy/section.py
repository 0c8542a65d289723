"""Reading nested dictionaries whose keys are spelt in the manner of JavaScript or of Python."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from offhook.client.kandy.errors import CONFIGURATION, KandyError


class Section:
    """A dictionary of a configuration.

    Keys are told apart by their letters alone, so that ``pingInterval`` and ``ping_interval`` are the same. What is
    None counts as not given, as ``undefined`` does in JavaScript.

    Args:
        value: the dictionary, or None.
        prefix: the path of its key, with a dot at its end; empty for the whole.

    Raises:
        KandyError: ``configuration``: it is no dictionary, or gives something twice.
    """

    __slots__ = ("_prefix", "_read", "_sections", "_values", "given")

    def __init__(self, value: object, prefix: str) -> None:
        if value is not None and not isinstance(value, Mapping):
            raise KandyError(CONFIGURATION, f"{prefix.removesuffix('.') or 'config'} must be a dictionary")
        self.given = value is not None
        """Whether it is there."""
        self._prefix = prefix
        self._values: dict[str, tuple[str, object]] = {}
        self._read: set[str] = set()
        self._sections: dict[str, Section] = {}
        for key, item in (value or {}).items():
            if not isinstance(key, str):
                raise KandyError(CONFIGURATION, f"{prefix}{key!r} must be a text")
            if item is None:
                continue
            if (before := self._values.get(_letters(key))) is not None:
                raise KandyError(CONFIGURATION, f"{prefix}{before[0]} and {prefix}{key} are the same: give one of them")
            self._values[_letters(key)] = key, item

    def path(self, name: str) -> str:
        """The whole path of a key, as it is written; of one that is not given, as Kandy.js writes it."""
        return self._prefix + self._values.get(_letters(name), (name, None))[0]

    def has(self, name: str) -> bool:
        """Whether a key is given."""
        self._read.add(_letters(name))
        return _letters(name) in self._values

    def section(self, name: str) -> Section:
        """The dictionary below a key; empty if it is not given."""
        key = _letters(name)
        if key not in self._sections:
            self._sections[key] = Section(self._get(name), self.path(name) + ".")
        return self._sections[key]

    def text(self, name: str, default: str) -> str:
        """A text."""
        value = self._get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self._wrong(name, "a text")
        return value

    def word(self, name: str, default: str) -> str:
        """A text that may be written as a number, such as a version."""
        value = self._get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return self.text(name, default)

    def number(self, name: str, default: float, *, at_least: float = 0.0) -> float:
        """A number, which may be written as a text."""
        value = self._get(name)
        if value is None:
            return default
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                raise self._wrong(name, "a number") from None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self._wrong(name, "a number")
        if value < at_least:
            raise self._wrong(name, f"at least {at_least:g}")
        return float(value)

    def port(self, name: str, default: int) -> int:
        """The number of a port."""
        value = self.number(name, default, at_least=1)
        if value != int(value) or value > 65535:
            raise self._wrong(name, "a port, from 1 to 65535")
        return int(value)

    def flag(self, name: str, default: bool) -> bool:
        """True or False."""
        value = self._get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._wrong(name, "True or False")
        return value

    def words(self, name: str, default: tuple[str, ...] | None) -> tuple[str, ...] | None:
        """A list of texts, each once."""
        value = self._get(name)
        if value is None:
            return default
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, Iterable) or isinstance(items, bytes | Mapping):
            raise self._wrong(name, "a list of texts")
        found = list(items)
        if not all(isinstance(item, str) and item for item in found):
            raise self._wrong(name, "a list of texts")
        return tuple(dict.fromkeys(found))

    def unread(self) -> list[str]:
        """The paths of the keys that nobody has asked for, here and below."""
        found = [self._prefix + written for key, (written, _) in self._values.items() if key not in self._read]
        for section in self._sections.values():
            found += section.unread()
        return found

    def _get(self, name: str) -> object:
        self._read.add(_letters(name))
        return self._values.get(_letters(name), ("", None))[1]

    def _wrong(self, name: str, wanted: str) -> KandyError:
        return KandyError(CONFIGURATION, f"{self.path(name)} must be {wanted}")


def _letters(key: str) -> str:
    return key.replace("_", "").casefold()
