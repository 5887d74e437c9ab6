"""A JSON text read value by value, so that a file of many values needs the memory of one."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

_CHUNK = 2**16  # characters
_LONGEST = 2**30  # characters of one value
_NEAR_END = 16  # so close to the end of what was read, a fault may be a cut: an escape, a number, a word


class JsonStream:
    """Values one after the other; arrays and objects can be entered instead of read whole."""

    def __init__(self, file: io.TextIOBase) -> None:
        self._file = file
        self._text = ""
        self._at = 0
        self._lines = 1  # the line that the text begins in

    @property
    def line(self) -> int:
        """The line of the next character, from 1."""
        return self._lines + self._text.count("\n", 0, self._at)

    def peek(self) -> str:
        """The next character that is not white space; nothing at the end."""
        while True:
            rest = self._text[self._at : self._at + 64].lstrip(" \t\r\n")
            if rest:
                self._at = self._text.index(rest[0], self._at)
                return rest[0]
            self._at = min(self._at + 64, len(self._text))
            if self._at == len(self._text) and not self._more():
                return ""

    def value(self) -> Any:
        """The next value.

        Raises:
            ValueError: there is none, it is malformed, cut short, too long or too deep.
        """
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - _NEAR_END
                if cut and self._more():
                    continue
                raise ValueError(error.msg) from None
            except RecursionError:
                raise ValueError("too deeply nested") from None
            if end == len(self._text) and self._more():  # a number may go on
                continue
            self._at = end
            return value

    def elements(self) -> Iterator[int]:
        """The lines of the elements of an array. Each must be read, or entered, before the next one is asked for."""
        self._expect("[")
        first = True
        while self._goes_on("]", first):
            yield self.line
            first = False

    def members(self) -> Iterator[str]:
        """The names in an object. The value of each must be read, or entered, before the next one is asked for."""
        self._expect("{")
        first = True
        while self._goes_on("}", first):
            name = self.value()
            if not isinstance(name, str):
                raise ValueError("a name in an object must be text")
            self._expect(":")
            self.peek()
            yield name
            first = False

    def _goes_on(self, closing: str, first: bool) -> bool:
        if self.peek() == closing:
            self._at += 1
            return False
        if not first:
            self._expect(",")
            self.peek()
        return True

    def _expect(self, character: str) -> None:
        found = self.peek()
        if found != character:
            raise ValueError(f"{character!r} was expected, not {found!r}" if found else "it ends too early")
        self._at += 1

    def _more(self) -> bool:
        """Read on; what was read grows with what is kept, so that long values are not looked at again too often."""
        kept = len(self._text) - self._at
        if kept > _LONGEST:
            raise ValueError(f"one value has more than {_LONGEST} characters")
        chunk = self._file.read(max(_CHUNK, kept))
        self._lines += self._text.count("\n", 0, self._at)
        self._text = self._text[self._at :] + chunk
        self._at = 0
        return bool(chunk)


_DECODER = json.JSONDecoder()
