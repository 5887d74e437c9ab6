"""The rehearsal of a fork server: which pages fork copies at once, and that it changes no verdict."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from openrlhf_maxk.problems.record import Problem, Test
from openrlhf_maxk.problems.verdict import Verdict
from openrlhf_maxk.rewards.execution.executor import Executor
from openrlhf_maxk.rewards.sandbox.confinement import limits, syscalls

from ..traces import sandbox_processes

ADD = Problem("add", "", (Test("1 2\n", "3\n"),) * 3)
RIGHT = "print(sum(map(int, input().split())))"
FAULTS = "import resource\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)"


@pytest.fixture
def io_uring() -> None:
    try:
        os.close(syscalls.io_uring())
    except OSError as error:
        pytest.skip(f"no io_uring here: {error}")


@pytest.fixture
def without_io_uring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that takes io_uring from a server that imports it."""
    (tmp_path / "refuser.py").write_text(
        "import sys\n"
        "def refuse(): raise PermissionError(1, 'not here')\n"
        "sys.modules['sandbox.confinement.syscalls'].io_uring = refuse\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "refuser"


def pinned(executor: Executor) -> int:
    """How many buffers the server has registered."""
    (lane,) = executor._lanes
    assert lane.pid is not None
    server = max(sandbox_processes([lane.pid]))
    ring = Path(f"/proc/{server}/fdinfo/{limits.PINNED}")
    if not ring.exists():
        return 0
    return next(int(line.split()[1]) for line in ring.read_text().splitlines() if line.startswith("UserBufs:"))


def faults(executor: Executor) -> int:
    """How many pages a program had to wait for, the fewest of some runs."""
    problem = Problem("faults", "", (Test("", ""),))
    return min(int(executor.run(f"{FAULTS}  # {number}", problem).tests[0].output) for number in range(5))


@pytest.mark.usefixtures("io_uring")
def test_most_pages_are_copied_by_fork(without_io_uring: str) -> None:
    with Executor(cores=1) as executor, Executor(cores=1, modules=[without_io_uring]) as plain:
        assert pinned(executor) > 100
        assert pinned(plain) == 0
        assert faults(executor) < 0.6 * faults(plain)


@pytest.mark.usefixtures("io_uring")
def test_a_new_server_rehearses_too() -> None:
    with Executor(cores=1) as executor:
        (lane,) = executor._lanes
        lane.stop()
        assert executor.run(RIGHT, ADD).all_passed == 1.0
        assert pinned(executor) > 100


def test_without_io_uring_every_verdict_is_the_same(without_io_uring: str) -> None:
    with Executor(cores=1, modules=[without_io_uring]) as executor:
        assert executor.run(RIGHT, ADD).all_passed == 1.0
        assert executor.run("print(4)", ADD).tests[0].verdict is Verdict.WRONG
        assert executor.run("1 / 0", ADD).tests[0].verdict is Verdict.CRASHED


def test_what_a_program_writes_to_such_a_page_stays_its_own() -> None:
    """The number 3 lies in one of the pages that every program writes to."""
    change = "import ctypes\nctypes.c_int.from_address(id(3) + 24).value = 4\nprint(3)"
    three = Problem("three", "", (Test("", "3"),) * 2)
    with Executor(cores=1) as executor:
        for _ in range(3):
            changed = executor.run(change, three)
            assert {test.verdict for test in changed.tests} == {Verdict.WRONG}
            assert {test.output for test in changed.tests} == {b"4\n"}
            assert executor.run("print(3)", three).all_passed == 1.0


def test_what_every_program_would_make_again_is_there_before() -> None:
    """The classes of syntax trees, made by the first ``compile``, take a program as long as the rest of a test."""
    program = "import _ast, gc\nprint(any(found is _ast.AST for found in gc.get_objects()))"
    with Executor(cores=1) as executor:
        assert executor.run(program, Problem("made", "", (Test("", "False\n"),))).tests[0].verdict is Verdict.PASSED


def test_what_makes_forks_dearer_is_not_imported() -> None:
    program = "import sys\nprint(sys.modules.keys() & {'_socket', 'select', 'resource', 'fcntl'})"
    with Executor(cores=1) as executor:
        assert executor.run(program, Problem("imported", "", (Test("", "set()\n"),))).tests[0].verdict is Verdict.PASSED
