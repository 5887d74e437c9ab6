"""When the machinery fails: servers and children killed, machines that protect too little, load, fuzzing."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from openrlhf_maxk.problems.record import Limits, Mode, Problem, Test
from openrlhf_maxk.problems.verdict import Verdict
from openrlhf_maxk.rewards.execution import lanes as starting
from openrlhf_maxk.rewards.execution.executor import Executor
from openrlhf_maxk.rewards.execution.runner import SandboxUnavailableError
from openrlhf_maxk.rewards.judging import jobs
from openrlhf_maxk.rewards.sandbox import lane as lanes
from openrlhf_maxk.rewards.sandbox.protocol import LAYERS

from ..places import REPOSITORY
from ..traces import sandbox_processes

RIGHT = "print(sum(map(int, input().split())))"
ADD = Problem(id="add", statement="", tests=(Test("1 2\n", "3\n"),) * 4, limits=Limits(cpu_seconds=2.0))
SLOWLY = "import time\nt = time.process_time()\nwhile time.process_time() < t + 0.3: pass\n" + RIGHT
WITHOUT_NAMESPACES = [layer for layer in LAYERS if layer != "namespaces"]
LAYERINGS = pytest.mark.parametrize("layers", [list(LAYERS), WITHOUT_NAMESPACES], ids=["all", "no_namespaces"])


def servers(executor: Executor) -> list[int]:
    return [lane.pid for lane in executor._lanes if lane.pid is not None]


def wait_until_running(executor: Executor, more_than: set[int]) -> set[int]:
    """The processes of programs that are running now."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        running = sandbox_processes(servers(executor)) - more_than
        if running:
            return running
        time.sleep(0.005)
    raise AssertionError("nothing runs")


@LAYERINGS
class TestKilled:
    def test_server(self, layers: list[str]) -> None:
        with Executor(cores=1, layers=layers) as executor:
            before = sandbox_processes(servers(executor))
            future = executor.submit(SLOWLY, ADD)
            wait_until_running(executor, before)
            os.kill(servers(executor)[0], signal.SIGKILL)
            assert future.result().all_passed == 1.0
            assert not sandbox_processes(servers(executor)) & before, "what the dead server ran survives"

    def test_inner_server(self, layers: list[str]) -> None:
        with Executor(cores=1, layers=layers) as executor:
            before = sandbox_processes(servers(executor))
            future = executor.submit(SLOWLY, ADD)
            wait_until_running(executor, before)
            os.kill(max(before), signal.SIGKILL)
            assert future.result().all_passed == 1.0

    def test_idle_server(self, layers: list[str]) -> None:
        with Executor(cores=1, layers=layers) as executor:
            for _ in range(3):
                os.kill(servers(executor)[0], signal.SIGKILL)
                assert executor.run(RIGHT, ADD).all_passed == 1.0

    def test_stopped_for_a_moment(self, layers: list[str]) -> None:
        """As by a debugger or a batch system: that interrupts what the server waits in, and ends nothing."""
        with Executor(cores=1, layers=layers) as executor:
            before = sandbox_processes(servers(executor))
            future = executor.submit(SLOWLY, replace(ADD, tests=ADD.tests[:1]))
            wait_until_running(executor, before)
            for sent in (signal.SIGSTOP, signal.SIGCONT):
                for process in before:
                    os.kill(process, sent)
            assert future.result().all_passed == 1.0
            assert sandbox_processes(servers(executor)) == before, "another server was started"

    def test_program(self, layers: list[str]) -> None:
        """As the kernel does when the machine runs out of memory."""
        with Executor(cores=1, layers=layers) as executor:
            before = sandbox_processes(servers(executor))
            future = executor.submit(SLOWLY, replace(ADD, tests=ADD.tests[:1]))
            for process in wait_until_running(executor, before):
                os.kill(process, signal.SIGKILL)
            assert future.result().all_passed == 1.0

    def test_client(self, layers: list[str]) -> None:
        source = (
            "import sys, json\nfrom openrlhf_maxk.rewards.execution.executor import Executor\n"
            "from openrlhf_maxk.problems.record import Problem, Test, Limits\n"
            f"executor = Executor(cores=2, layers={layers!r})\n"
            "print(json.dumps([lane.pid for lane in executor._lanes]), flush=True)\n"
            "executor.run('while True: pass', Problem('p', '', (Test('', ''),) * 2, limits=Limits(cpu_seconds=1000)))\n"
        )
        client = subprocess.Popen(
            [sys.executable, "-c", source], stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(REPOSITORY)}
        )
        assert client.stdout is not None
        lanes_ = [int(word) for word in client.stdout.readline().strip("[]\n").split(",")]
        time.sleep(0.5)
        everything = sandbox_processes(lanes_)
        assert len(everything) >= 4
        client.kill()
        client.communicate()
        deadline = time.monotonic() + 20
        while any(alive(process) for process in everything) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not [process for process in everything if alive(process)]


