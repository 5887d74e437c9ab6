"""What running a program costs, against the two usual ways, and how much memory the service takes, in one run.

    python benchmarks/rewards.py

- **manager**: a ``multiprocessing.Manager`` with two lists and a ``Process`` a sample, which executes the program on
  all tests in one process, with nothing but a timeout around it; in workers that have loaded PyTorch, which is where
  trainers call their rewards (verl's ``prime_code``, and the graders of APPS and LiveCodeBench that it follows).
- **slim manager**: the same in workers that have loaded nothing, which fork faster.
- **fresh**: a fresh ``python`` a test, with pipes and a timeout.
- **executor**: ours; every test in a process of its own, locked down by all layers that this machine offers.

All use the same number of cores, and take turns within each round, so that other load slows down all of them. Programs
differ in one constant, so that nothing is run once for many. Memory is the private memory of the client (beyond what
it had before) and the proportional share of its servers; the programs themselves, which their own limits bound, are
given apart.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from openrlhf_maxk.problems.record import Limits, Problem, Test
from openrlhf_maxk.problems.verdict import Verdict
from openrlhf_maxk.rewards.execution.executor import Executor

MEBIBYTE = 2**20
PROGRAM = "a, b = map(int, input().split())\nfor _ in range({loops}): a + b\nprint(a + b + {number} * 0)\n"
INPUT, OUTPUT = "1 2\n", "3\n"
TARGETS = {("manager", 1): 8.0, ("fresh", 20): 10.0}  # how many times as fast as these the executor is to be
CORE_MILLISECONDS = 3.0  # of a core, at most, for a test beyond the program itself
BATCH_SECONDS = 3.0  # for 256 programs of 8 tests
MEMORY = 200 * MEBIBYTE  # of the service, at most


def calibrate(milliseconds: float) -> int:
    """How many turns of the program's loop make the whole program take so long on this machine."""
    loops, best = 2_000, float("inf")
    for _ in range(50):
        best = min(best, _seconds_in_process(PROGRAM.format(loops=loops, number=0)))
    short = min(_seconds_in_process(PROGRAM.format(loops=0, number=0)) for _ in range(50))
    return max(0, round(loops * (milliseconds / 1000 - short) / (best - short)))


def _seconds_in_process(source: str) -> float:
    code = compile(source, "<program>", "exec")
    start = time.process_time()
    sys.stdin = io.StringIO(INPUT)
    with contextlib.redirect_stdout(io.StringIO()):
        exec(code, {"__name__": "__main__"})
    sys.stdin = sys.__stdin__
    return time.process_time() - start


def programs(count: int, loops: int) -> list[str]:
    """Programs that take ``loops`` turns, all different."""
    return [PROGRAM.format(loops=loops, number=number) for number in range(count)]


# --- the usual ways ---------------------------------------------------------------------------------------------------


def _execute_in_process(results: list[bool], metadata: list[dict[str, str]], source: str, tests: int) -> None:
    for _ in range(tests):
        output = io.StringIO()
        sys.stdin = io.StringIO(INPUT)
        try:
            with contextlib.redirect_stdout(output):
                exec(compile(source, "<program>", "exec"), {"__name__": "__main__"})
            results.append(output.getvalue().split() == OUTPUT.split())
        except BaseException:
            results.append(False)
    metadata.append({})


def _with_manager(job: tuple[str, int]) -> bool:
    source, tests = job
    with multiprocessing.Manager() as manager:
        results, metadata = manager.list(), manager.list()
        process = multiprocessing.Process(target=_execute_in_process, args=(results, metadata, source, tests))
        process.start()
        process.join(timeout=10 * tests)
        if process.is_alive():
            process.kill()
        return list(results) == [True] * tests and len(metadata) == 1


def _with_fresh_python(job: tuple[str, int]) -> bool:
    source, tests = job
    for _ in range(tests):
        done = subprocess.run([sys.executable, "-c", source], input=INPUT, capture_output=True, text=True, timeout=10)
        if done.stdout.split() != OUTPUT.split():
            return False
    return True


# --- taking turns -----------------------------------------------------------------------------------------------------

Runner = Callable[[list[str], int], list[bool]]


