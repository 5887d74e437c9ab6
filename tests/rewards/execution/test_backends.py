"""What runs programs, by name: the same verdicts from each, and equal programs once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from openrlhf_maxk.problems.record import Comparison, Judge, Limits, Mode, Problem, Test
from openrlhf_maxk.problems.verdict import ProgramResult, TestResult, Verdict
from openrlhf_maxk.rewards.execution import once
from openrlhf_maxk.rewards.execution.backends import check_name, is_remote, open_runner
from openrlhf_maxk.rewards.execution.bubblewrap import BubblewrapExecutor
from openrlhf_maxk.rewards.execution.executor import Executor
from openrlhf_maxk.rewards.execution.once import RunOnce
from openrlhf_maxk.rewards.execution.runner import SandboxUnavailableError

from ..places import as_nobody, copy_package, reachable_python

SHORT = Limits(cpu_seconds=0.5, memory_bytes=2**27, output_bytes=2**16)
SUM = Problem("sum", "", (Test("1 2\n", "3\n"), Test("5 6\n", "11\n")), limits=SHORT)
DOUBLE = Problem("double", "", (Test("[3]", "6"), Test("[[1]]", "[1, 1]")), Mode.FUNCTION, "double", limits=SHORT)
ASSERTS = Problem("asserts", "", (Test("assert f(2) == 4"), Test("assert f(3) > 5")), Mode.ASSERTS, limits=SHORT)
CHECKED = Problem(
    "checked",
    "",
    (Test("4", "2"),),
    limits=SHORT,
    judge=Judge(Comparison.CHECKER, checker="import sys\nprint(int(abs(int(open(sys.argv[3]).read())) == 2))"),
)

PROGRAMS = [  # problem, program, verdicts
    (SUM, "print(sum(map(int, input().split())))", ["passed", "passed"]),
    (SUM, "print(3)", ["passed", "wrong"]),
    (SUM, "print(3); 1 / 0", ["crashed", "crashed"]),
    (SUM, "def (", ["crashed", "crashed"]),
    (SUM, "os.getpid()", ["crashed", "crashed"]),
    (SUM, "import sys; print(3); sys.exit()", ["passed", "wrong"]),
    (SUM, "while True: pass", ["cpu_timeout", "cpu_timeout"]),
    (SUM, "x = bytearray(10**10)", ["out_of_memory", "out_of_memory"]),
    (SUM, "while True: print('x' * 1000)", ["too_much_output", "too_much_output"]),
    (DOUBLE, "def double(x): return x * 2", ["passed", "passed"]),
    (DOUBLE, "print('noise')\ndef double(x): return 6", ["passed", "wrong"]),
    (DOUBLE, "import os\ndef double(x): os._exit(0)", ["crashed", "crashed"]),
    (DOUBLE, "class A:\n    def __eq__(self, other): return True\ndef double(x): return A()", ["wrong", "wrong"]),
    (ASSERTS, "def f(x): return 2 * x", ["passed", "passed"]),
    (ASSERTS, "def f(x): return 4", ["passed", "wrong"]),
    (CHECKED, "print(-2)", ["passed"]),
    (CHECKED, "print(3)", ["wrong"]),
]


def verdicts(result: ProgramResult) -> list[str]:
    return [str(test.verdict) for test in result.tests]


needs_bubblewrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")


@pytest.fixture(scope="module")
def bubblewrap() -> Iterator[BubblewrapExecutor]:
    container = subprocess.run(["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"], capture_output=True)
    if container.returncode:  # a kernel that denies it namespaces; anything else is our fault
        pytest.skip(f"bubblewrap may not make containers here: {container.stderr.decode().strip()}")
    with BubblewrapExecutor(2) as runner:
        yield runner


@needs_bubblewrap
@pytest.mark.parametrize(("problem", "program", "expected"), PROGRAMS)
def test_bubblewrap_gives_the_sandboxs_verdicts(bubblewrap, problem, program, expected):
    assert verdicts(bubblewrap.run(program, problem)) == expected


@needs_bubblewrap
@pytest.mark.parametrize(
    "program",
    [
        "open({secret!r}).read()",
        "open({new!r}, 'w')",
        "import os; os.listdir({folder!r})",
        "open('/etc/passwd').read()",
        "import socket; socket.create_connection(('127.0.0.1', 9), 1)",
        "import os; os.fork()",
        "import os; os.kill(1, 9)",
        "import os; os.kill({process}, 0)",
        "open('/proc/{process}/environ').read()",
    ],
)
def test_bubblewraps_containers_hold(bubblewrap, tmp_path, program):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    for path in (tmp_path, secret):
        path.chmod(0o777)
    filled = program.format(secret=str(secret), new=str(tmp_path / "new"), folder=str(tmp_path), process=os.getpid())
    (test,) = bubblewrap.run(filled, Problem("attack", "", (Test("", ""),), limits=SHORT)).tests
    assert test.verdict is Verdict.CRASHED, test
    assert not (tmp_path / "new").exists()
    assert verdicts(bubblewrap.run(PROGRAMS[0][1], SUM)) == ["passed", "passed"]


AS_NOBODY = """
from openrlhf_maxk.problems.record import Problem, Test
from openrlhf_maxk.rewards.execution.bubblewrap import BubblewrapExecutor