def alive(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] != b"Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class TestClosing:
    def test_nothing_is_left(self) -> None:
        descriptors = set(os.listdir("/proc/self/fd"))
        with Executor(cores=2) as executor:
            executor.run(RIGHT, ADD)
            everything = sandbox_processes(servers(executor))
        assert not [process for process in everything if alive(process)]
        assert set(os.listdir("/proc/self/fd")) == descriptors

    def test_descriptors_do_not_pile_up(self) -> None:
        with Executor(cores=1) as executor:
            executor.run(RIGHT, ADD)
            descriptors = set(os.listdir("/proc/self/fd"))
            for source in (RIGHT, "while True: print(1)", "1 / 0", "("):
                executor.run(source, ADD)
            os.kill(servers(executor)[0], signal.SIGKILL)
            executor.run(RIGHT, ADD)
            assert len(os.listdir("/proc/self/fd")) == len(descriptors)


class TestFailingMachinery:
    def test_server_that_cannot_start(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lanes.sys, "executable", "/bin/false")
        with pytest.raises(SandboxUnavailableError, match="did not start"):
            Executor(cores=2)

    def test_server_that_cannot_be_replaced_is_an_infrastructure_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with Executor(cores=1) as executor:
            monkeypatch.setattr(lanes.sys, "executable", "/bin/false")
            everything = sandbox_processes(servers(executor))
            os.kill(servers(executor)[0], signal.SIGKILL)
            while any(alive(process) for process in everything):
                time.sleep(0.01)  # the inner server dies just after the outer one
            result = executor.run(RIGHT, ADD)
            assert {test.verdict for test in result.tests} == {Verdict.INFRASTRUCTURE_ERROR}
            assert "did not start" in result.tests[0].detail
            assert result.fraction is None
            monkeypatch.undo()
            assert executor.run(RIGHT, ADD).all_passed == 1.0

    @pytest.mark.parametrize(
        "step", ["landlock_restrict_self", "seccomp_filter", "drop_capabilities", "die_with_parent"]
    )
    def test_lock_down_that_fails_is_an_infrastructure_error(
        self, step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A module that the server imports breaks one step of the lock-down: the program must not run without it."""
        (tmp_path / "saboteur.py").write_text(
            "import sys\n"
            "calls = sys.modules['sandbox.confinement.syscalls']\n"
            f"calls.{step} = lambda *arguments: calls.prepared('close', -1)\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        with Executor(cores=1, modules=["saboteur"]) as executor:
            result = executor.run(RIGHT, ADD)
            assert {test.verdict for test in result.tests} == {Verdict.INFRASTRUCTURE_ERROR}
            assert "could not be locked down: OSError: [Errno 9] close: Bad file descriptor" in result.tests[0].detail
            assert result.fraction is None

    @pytest.mark.parametrize("layers", [[], ["landlock"], ["seccomp"], ["uid_drop", "landlock"]])
    def test_too_little_protection_is_refused(self, layers: list[str]) -> None:
        with pytest.raises(SandboxUnavailableError, match="switched off"):
            Executor(cores=1, layers=layers)

    def test_a_warm_up_is_run_once_before_all_programs(self) -> None:
        warm_up = "import json\njson.warm = getattr(json, 'warm', 0) + 1"
        with Executor(cores=1, warm_up=warm_up) as executor:
            tests = executor.run("import json\nprint(json.warm)\njson.warm = 7", ADD).tests
            assert [test.output for test in tests] == [b"1\n"] * len(ADD.tests)

    def test_a_warm_up_that_fails_is_told(self) -> None:
        with pytest.raises(SandboxUnavailableError, match="ZeroDivisionError"):
            Executor(cores=1, warm_up="1 / 0")

    def test_a_machine_on_which_right_programs_fail_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A ``cp --preserve`` onto /dev/null by root leaves it read-only to every program."""
        null = tmp_path / "null"
        null.touch()
        null.chmod(0o644)
        monkeypatch.setattr(starting, "NULL", str(null))
        with pytest.raises(SandboxUnavailableError, match=rf"its mode is 644\. `chmod 666 {null}` mends it"):
            Executor(cores=1)
        null.chmod(0o666)
        Executor(cores=1).close()

    @pytest.mark.parametrize("layers", [[], ["landlock"]])
    def test_unless_it_is_asked_for(self, layers: list[str]) -> None:
        with Executor(cores=1, layers=layers, unsafe=True) as executor:
            assert executor.run(RIGHT, ADD).all_passed == 1.0
            assert executor.missing["seccomp"] == "switched off"

    def test_too_many_open_files_is_an_infrastructure_error(self) -> None:
        with Executor(cores=1) as executor:
            held: list[int] = []
            try:
                while True:
                    held.append(os.dup(0))
            except OSError:
                pass
            try:
                result = executor.run(RIGHT, ADD)
            finally:
                for descriptor in held:
                    os.close(descriptor)
            assert {test.verdict for test in result.tests} == {Verdict.INFRASTRUCTURE_ERROR}
            assert executor.run(RIGHT, ADD).all_passed == 1.0


@contextmanager
def load(processes: int) -> Iterator[None]:
    """So many other processes that want a core."""
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=_spin, daemon=True) for _ in range(processes)]
    for other in others:
        other.start()
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.join()


