"""The interpreter's code in huge pages: it is there, forks are cheaper for it, and without them nothing is replaced."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrlhf_maxk.problems.record import Problem, Test
from openrlhf_maxk.problems.verdict import Verdict
from openrlhf_maxk.rewards.execution.executor import Executor
from openrlhf_maxk.rewards.sandbox import huge_pages
from openrlhf_maxk.rewards.sandbox.confinement import syscalls

from ..traces import sandbox_processes
from .test_rehearsal import faults

ADD = Problem("add", "", (Test("1 2\n", "3\n"),) * 3)
_PR_SET_THP_DISABLE = 41


@pytest.fixture
def can_be_had() -> None:
    """Skips where no memory lies together for them, or the interpreter is too small to fill one."""
    if not any(end // huge_pages.SIZE * huge_pages.SIZE > huge_pages._up(start) for start, end in huge_pages._loaded()):
        pytest.skip("nothing to replace: this interpreter's code fills no whole huge page")
    size = 8 * huge_pages.SIZE
    reserved = syscalls.map_memory(size)
    try:
        start = huge_pages._up(reserved)
        syscalls.wish_for_huge_pages(start, size - huge_pages.SIZE)
        ctypes.memset(start, 1, size - huge_pages.SIZE)
        syscalls.make_executable(start, size - huge_pages.SIZE)
        if huge_pages._in_huge_pages(start) < size - huge_pages.SIZE:
            pytest.skip("the kernel gives none: transparent_hugepage is 'never', or no 2 MiB of memory lie together")
    finally:
        syscalls.unmap(reserved, size)


@pytest.fixture
def cannot_be_had() -> Iterator[None]:
    """For processes that are started meanwhile."""
    library = ctypes.CDLL(None)
    assert library.prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0
    yield
    assert library.prctl(_PR_SET_THP_DISABLE, 0, 0, 0, 0) == 0


def replaced(executor: Executor) -> list[int]:
    """Of each executable mapping of the server that is no file's: how many KiB lie in huge pages."""
    (lane,) = executor._lanes
    assert lane.pid is not None
    server = max(sandbox_processes([lane.pid]))
    found, wanted = [], False
    for line in Path(f"/proc/{server}/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0]:
            wanted = words[1] == "r-xp" and words[4] == "0" and len(words) == 5
        elif wanted and words[0] == "AnonHugePages:":
            found.append(int(words[1]))
    return found


@pytest.mark.usefixtures("can_be_had")
def test_the_interpreter_lies_in_huge_pages() -> None:
    with Executor(cores=1) as executor:
        found = replaced(executor)
        assert sum(found) >= 2048
        assert not any(kib % 2048 for kib in found)


@pytest.mark.usefixtures("cannot_be_had")
def test_without_huge_pages_nothing_is_replaced_and_every_verdict_is_the_same() -> None:
    with Executor(cores=1) as executor:
        assert replaced(executor) == []
        assert executor.run("print(sum(map(int, input().split())))", ADD).all_passed == 1.0
        assert executor.run("print(4)", ADD).tests[0].verdict is Verdict.WRONG
        assert executor.run("1 / 0", ADD).tests[0].verdict is Verdict.CRASHED


@pytest.mark.usefixtures("can_be_had")
def test_programs_find_less_anew(request: pytest.FixtureRequest) -> None:
    with Executor(cores=1) as executor:
        with_them = faults(executor)
    request.getfixturevalue("cannot_be_had")
    with Executor(cores=1) as executor:
        assert with_them < faults(executor) - 10


@pytest.mark.usefixtures("can_be_had")
def test_a_program_cannot_change_the_code_of_others() -> None:
    """The mapping may not be written to, and a copy that a program makes writable is its own."""
    write = (
        "import ctypes\nctypes.c_char.from_address(ctypes.cast(ctypes.pythonapi.Py_GetVersion, ctypes.c_void_p).value)"
    )
    once = Problem("once", "", (Test("", "no\n"),))
    with Executor(cores=1) as executor:
        assert executor.run(f"{write}.value = b'x'\nprint('no')", once).tests[0].verdict is Verdict.CRASHED
        assert executor.run("print('no')", once).all_passed == 1.0