@contextlib.contextmanager
def runners(cores: int) -> Iterator[dict[str, Runner]]:
    """The four ways, started and warm."""
    context = multiprocessing.get_context("fork")
    with (
        ProcessPoolExecutor(cores, mp_context=context) as slim,
        ProcessPoolExecutor(
            cores, mp_context=context, initializer=importlib.import_module, initargs=("torch",)
        ) as loaded,
        ThreadPoolExecutor(cores) as threads,
    ):
        for pool in (slim, loaded):  # these fork before we have threads
            list(pool.map(_with_manager, [(PROGRAM.format(loops=1, number=0), 1)] * cores))
        with Executor(cores=cores) as executor:

            def run(sources: list[str], tests: int) -> list[bool]:
                results = executor.run_many([(source, problem(tests)) for source in sources])
                return [result.all_passed == 1.0 for result in results]

            run(programs(4 * cores, 1), 1)
            yield {
                "executor": run,
                "manager": lambda sources, tests: list(loaded.map(_with_manager, [(s, tests) for s in sources])),
                "slim manager": lambda sources, tests: list(slim.map(_with_manager, [(s, tests) for s in sources])),
                "fresh": lambda sources, tests: list(threads.map(_with_fresh_python, [(s, tests) for s in sources])),
            }


def problem(tests: int, identifier: str = "benchmark", **limits: float) -> Problem:
    return Problem(identifier, "", (Test(INPUT, OUTPUT),) * tests, limits=Limits(**{"cpu_seconds": 4.0, **limits}))


def seconds(run: Runner, sources: list[str], tests: int) -> float:
    start = time.perf_counter()
    right = run(sources, tests)
    taken = time.perf_counter() - start
    if not all(right):
        raise RuntimeError(f"{right.count(False)} of {len(right)} right programs did not pass")
    return taken


