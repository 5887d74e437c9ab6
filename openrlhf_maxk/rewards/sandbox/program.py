"""In the locked-down child: read the job, compile the program, run it, end as an interpreter would."""

from __future__ import annotations

import errno
import gc
import os
import sys
from collections.abc import Callable
from marshal import dumps, loads
from os import _exit, closerange, pread, pwrite
from types import CodeType, ModuleType
from typing import Any, NoReturn

from . import calls, ending
from .confinement.limits import JOB, OWN, STATUS
from .protocol import FILE, Stage


def run(job_bytes: int, leave: Callable[[int], NoReturn]) -> NoReturn:
    """Run the job, which is so long, and ``leave``. The server's descriptors are closed before a line of it runs."""
    try:
        job = loads(pread(JOB, job_bytes, 0))
        code = job["code"]
        codes = loads(code) if code else _compile(job)
    except MemoryError:
        _out_of_memory()
    except BaseException as error:  # not only SyntaxError: the compiler has many ways to refuse a text
        pwrite(STATUS, Stage.COMPILE_ERROR, 0)
        _report(error.with_traceback(None))
        _end(1, leave)
    pwrite(STATUS, Stage.COMPILED, 0)
    if job["keep_code"]:
        _keep(codes)
    closerange(OWN.start, OWN.stop)
    status = _execute(job, codes)
    if job["steps"] is None:
        status = ending.finalize(status)
    _end(status, leave)


def _compile(job: dict[str, Any]) -> list[CodeType]:
    sources = [("<setup>", job["setup"]), ("<program>", job["program"])]
    return [compile(source, name, "exec", dont_inherit=True) for name, source in sources if source]


def _keep(codes: list[CodeType]) -> None:
    """Hand the code to the tests that follow; what is too large for it is compiled again by each."""
    try:
        whole = dumps(codes)
        if pwrite(STATUS, whole, len(Stage.COMPILED)) == len(whole):
            return
    except (OSError, ValueError, MemoryError):
        pass
    os.ftruncate(STATUS, len(Stage.COMPILED))


def _execute(job: dict[str, Any], codes: list[CodeType]) -> int:
    """Run the program in a module of its own. Nothing here refers to the module any more when this returns."""
    module = _module("__main__" if job["steps"] is None else "solution")  # a called program's demo does not run
    namespace = module.__dict__
    sys.argv = job["arguments"]
    gc.enable()
    try:
        for code in codes:
            exec(code, namespace)
        if job["steps"] is not None:
            calls.run(job, namespace)
    except SystemExit as request:
        return _exit_status(request)
    except BaseException as error:
        return _uncaught(error)
    return 0


def _module(name: str) -> ModuleType:
    """The program's module, with what the interpreter gives to a script."""
    module = ModuleType(name)
    module.__dict__.update(__builtins__=sys.modules["builtins"], __file__=FILE, __cached__=None, __annotations__={})
    sys.modules["__main__"] = sys.modules[name] = module
    return module


def _exit_status(request: SystemExit) -> int:
    if request.code is None:
        return 0
    if isinstance(request.code, int):
        return request.code & 0xFF if -(2**63) <= request.code < 2**63 else 0xFF  # what no C long holds is -1
    _print(str(request.code) + "\n")
    return 1


def _uncaught(error: BaseException) -> int:
    """Say what went wrong, as the interpreter does, from the first frame of the program on."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        error.__traceback__ = None  # frees what the program's frames hold
        _out_of_memory()
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__") in (__name__, calls.__name__):
        trace = trace.tb_next
    _report(error.with_traceback(trace))
    return 1


def _report(error: BaseException) -> None:
    try:
        sys.excepthook(type(error), error, error.__traceback__)
    except BaseException:
        _print(f"{type(error).__name__}\n")


def _print(text: str) -> None:
    try:
        sys.stderr.write(text)
    except BaseException:
        os.write(2, text.encode("utf-8", "backslashreplace")[:1000])


def _out_of_memory() -> NoReturn:
    os.write(2, b"MemoryError\n")
    _exit(1)


def _end(status: int, leave: Callable[[int], NoReturn]) -> NoReturn:
    try:
        sys.stderr.flush()
    finally:  # whatever the program has put there
        leave(status)