def _spin() -> None:
    while True:
        pass


@pytest.mark.slow
def test_verdicts_do_not_depend_on_load() -> None:
    limits = Limits(cpu_seconds=1.0)
    problem = replace(ADD, tests=ADD.tests[:1], limits=limits)
    burn = "import time\nt = time.process_time()\nwhile time.process_time() < t + {}: pass\n" + RIGHT
    programs = {
        burn.format(0.6): Verdict.PASSED,
        burn.format(1.3): Verdict.CPU_TIMEOUT,
        "import time\ntime.sleep(0.4)\n" + RIGHT: Verdict.PASSED,
        "import time\ntime.sleep(1.5)\n" + RIGHT: Verdict.WALL_TIMEOUT,
        "print('x' * 500000)": Verdict.WRONG,
        "print('x' * 5000000)": Verdict.TOO_MUCH_OUTPUT,
        "import threading\nt = threading.Thread(target=lambda: sum(range(3 * 10**6)))\nt.start()\nt.join()\n"
        + RIGHT: Verdict.PASSED,
        "a = [0] * 10**9": Verdict.OUT_OF_MEMORY,
    }
    cores = len(os.sched_getaffinity(0))
    for others in (0, 8 * cores):
        with load(others), Executor(cores=cores) as executor:
            for _ in range(5):
                results = executor.run_many([(program, problem) for program in programs])
                assert [result.tests[0].verdict for result in results] == list(programs.values())


CLIENT = """
from openrlhf_maxk.problems.record import Limits, Problem, Test
from openrlhf_maxk.rewards.execution import lanes as starting
from openrlhf_maxk.rewards.execution.executor import Executor

limits = Limits(cpu_seconds=0.25)
problem = Problem("echo", "", (Test("x" * 150_000, "x" * 150_000),), limits=limits)
with Executor(cores=1) as executor:
    print("started", flush=True)
    (test,) = executor.run("import sys\\nprint(sys.stdin.read())", problem).tests
    print(test.verdict, test.detail, flush=True)
"""


