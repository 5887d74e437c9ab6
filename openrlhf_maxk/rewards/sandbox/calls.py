"""Calling a program's functions in the sandbox and sending what they return out, value by value.

Each line on the result channel is the job's nonce and a JSON text. A program that ends the process early, or prints
whatever it likes, has sent no such line, and its test has not passed.
"""

from __future__ import annotations

import builtins
from json import dumps, loads
from os import write
from typing import Any

from . import values

RESULTS = 6  # the descriptor after the streams

# Bound before the program runs, which may put others in their places.
_compile, _eval, _exec, _getattr, _isinstance, _type = compile, eval, exec, getattr, isinstance, type
_memoryview, _str = memoryview, str
_BUILTINS = dict(vars(builtins))
_AssertionError = AssertionError


def run(job: dict[str, Any], namespace: dict[str, Any]) -> None:
    """Take the job's steps in the namespace of the program that has just run. Raises what the program raises."""
    if any(kind != "call" for kind, _, _ in job["steps"]):
        namespace["__builtins__"] = _BUILTINS.copy()  # for the tests; the program's functions keep what it has changed
    for kind, source, argument in job["steps"]:
        if kind == "call":
            _send(job, _function(namespace, source)(*loads(argument)))
        elif kind == "value":
            _send(job, _value(source, namespace))
        elif kind == "equal":
            _send_both(job, _value(source, namespace), _value(argument, namespace))
        else:
            try:
                _exec(_compile(source, "<test>", "exec", dont_inherit=True), namespace)
            except _AssertionError as error:
                return _write(job, dumps({"failed": _str(error)[:200]}))
    return _write(job, dumps({"done": True}))


def _value(source: str, namespace: dict[str, Any]) -> Any:
    return _eval(_compile(source, "<test>", "eval", dont_inherit=True), namespace)


def _function(namespace: dict[str, Any], path: str) -> Any:
    """``f`` is a function of the program, ``Solution.f`` a method of a new object."""
    first, *rest = path.split(".")
    if first not in namespace:
        raise NameError(f"name {first!r} is not defined by the program")
    found = namespace[first]
    for name in rest:
        found = _getattr(found() if _isinstance(found, _type) else found, name)
    return found


def _send(job: dict[str, Any], value: object) -> None:
    _write(job, _text(value))


def _send_both(job: dict[str, Any], left: object, right: object) -> None:
    """Two values that are to be equal; or, where neither has a counterpart outside, whether they say so."""
    texts = [_text(left), _text(right)]
    if all(text.startswith('{"unknown"') for text in texts):
        return _write(job, dumps({"equal": bool(left == right)}))
    return _write(job, f'{{"both":[{texts[0]},{texts[1]}]}}')


def _text(value: object) -> str:
    try:
        return values.dumps(value)
    except values.UnknownTypeError as error:
        return dumps({"unknown": _str(error)})


def _write(job: dict[str, Any], text: str) -> None:
    line = _memoryview(f"{job['nonce']} {text}\n".encode())
    while line:
        line = line[write(RESULTS, line) :]
