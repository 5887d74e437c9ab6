"""In the locked-down child: read the job, compile the program, run it, end as an interpreter would."""

from __future__ import annotations

import _thread
import atexit
import errno
import gc
import os
import sys
from collections.abc import Callable
from marshal import dumps, loads
from os import _exit, closerange, pread, pwrite
from types import CodeType, ModuleType
from typing import Any, NoReturn

from . import calls
from .confinement.limits import JOB, OWN, STATUS
from .protocol import Stage


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
    _end(_execute(job, codes), leave)


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
    module = ModuleType("__main__" if job["steps"] is None else "solution")  # a called program's demo does not run
    namespace = module.__dict__
    namespace["__builtins__"] = sys.modules["builtins"]
    sys.modules["__main__"] = sys.modules[module.__name__] = module
    sys.argv = job["arguments"]
    gc.enable()
    status = 0
    try:
        for code in codes:
            exec(code, namespace)
        if job["steps"] is not None:
            calls.run(job, namespace)
            return 0
    except SystemExit as request:
        status = _exit_status(request)
    except BaseException as error:
        status = _uncaught(error)
    return _finalize(namespace, status)


def _exit_status(request: SystemExit) -> int:
    if request.code is None:
        return 0
    if isinstance(request.code, int):
        return request.code & 0xFF
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


def _finalize(namespace: dict[str, Any], status: int) -> int:
    """What the interpreter does at its end: wait for threads, run exit functions, let files go, flush the streams."""
    try:
        if _thread._count():
            sys.modules["threading"]._shutdown()
        if atexit._ncallbacks():
            atexit._run_exitfuncs()
        namespace.clear()
        if "__main__" in sys.modules:
            sys.modules["__main__"].__dict__.clear()
        gc.collect(2 if gc.get_count()[2] else 1)  # the oldest generation is empty unless the one before was collected
    except SystemExit as request:
        status = _exit_status(request)
    except BaseException as error:
        _report(error)
    for stream in (sys.stdout, sys.__stdout__) if sys.stdout is not sys.__stdout__ else (sys.stdout,):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except BaseException:
            status = status or 120  # the interpreter's own code for it
    return status


def _end(status: int, leave: Callable[[int], NoReturn]) -> NoReturn:
    try:
        sys.stderr.flush()
    finally:  # whatever the program has put there
        leave(status)