with BubblewrapExecutor(1) as executor:
    for program in ("print(sum(map(int, input().split())))", "open('/etc/passwd').read()", "import os; os.fork()"):
        (test,) = executor.run(program, Problem("sum", "", (Test("1 2", "3"),))).tests
        print(test.verdict, test.detail)
"""


@needs_bubblewrap
@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user runs all of these tests")
@pytest.mark.usefixtures("bubblewrap")
def test_bubblewrap_for_an_ordinary_user():
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        copy_package(Path(directory))
        environment = {"PYTHONPATH": directory, "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [reachable_python(), "-c", AS_NOBODY],
            cwd="/",
            env=environment,
            capture_output=True,
            text=True,
            **as_nobody(),
        )
    assert done.stdout.splitlines() == [
        "passed ",
        "crashed FileNotFoundError: [Errno 2] No such file or directory: '/etc/passwd'",
        "crashed PermissionError: [Errno 1] Operation not permitted",
    ], done.stderr


@needs_bubblewrap
def test_a_container_that_dies_is_replaced(bubblewrap):
    for lane in bubblewrap._lanes:
        os.kill(lane.pid, signal.SIGKILL)
    assert verdicts(bubblewrap.run(PROGRAMS[0][1], SUM)) == ["passed", "passed"]


def test_without_bubblewrap_the_fix_is_said(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SandboxUnavailableError, match="bubblewrap is not installed here: install it"):
        open_runner("bubblewrap", 1)


def test_runners_are_opened_by_name():
    with open_runner("sandbox", 1) as runner:
        assert type(runner) is Executor
        assert verdicts(runner.run(PROGRAMS[0][1], SUM)) == ["passed", "passed"]


@pytest.mark.parametrize("name", ["docker", "", "sandbox,bubblewrap", "ftp://a", "http://a,b"])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match="runs no programs: choose sandbox, bubblewrap, or a service's URL"):
        check_name(name)


def test_urls_are_remote():
    assert is_remote("http://a:1")
    assert is_remote("https://a/run_code,http://b")
    assert not is_remote("sandbox")


class Slow:
    """A runner whose programs end when the test says so."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, str, Future[ProgramResult]]] = []

    def submit(self, program: str, problem: Problem) -> Future[ProgramResult]:
        future: Future[ProgramResult] = Future()
        self.runs.append((problem.id, program, future))
        return future


def done(verdict: Verdict) -> ProgramResult:
    return ProgramResult((TestResult(verdict),))


def test_equal_programs_run_once_while_they_run_and_after():
    slow = Slow()
    runs = RunOnce(slow)
    first, again = runs.submit("a", SUM), runs.submit("a", SUM)
    others = [runs.submit("b", SUM), runs.submit("a", DOUBLE)]
    assert again is first
    assert len({id(future) for future in (first, *others)}) == 3
    slow.runs[0][2].set_result(done(Verdict.WRONG))
    assert runs.submit("a", SUM) is first
    assert [run[:2] for run in slow.runs] == [("sum", "a"), ("sum", "b"), ("double", "a")]


def test_a_program_that_could_not_be_run_is_run_again():
    slow = Slow()
    runs = RunOnce(slow)
    runs.submit("a", SUM)
    slow.runs[0][2].set_result(done(Verdict.INFRASTRUCTURE_ERROR))
    again = runs.submit("a", SUM)
    slow.runs[1][2].set_result(done(Verdict.PASSED))
    assert again.result() == runs.submit("a", SUM).result() == done(Verdict.PASSED)
    assert len(slow.runs) == 2


def test_the_oldest_programs_are_forgotten(monkeypatch):
    monkeypatch.setattr(once, "KEPT", 2)
    slow = Slow()
    runs = RunOnce(slow)
    for program in ("a", "b", "a", "c", "a", "b"):
        runs.submit(program, SUM)
    assert [program for _, program, _ in slow.runs] == ["a", "b", "c", "b"]