@pytest.mark.slow
def test_a_client_that_is_kept_from_its_work_changes_no_verdict() -> None:
    """The client is stopped for longer than the idle limit, again and again, between two pipes full of data."""
    client = subprocess.Popen([sys.executable, "-c", CLIENT], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    assert client.stdout is not None
    assert client.stdout.readline() == "started\n"
    stopped = 0
    while client.poll() is None:
        client.send_signal(signal.SIGSTOP)
        time.sleep(0.3)
        client.send_signal(signal.SIGCONT)
        time.sleep(0.0005)
        stopped += 1
    assert client.stdout.read() == "passed \n"
    assert stopped > 3, "it was never kept waiting"


@pytest.mark.parametrize(
    ("program", "stdin"), [("", "x" * 10**6), ("print('x' * 300_000, flush=True)\n", ""), ("input()\n", "x\n" * 10**6)]
)
def test_a_sleeper_is_not_taken_for_one_that_waits_for_us(program: str, stdin: str) -> None:
    limits = Limits(cpu_seconds=0.25)
    with Executor(cores=1) as executor:
        (test,) = executor.run(
            program + "import time\ntime.sleep(60)", Problem("s", "", (Test(stdin, ""),), limits=limits)
        ).tests
    assert test.verdict is Verdict.WALL_TIMEOUT


def fuzzed_text(chooser: random.Random) -> str:
    ranges = (128, 0x2000, 0x110000)
    return "".join(chr(chooser.randrange(chooser.choice(ranges))) for _ in range(chooser.randrange(20)))


def fuzzed_problem(chooser: random.Random, number: int) -> Problem:
    """A problem record of random parts, some of them nonsense."""
    pieces = ["[1, 2]", "3", "assert f(1) == 1", "[", "", "1 2", "null", '{"int": "zz"}', fuzzed_text(chooser)]
    return Problem(
        id=f"fuzz/{number}",
        statement="",
        tests=tuple(Test(chooser.choice(pieces), chooser.choice(pieces)) for _ in range(chooser.randrange(3))),
        mode=chooser.choice(list(Mode)),
        entry_point=chooser.choice([None, "f", "Solution.f", "a.b.c", "", fuzzed_text(chooser)]),
        setup_code=chooser.choice(["", "import math", "(", fuzzed_text(chooser)]),
        limits=Limits(0.2, 2**28, chooser.choice([0, 10, 2**16])),
    )


def fuzzed_program(chooser: random.Random) -> str:
    kind = chooser.randrange(4)
    if kind == 0:
        return bytes(chooser.randrange(256) for _ in range(chooser.randrange(60))).decode("latin-1")
    if kind == 1:
        return bytes(chooser.randrange(256) for _ in range(chooser.randrange(60))).decode("utf-8", "surrogateescape")
    words = [
        "print",
        "(",
        ")",
        "f",
        "=",
        "1",
        "\n",
        " ",
        "def ",
        ":",
        "input",
        "lambda",
        "[",
        "]",
        "*",
        "x",
        "import os",
    ]
    source = "".join(chooser.choice(words) for _ in range(chooser.randrange(30)))
    return source if kind == 2 else f"def f(*a):\n    return {source or 1}\n"


def fuzz(count: int, seed: int) -> None:
    """Random programs on random problems: a verdict for each that is not the machinery's, or an error with the id."""
    chooser = random.Random(seed)
    pairs, refused = [], 0
    with Executor(cores=len(os.sched_getaffinity(0))) as executor:
        before = servers(executor)
        for number in range(count):
            program, problem = fuzzed_program(chooser), fuzzed_problem(chooser, number)
            try:
                jobs.prepare(problem)
            except ValueError:
                refused += 1
                with pytest.raises(ValueError, match=f"{problem.id}'"):
                    executor.submit(program, problem)
            else:
                pairs.append((program, problem, executor.submit(program, problem)))
        for program, problem, future in pairs:
            for test in future.result().tests:
                assert test.verdict is not Verdict.INFRASTRUCTURE_ERROR, (program, problem, test)
        assert servers(executor) == before
    assert refused
    assert pairs


def test_fuzz() -> None:
    fuzz(600, seed=1)


@pytest.mark.slow
def test_fuzz_longer() -> None:
    fuzz(100_000, seed=2)


def test_random_outputs_pass_only_if_they_are_right() -> None:
    chooser = random.Random(3)
    alphabet = b"0123456789. \n-e+\0\xff\t"
    pairs = []
    for _ in range(300):
        output = bytes(chooser.choice(alphabet) for _ in range(chooser.randrange(6)))
        source = f"import os\nos.write(1, {output!r})"
        pairs.append((source, replace(ADD, id=str(len(pairs)), tests=(Test("", "3"),)), output.split() == [b"3"]))
    pairs.append(("print(3)", replace(ADD, id="right", tests=(Test("", "3"),)), True))
    with Executor(cores=2) as executor:
        results = executor.run_many([(source, problem) for source, problem, _ in pairs])
    assert [result.all_passed == 1.0 for result in results] == [right for _, _, right in pairs]


def test_threads_may_close_while_others_wait() -> None:
    executor = Executor(cores=1)
    waiting = threading.Thread(target=executor.run, args=(SLOWLY, ADD))
    waiting.start()
    time.sleep(0.1)
    executor.close()
    waiting.join(30)
    assert not waiting.is_alive()
