"""Calling a program's functions in the sandbox and sending what they return out, value by value.

Each line on the result channel is the job's nonce and a JSON text. A program that ends the process early, or prints
whatever it likes, has sent no such line, and its test has not passed.
"""

from __future__ import annotations

import json
import os
from typing import Any

from . import values

RESULTS = 6  # the descriptor after the streams


def run(job: dict[str, Any], namespace: dict[str, Any]) -> None:
    """Take the job's steps in the namespace of the program that has just run. Raises what the program raises."""
    for kind, source, argument in job["steps"]:
        if kind == "call":
            _send(job, _function(namespace, source)(*json.loads(argument)))
        elif kind == "value":
            _send(job, eval(compile(source, "<test>", "eval", dont_inherit=True), namespace))
        else:
            try:
                exec(compile(source, "<test>", "exec", dont_inherit=True), namespace)
            except AssertionError as error:
                return _write(job, json.dumps({"failed": str(error)[:200]}))
    return _write(job, json.dumps({"done": True}))


def _function(namespace: dict[str, Any], path: str) -> Any:
    """``f`` is a function of the program, ``Solution.f`` a method of a new object."""
    first, *rest = path.split(".")
    if first not in namespace:
        raise NameError(f"name {first!r} is not defined by the program")
    found = namespace[first]
    for name in rest:
        found = getattr(found() if isinstance(found, type) else found, name)
    return found


def _send(job: dict[str, Any], value: object) -> None:
    try:
        text = values.dumps(value)
    except values.UnknownTypeError as error:
        text = json.dumps({"unknown": str(error)})
    _write(job, text)


def _write(job: dict[str, Any], text: str) -> None:
    line = memoryview(f"{job['nonce']} {text}\n".encode())
    while line:
        line = line[os.write(RESULTS, line) :]