def compare(cores: int, count: int, tests: int, rounds: int, loops: int) -> dict[str, list[float]]:
    """Seconds a test in each round, by way."""
    with runners(cores) as ways:
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, run in ways.items():
                share = count if name == "executor" else max(cores, count // 8)  # they are slow: fewer will do
                taken[name].append(seconds(run, programs(share, loops), tests) / (share * tests))
    return taken


def show_comparison(cores: int, count: int, tests: int, rounds: int, loops: int) -> bool:
    taken = compare(cores, count, tests, rounds, loops)
    print(f"\nprograms of 1 ms, {tests} test{'s' * (tests > 1)} each, {cores} cores: ms a test, wall time")
    reached = True
    for name, values in taken.items():
        ratios = [theirs / ours for theirs, ours in zip(values, taken["executor"], strict=True)]
        target = TARGETS.get((name, tests))
        line = f"  {name:12} {1000 * statistics.median(values):8.2f}"
        if name != "executor":
            line += f"   {statistics.median(ratios):5.1f} times ours"
        if target:
            good = statistics.median(ratios) >= target
            reached &= good
            line += f"   (target {target:g}: {'reached' if good else 'MISSED'})"
        print(line)
    return reached


# --- cost of a core ---------------------------------------------------------------------------------------------------


def core_seconds() -> float:
    """CPU time of this process and of all that have ended below it."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def cost_of_a_core(cores: int, count: int, tests: int, source: str) -> tuple[float, float]:
    """Seconds of a core for a test of ``source``, all counted (client, servers, programs), and wall seconds in all."""
    before = core_seconds()
    with Executor(cores=cores):
        pass
    starting = core_seconds() - before
    pairs = [(f"{source}# {number}\n", problem(tests)) for number in range(count)]
    before = core_seconds()
    with Executor(cores=cores) as executor:
        start = time.perf_counter()
        results = executor.run_many(pairs)
        wall = time.perf_counter() - start
    if not all(result.all_passed == 1.0 for result in results):
        raise RuntimeError("right programs did not pass")
    return (core_seconds() - before - starting) / (count * tests), wall


def show_cost(cores: int) -> bool:
    source = "a, b = map(int, input().split())\nprint(a + b)\n"
    program = min(_seconds_in_process(source) for _ in range(50))
    best_cost, best_wall = float("inf"), float("inf")
    for _ in range(3):
        cost, wall = cost_of_a_core(cores, 256, 8, source)
        best_cost, best_wall = min(best_cost, cost - program), min(best_wall, wall)
    good = best_cost * 1000 <= CORE_MILLISECONDS and best_wall <= BATCH_SECONDS
    print(
        f"\n256 programs of 8 tests, {cores} cores: {best_wall:.2f} s (target {BATCH_SECONDS:g}); a process of its own "
        f"for every test costs\n{1000 * best_cost:.2f} ms of a core over the program itself "
        f"(target {CORE_MILLISECONDS:g}): {'reached' if good else 'MISSED'}"
    )
    return good


# --- memory -----------------------------------------------------------------------------------------------------------


@dataclass
class Memory:
    """Peaks, in bytes, while a batch ran."""

    service: int = 0
    programs: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)


def _share(process: int) -> int:
    """Proportional set size: pages that several processes share count in parts."""
    try:
        with open(f"/proc/{process}/smaps_rollup", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("Pss:")) * 1024
    except (OSError, StopIteration):
        return 0


def _private() -> int:
    with open("/proc/self/smaps_rollup", encoding="ascii") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Private_")) * 1024


def _children(process: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


def _is_first(process: int) -> bool:
    """Whether a process is the first of its pid namespace, as a server is."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False
    return next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[-1] == "1"


@contextlib.contextmanager
def watched(executor: Executor) -> Iterator[Memory]:
    """Look at the memory of the service all the time."""
    memory, before = Memory(), _private()

    def look() -> None:
        while not memory._stop.wait(0.02):
            outer = [lane.pid for lane in executor._lanes if lane.pid is not None]
            inner = [child for process in outer for child in _children(process) if _is_first(child)]
            running = [child for process in inner or outer for child in _children(process)]
            service = _private() - before + sum(map(_share, outer + inner))
            memory.service = max(memory.service, service)
            memory.programs = max(memory.programs, sum(map(_share, running)))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield memory
    finally:
        memory._stop.set()
        thread.join()


def show_memory(cores: int, sleepers: int) -> bool:
    burdens: list[tuple[str, int, str, Verdict]] = [
        ("100 MB of output", 50, "import os\nwhile True: os.write(1, b'x' * 10**8)  # {}", Verdict.TOO_MUCH_OUTPUT),
        ("100 MB of errors", 50, "import os\nwhile True: os.write(2, b'x' * 10**8)  # {}", Verdict.TOO_MUCH_OUTPUT),
        ("10 GB at once", 200, "x = bytearray(10 * 2**30)  # {}", Verdict.OUT_OF_MEMORY),
        ("10 GB in parts", 20, "x = []\nwhile True: x.append(bytearray(2**24))  # {}", Verdict.OUT_OF_MEMORY),
        ("sleeping", sleepers, "import time\ntime.sleep(1000)  # {}", Verdict.WALL_TIMEOUT),
    ]
    print(f"\nmemory of the service, {cores} cores (target {MEMORY // MEBIBYTE} MiB), and what is left of its speed")
    reached = True
    with Executor(cores=cores) as executor:
        probe = [(source, problem(1)) for source in programs(400, 1)]
        for name, count, source, verdict in burdens:
            limits = {"cpu_seconds": 0.25} if verdict is Verdict.WALL_TIMEOUT else {"cpu_seconds": 10.0}
            pairs = [(source.format(number), problem(1, **limits)) for number in range(count)]
            before = _speed(executor, probe)
            with watched(executor) as memory:
                start = time.perf_counter()
                results = executor.run_many(pairs)
                taken = time.perf_counter() - start
            after = _speed(executor, probe)
            wrong = [result.tests[0] for result in results if result.tests[0].verdict is not verdict]
            good = memory.service <= MEMORY and not wrong
            reached &= good
            print(
                f"  {count:5} programs, {name:17} {memory.service / MEBIBYTE:6.0f} MiB   (programs "
                f"{memory.programs / MEBIBYTE:5.0f} MiB, {taken:6.1f} s, then {after / before:4.0%} of the speed)"
                f"   {'reached' if good else f'MISSED {wrong[:1]}'}"
            )
    return reached


def _speed(executor: Executor, pairs: Sequence[tuple[str, Problem]]) -> float:
    """Small programs a second, the best of a few batches."""
    best = 0.0
    for _ in range(5):
        start = time.perf_counter()
        executor.run_many(pairs)
        best = max(best, len(pairs) / (time.perf_counter() - start))
    return best


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", type=int, default=min(2, len(os.sched_getaffinity(0))))
    parser.add_argument("--programs", type=int, default=400, help="in a batch of the comparison")
    parser.add_argument("--rounds", type=int, default=5, help="of the comparison")
    parser.add_argument("--sleepers", type=int, default=1000, help="programs that sleep until they are ended")
    options = parser.parse_args()
    loops = calibrate(1.0)
    reached = [
        show_comparison(options.cores, options.programs, 1, options.rounds, loops),
        show_comparison(options.cores, max(options.cores, options.programs // 10), 20, options.rounds, loops),
        show_cost(options.cores),
        show_memory(options.cores, options.sleepers),
    ]
    return 0 if all(reached) else 1


if __name__ == "__main__":
    sys.exit(main())
