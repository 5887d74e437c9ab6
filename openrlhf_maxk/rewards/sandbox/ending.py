"""The end of a whole program, in the order of CPython's own (``Py_FinalizeEx``).

Threads are waited for, exit functions run, the streams are flushed, and only then references go: a finalizer that
writes what a program has gathered still sees the program's globals.
"""

from __future__ import annotations

import _thread
import atexit
import builtins
import gc
import sys
from _weakref import ref
from types import FunctionType
from typing import Any

_STDOUT: Any = sys.stdout
_STDERR: Any = sys.stderr
_ORIGINALS = (("stdin", "__stdin__"), ("stdout", "__stdout__"), ("stderr", "__stderr__"))
_FAILED_TO_FLUSH = 120  # the interpreter's own exit code for it
_BUILTINS = dict(vars(builtins))  # before any program


def finalize(status: int) -> int:
    """End the program that ``sys.modules["__main__"]`` is; ``status`` is its exit code so far. Returns the last one."""
    if _thread._count():
        _run(sys.modules["threading"], "_shutdown")
    if atexit._ncallbacks():
        atexit._run_exitfuncs()
    flushed = _flush()
    _forget_program()
    return status if _flush() and flushed else _FAILED_TO_FLUSH


def _run(module: Any, name: str) -> None:
    try:
        getattr(module, name)()
    except BaseException as error:
        _report(error)


def _report(error: BaseException) -> None:
    """Say so, and go on: at its end the interpreter ignores what is raised."""
    try:
        sys.__stderr__.write(f"Exception ignored: {type(error).__name__}: {error}\n")  # type: ignore[union-attr]
    except BaseException:
        return


def _flush() -> bool:
    """Flush the streams, as the program has left them. Returns whether that worked."""
    known = vars(sys)
    try:
        if known["stdout"] is _STDOUT and known["stderr"] is _STDERR:  # in few steps: each costs every test something
            _STDOUT.flush()
            _STDERR.flush()
            return True
    except BaseException:  # closed or deleted, say: what that means is found out below
        pass
    flushed = [_flush_one(known.get(name)) for name in ("stdout", "stderr")]
    return all(flushed)


def _flush_one(stream: Any) -> bool:
    try:
        if stream is not None and not _is_closed(stream):
            stream.flush()
    except BaseException as error:
        _report(error)
        return False
    return True


def _is_closed(stream: Any) -> bool:
    try:
        return bool(stream.closed)
    except BaseException:
        return False  # a program's own writer need not say


def _forget_program() -> None:
    """Let go of the program, so that its objects end; what still holds it beyond its own module goes as well."""
    known = vars(sys)
    for name, original in _ORIGINALS:
        known[name] = known.get(original)
    module = sys.modules.pop("__main__", sys)
    if module is sys:
        return
    witness = _witness(vars(module))
    if witness is None:
        vars(module).clear()  # no code of its own that could miss a name: the cheapest way
    elif gc.isenabled():
        gc.collect(_oldest_in_use())  # the cycles that the program has left behind go before what it still holds
    del module
    gc.collect(_oldest_in_use())
    if witness is not None and witness() is not None:
        _forget_everything()


def _witness(namespace: dict[str, Any]) -> ref[Any] | None:
    """A weak reference to something that lives as long as the program's globals do: a function or class of its own."""
    for value in namespace.values():
        if type(value) is FunctionType and value.__globals__ is namespace:
            return ref(value)
        if type(value) is type and value.__module__ == "__main__":
            return ref(value)
    return None


def _forget_everything() -> None:
    """A module that was there before (``typing`` caches, ``builtins`` was changed, …) refers to the program.

    So all modules go, as they do at an interpreter's end. That is dear, and rarely needed.
    """
    gc.unfreeze()
    for found in gc.get_objects():
        if type(found).__name__ == "_lru_cache_wrapper":  # of typing, say, which these files use as well
            found.cache_clear()
    for name in [name for name in sys.modules if name not in ("sys", "builtins")]:
        del sys.modules[name]
    present = vars(builtins)
    present.clear()
    present.update(_BUILTINS)
    gc.collect()


def _oldest_in_use() -> int:
    """The oldest generation is empty unless the one before it has been collected."""
    return 2 if gc.get_count()[2] else 1
