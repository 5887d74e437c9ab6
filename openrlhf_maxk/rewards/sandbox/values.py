"""Python values as JSON text, so that a returned value is compared outside the sandbox.

JSON has no tuples, sets or exact numbers, so these are written as an object with one key that names the type. Nothing
of a value's class comes along: an object that claims to equal everything is written as what it is built on, or not at
all.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from json import dumps as _json_text
from typing import Any

_PLAIN_INTEGERS = 10**15  # larger ones are written in hexadecimal, which takes linear time to read and write


class UnknownTypeError(TypeError):
    """A value that has no counterpart outside."""


def encode(value: object) -> Any:
    """The value in terms of JSON. Raises UnknownTypeError; RecursionError if it is nested too deeply."""
    for base in type(value).__mro__:
        encoder = _ENCODERS.get(base)
        if encoder is not None:
            return encoder(value)
    for module, name, encoder in _OTHERS:
        if getattr(sys.modules.get(module), name, None) in type(value).__mro__:
            return encoder(value)
    raise UnknownTypeError(f"a value of type {type(value).__name__}")


def dumps(value: object) -> str:
    """The value as one line of JSON. Raises as :func:`encode` does."""
    return _json_text(encode(value), separators=(",", ":"))


def _integer(value: Any) -> Any:
    value = int.__int__(value)
    return value if -_PLAIN_INTEGERS < value < _PLAIN_INTEGERS else {"int": f"{value:x}"}


def _dict(value: Any) -> Any:
    return {"dict": [[encode(key), encode(item)] for key, item in dict.items(value)]}


def _complex(value: Any) -> Any:
    return {"complex": [complex.real.__get__(value), complex.imag.__get__(value)]}


_ENCODERS: dict[type, Callable[[Any], Any]] = {
    type(None): lambda value: None,
    bool: lambda value: value,
    int: _integer,
    float: float.__float__,
    str: lambda value: "".join(str.__iter__(value)),
    list: lambda value: [encode(item) for item in list.__iter__(value)],
    tuple: lambda value: {"tuple": [encode(item) for item in tuple.__iter__(value)]},
    set: lambda value: {"set": [encode(item) for item in set.__iter__(value)]},
    frozenset: lambda value: {"set": [encode(item) for item in frozenset.__iter__(value)]},
    dict: _dict,
    bytes: lambda value: {"bytes": bytes.hex(value)},
    bytearray: lambda value: {"bytes": bytearray.hex(value)},
    complex: _complex,
}

_OTHERS: list[tuple[str, str, Callable[[Any], Any]]] = [
    ("fractions", "Fraction", lambda value: {"fraction": [f"{value.numerator:x}", f"{value.denominator:x}"]}),
    ("decimal", "Decimal", lambda value: {"decimal": str(value)}),
    ("numpy", "generic", lambda value: encode(value.item())),
]
