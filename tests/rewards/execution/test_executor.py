"""The executor: verdicts of each mode, order, limits, and what it does with malformed problems."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from openrlhf_maxk.problems.record import Comparison, Judge, Limits, Mode, Problem, Test
from openrlhf_maxk.problems.verdict import ProgramResult, Verdict
from openrlhf_maxk.rewards.execution.executor import Executor
from openrlhf_maxk.rewards.judging import jobs
from openrlhf_maxk.rewards.sandbox.lane import Job

PASSED, WRONG, CRASHED = Verdict.PASSED, Verdict.WRONG, Verdict.CRASHED
ADD = Problem(
    id="add", statement="", tests=(Test("1 2\n", "3\n"), Test("4 5\n", "9\n")), limits=Limits(cpu_seconds=1.0)
)
RIGHT = "print(sum(map(int, input().split())))"


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with Executor(cores=2) as executor:
        yield executor


def verdicts(result: ProgramResult) -> list[Verdict]:
    return [test.verdict for test in result.tests]


def stdin(*tests: tuple[str, str], **fields: object) -> Problem:
    return replace(ADD, tests=tuple(Test(*test) for test in tests), **fields)


def function(entry_point: str, *tests: tuple[object, object], **fields: object) -> Problem:
    pairs = tuple(Test(json.dumps(arguments), json.dumps(value)) for arguments, value in tests)
    return replace(ADD, mode=Mode.FUNCTION, entry_point=entry_point, tests=pairs, **fields)


def asserts(*tests: str, **fields: object) -> Problem:
    return replace(ADD, mode=Mode.ASSERTS, tests=tuple(Test(test) for test in tests), **fields)


class TestStandardInput:
    def test_every_test_is_scored(self, executor: Executor) -> None:
        problem = stdin(("1 2", "3"), ("0 0", "1"), ("2 2", "4"), ("x", "5"), ("1 1", "2"))
        result = executor.run(RIGHT, problem)
        assert verdicts(result) == [PASSED, WRONG, PASSED, CRASHED, PASSED]
        assert result.fraction == 3 / 5
        assert result.all_passed == 0.0

    def test_details_say_what_went_wrong(self, executor: Executor) -> None:
        result = executor.run(RIGHT, stdin(("1 2", "4"), ("x", "5")))
        assert "expected '4', got '3'" in result.tests[0].detail
        assert "ValueError: invalid literal" in result.tests[1].detail
        assert result.tests[0].output == b"3\n"
        assert 0 < result.tests[0].cpu_seconds < 1

    def test_traceback_starts_in_the_program(self, executor: Executor) -> None:
        source = "import sys, traceback\ntry:\n    1 / 0\nexcept Exception:\n    traceback.print_exc(file=sys.stdout)"
        (test,) = executor.run(source, stdin(("", ""))).tests
        assert b'File "<program>", line 3' in test.output
        assert b"sandbox" not in test.output

    def test_main_guard_and_arguments(self, executor: Executor) -> None:
        source = "import sys\nif __name__ == '__main__':\n    print(len(sys.argv), __name__)"
        assert verdicts(executor.run(source, stdin(("", "1 __main__")))) == [PASSED]

    def test_classes_of_the_program_can_be_pickled(self, executor: Executor) -> None:
        source = "import pickle\nclass A: x = 3\nprint(pickle.loads(pickle.dumps(A)).x)"
        assert verdicts(executor.run(source, stdin(("", "3")))) == [PASSED]

    def test_future_statement(self, executor: Executor) -> None:
        source = "from __future__ import annotations\ndef f(x: Undefined): return x\nprint(f(3))"
        assert verdicts(executor.run(source, stdin(("", "3")))) == [PASSED]

    def test_annotations_are_evaluated_without_it(self, executor: Executor) -> None:
        assert verdicts(executor.run("def f(x: Undefined): pass", stdin(("", "")))) == [CRASHED]

    @pytest.mark.parametrize("size", [0, 1, 2**16, 2**16 + 1, 10**7])
    def test_input_of_any_size_goes_in_and_comes_out(self, executor: Executor, size: int) -> None:
        text = "x" * size
        problem = stdin((text, text), limits=Limits(output_bytes=max(size, 1)), judge=Judge(Comparison.EXACT))
        source = "import sys\nsys.stdout.write(sys.stdin.read())"
        assert verdicts(executor.run(source, problem)) == [PASSED]

    def test_input_that_is_never_read(self, executor: Executor) -> None:
        assert verdicts(executor.run("print(3)", stdin(("x" * 10**7, "3")))) == [PASSED]

    def test_output_of_exactly_the_cap(self, executor: Executor) -> None:
        for size, verdict in ((100_000, PASSED), (100_001, Verdict.TOO_MUCH_OUTPUT)):
            limits = Limits(cpu_seconds=1.0, output_bytes=100_000)
            problem = stdin(("", "x" * size), limits=limits)
            assert verdicts(executor.run(f"print('x' * {size}, end='')", problem)) == [verdict]

    def test_full_pipes_on_both_sides(self, executor: Executor) -> None:
        source = (
            "import sys\nfor line in sys.stdin:\n    print(line, end='', flush=True)\n    print(line, file=sys.stderr)"
        )
        text = ("y" * 99 + "\n") * 5000
        assert verdicts(executor.run(source, stdin((text, text)))) == [PASSED]

    def test_a_million_prints(self, executor: Executor) -> None:
        limits = Limits(cpu_seconds=20.0, output_bytes=2**22)
        problem = stdin(("", "1\n" * 10**6), limits=limits)
        assert verdicts(executor.run("for _ in range(10**6): print(1)", problem)) == [PASSED]

    def test_giant_integers_are_exact(self, executor: Executor) -> None:
        value = 7**20_000
        for shift, verdict in ((0, PASSED), (1, WRONG)):
            problem = stdin(("", _decimal(value)), judge=Judge(Comparison.NUMERIC))
            assert verdicts(executor.run(f"print(7 ** 20000 + {shift})", problem)) == [verdict]

    def test_crash_on_empty_expected_output_is_no_pass(self, executor: Executor) -> None:
        assert verdicts(executor.run("raise ValueError", stdin(("", "")))) == [CRASHED]

    def test_repeatable_sets_and_random_numbers(self, executor: Executor) -> None:
        source = "import random\nprint(random.random(), *{str(i) for i in range(50)})"
        outputs = {executor.run(source, stdin(("", ""))).tests[0].output for _ in range(6)}
        assert len(outputs) == 1

    def test_completion_of_a_given_beginning(self, executor: Executor) -> None:
        problem = replace(ADD, program_prefix="a, b = map(int, input().split())")
        assert verdicts(executor.run("print(a + b)", problem)) == [PASSED, PASSED]


def _decimal(value: int) -> str:
    """Decimal digits, without the interpreter's limit on their number."""
    high, low = divmod(value, 10**4000)
    return str(low) if not high else _decimal(high) + f"{low:04000d}"


class TestFunctions:
    def test_function_and_method(self, executor: Executor) -> None:
        tests = (([1, 2], 3), ([2, 2], 5))
        assert verdicts(executor.run("def add(a, b): return a + b", function("add", *tests))) == [PASSED, WRONG]
        source = "class Solution:\n    def add(self, a, b): return a + b"
        assert verdicts(executor.run(source, function("Solution.add", *tests))) == [PASSED, WRONG]

    def test_tuples_and_keys_are_compared_as_json(self, executor: Executor) -> None:
        problem = function("f", ([], [[1, 2], {"1": None}]))
        assert verdicts(executor.run("def f(): return ((1, 2), {1: None})", problem)) == [PASSED]

    def test_prints_and_demos_do_not_matter(self, executor: Executor) -> None:
        source = "print('hello')\ndef f(): print(4); return 3\nif __name__ == '__main__': input()"
        assert verdicts(executor.run(source, function("f", ([], 3)))) == [PASSED]

    def test_setup_code_comes_first(self, executor: Executor) -> None:
        problem = function("f", ([[3]], 3), setup_code="from typing import List\nK = 0")
        assert verdicts(executor.run("def f(x: List[int]): return x[0] + K", problem)) == [PASSED]

    @pytest.mark.parametrize(
        "source",
        [
            "",
            "f = 3",
            "def f(): raise ValueError",
            "def f(x): return 3",
            "def f(): exit()",
            "def f(): raise SystemExit(0)",
            "import os\ndef f(): os._exit(0)",
            "import sys\nsys.exit(0)",
            "def f():\n  x = []\n  x.append(x)\n  return x",
        ],
    )
    def test_what_does_not_return_has_crashed(self, executor: Executor, source: str) -> None:
        assert verdicts(executor.run(source, function("f", ([], 3)))) == [CRASHED]

    @pytest.mark.parametrize(
        "source",
        [
            "def f(): return None",
            "def f(): return '3'",
            "def f(): return [3]",
            "def f(): return {3}",
            "def f(): return len",
            "class A:\n    def __eq__(self, other): return True\ndef f(): return A()",
            "class A(int):\n    def __eq__(self, other): return True\ndef f(): return A(4)",
            "def f(): yield 3",
        ],
    )
    def test_other_values_are_wrong(self, executor: Executor, source: str) -> None:
        assert verdicts(executor.run(source, function("f", ([], 3)))) == [WRONG]

    def test_tolerance(self, executor: Executor) -> None:
        problem = function("f", ([], [1.0]), judge=Judge(Comparison.NUMERIC))
        assert verdicts(executor.run("def f(): return [1.0000001]", problem)) == [PASSED]
        assert verdicts(executor.run("def f(): return [1.0000001]", replace(problem, judge=Judge()))) == [WRONG]

    def test_huge_results(self, executor: Executor) -> None:
        problem = replace(function("f", ([], 3)), limits=Limits(cpu_seconds=10.0))
        assert verdicts(executor.run("def f(): return [0] * 10**6", problem)) == [Verdict.TOO_MUCH_OUTPUT]
        assert verdicts(executor.run("def f(): return 1 << 10**6", problem)) == [WRONG]

    @pytest.mark.parametrize(
        "line",
        [
            "print(3)",
            "os.write(6, b'3\\n')",
            "os.write(6, b'{\"done\": true}\\n')",
            "os.write(6, b'0' * 32 + b' 3\\n' + b'0' * 32 + b' {\"done\": true}\\n')",
        ],
    )
    def test_writing_to_the_result_channel_without_the_nonce(self, executor: Executor, line: str) -> None:
        source = f"import os\ndef f():\n    {line}\n    os._exit(0)"
        assert verdicts(executor.run(source, function("f", ([], 3)))) == [CRASHED]


class TestAsserts:
    TESTS = (
        "assert f(2) == 4",
        "assert f(3) == 9, 'message'",
        "import math\nassert math.isclose(f(0.5), 0.25)",
        "for i in range(3):\n    assert f(i) == i * i",
        "assert f(1) and not f(0)",
    )

    def test_each_test_by_itself(self, executor: Executor) -> None:
        assert verdicts(executor.run("def f(x): return x * x", asserts(*self.TESTS))) == [PASSED] * 5
        assert verdicts(executor.run("def f(x): return x + x", asserts(*self.TESTS))) == [PASSED] + [WRONG] * 3 + [
            PASSED
        ]
        assert verdicts(executor.run("def f(x): return y", asserts(*self.TESTS))) == [CRASHED] * 5

    @pytest.mark.parametrize(
        "source",
        [
            "import os\nos._exit(0)",
            "import sys\nsys.exit(0)",
            "raise SystemExit(0)",
            "import os\ndef f(x): os._exit(0)",
            "def f(x): raise SystemExit(0)",
            "import atexit, os\natexit.register(os._exit, 0)\ndef f(x): exit()",
            "import os, threading\nthreading.Timer(0, os._exit, (0,)).start()\ndef f(x):\n    while True: pass",
            "import sys\nsys.excepthook = lambda *a: __import__('os')._exit(0)",
            "import builtins\nbuiltins.AssertionError = KeyError\nimport os\nos._exit(0)",
        ],
    )
    def test_leaving_early_passes_nothing(self, executor: Executor, source: str) -> None:
        assert set(verdicts(executor.run(source, asserts(*self.TESTS)))) == {CRASHED}

    def test_equal_to_everything_passes_no_comparison_with_a_literal(self, executor: Executor) -> None:
        source = "class A:\n    def __eq__(self, other): return True\ndef f(x): return A()"
        assert verdicts(executor.run(source, asserts(*self.TESTS[:2]))) == [WRONG, WRONG]

    CHECK = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(3) == 9\n\ncheck(f)"

    @pytest.mark.parametrize(
        ("source", "verdict"),
        [
            ("def f(x): return x * x", PASSED),
            ("def f(x): return x + x", WRONG),
            ("class A:\n    def __eq__(self, other): return True\ndef f(x): return A()", WRONG),
            ("import builtins\nbuiltins.exec = lambda *a, **k: None\ndef f(x): return 0", WRONG),
            ("import builtins\nbuiltins.eval = builtins.compile = lambda *a, **k: 4\ndef f(x): return 0", WRONG),
            ("import builtins\nbuiltins.range = builtins.zip = lambda *a: []\ndef f(x): return 0", WRONG),
            ("import json\njson.dumps = lambda *a, **k: '4'\ndef f(x): return 0", WRONG),
        ],
    )
    def test_check_of_a_candidate(self, executor: Executor, source: str, verdict: Verdict) -> None:
        assert verdicts(executor.run(source, asserts(self.CHECK))) == [verdict]

    @pytest.mark.parametrize(
        "cheat",
        [
            "import builtins\nbuiltins.exec = lambda *a, **k: None\ndef f(x): return -1",
            "import builtins\nbuiltins.range = lambda *a: []\ndef f(x): return -1",
            "import os\nos.write = lambda *a: 10**6\ndef f(x): return -1",
        ],
    )
    def test_statements_run_with_the_interpreters_builtins(self, executor: Executor, cheat: str) -> None:
        loop = "for i in range(3):\n    assert f(i) == i * i"
        assert verdicts(executor.run(cheat, asserts(loop))) == [WRONG]

    def test_values_that_are_both_computed(self, executor: Executor) -> None:
        tests = asserts("import math\nx = math.floor(4.5)\nassert f(2) == x")
        anything = "class A:\n    def __eq__(self, other): return True\ndef f(x): return A()"
        assert verdicts(executor.run("def f(x): return x * x", tests)) == [PASSED]
        assert verdicts(executor.run("def f(x): return x", tests)) == [WRONG]
        assert verdicts(executor.run(anything, tests)) == [WRONG]
        own = (
            "class P:\n    def __init__(s, x): s.x = x\n    def __eq__(s, o): return s.x == o.x\ndef f(x): return P(x)"
        )
        assert verdicts(executor.run(own, asserts("assert f(2) == P(2)", "assert f(2) == P(3)"))) == [PASSED, WRONG]

    def test_tolerances_of_a_test(self, executor: Executor) -> None:
        tests = asserts(
            "import math\nassert math.isclose(f(1), 1000.0, rel_tol=0.01)",
            "import math\nassert math.isclose(f(0), 0.0001, rel_tol=0.001)",
            "assert abs(f(0) - 0.0001) < 1e-3",
            "assert f(1) != 1000 and f(0) != 'x'",
        )
        assert verdicts(executor.run("def f(x): return 1005.0 * x", tests)) == [PASSED, WRONG, PASSED, PASSED]
        anything = "class A(float):\n    def __sub__(s, o): return 0\n    def __ne__(s, o): return True\n"
        assert verdicts(executor.run(anything + "def f(x): return A(1000)", tests)) == [PASSED, WRONG, WRONG, WRONG]

    def test_expected_literal_is_nowhere_in_the_process(self, executor: Executor) -> None:
        source = (
            "import gc, sys\n"
            "def f(x):\n"
            "    frame, seen = sys._getframe(), repr(gc.get_objects())\n"
            "    while frame:\n        seen += repr(frame.f_locals)\n        frame = frame.f_back\n"
            "    return 'found' if '987654321'[::-1] in seen else 'not found'"
        )
        (test,) = executor.run(source, asserts("assert f(1) == 'x123456789'")).tests
        assert "not found" in test.detail

    def test_statements_share_a_namespace(self, executor: Executor) -> None:
        assert verdicts(executor.run("def f(x): return x", asserts("y = f(3)\nassert y == 3\nassert f(y) == 3"))) == [
            PASSED
        ]


class TestCheckers:
    PERMUTATION = (
        "import sys\na, b, c = (open(p).read().split() for p in sys.argv[1:])\nprint(int(sorted(c) == sorted(b)))"
    )

    def problem(self, checker: str) -> Problem:
        return stdin(("3\n", "1 2 3\n"), judge=Judge(Comparison.CHECKER, checker=checker))

    def test_verdict_is_the_checkers(self, executor: Executor) -> None:
        problem = self.problem(self.PERMUTATION)
        assert verdicts(executor.run("print(3, 1, 2)", problem)) == [PASSED]
        assert verdicts(executor.run("print(3, 1)", problem)) == [WRONG]
        assert verdicts(executor.run("print(3, 1, 2)\n1 / 0", problem)) == [CRASHED]

    @pytest.mark.parametrize("said", ["0", "0.5", "2", "11", "1x", "True", "", "-1", "1e0"])
    def test_anything_but_one_is_wrong(self, executor: Executor, said: str) -> None:
        assert verdicts(executor.run("print(1)", self.problem(f"print({said!r})"))) == [WRONG]

    @pytest.mark.parametrize("said", ["1", "1.0", "looks fine\n1"])
    def test_one_is_right(self, executor: Executor, said: str) -> None:
        assert verdicts(executor.run("print(1)", self.problem(f"print({said!r})"))) == [PASSED]

    @pytest.mark.parametrize(
        "checker", ["1 / 0", "(", "print(1)\nexit(1)", "print(1)\nraise ValueError", "import os\nos.abort()"]
    )
    def test_a_failing_checker_passes_nobody(self, executor: Executor, checker: str) -> None:
        assert verdicts(executor.run("print(1)", self.problem(checker))) == [WRONG]

    def test_where_there_is_no_proc_the_machinery_is_to_blame(self) -> None:
        with Executor(cores=1) as executor:
            executor._lanes[0].has_proc = False
            result = executor.run("print(3, 1, 2)", self.problem(self.PERMUTATION))
            assert verdicts(result) == [Verdict.INFRASTRUCTURE_ERROR]
            assert "/proc" in result.tests[0].detail

    def test_checker_is_locked_down_too(self, executor: Executor) -> None:
        source = "import os\ntry:\n    os.fork()\nexcept OSError:\n    print(1)"
        assert verdicts(executor.run("print(1)", self.problem(source))) == [PASSED]

    def test_hostile_output_reaches_the_checker_as_it_is(self, executor: Executor) -> None:
        checker = "import sys\nprint(int(open(sys.argv[3], 'rb').read() == bytes(range(256))))"
        source = "import sys\nsys.stdout.buffer.write(bytes(range(256)))"
        assert verdicts(executor.run(source, self.problem(checker))) == [PASSED]


class TestManyPrograms:
    def test_order_is_that_of_the_pairs(self, executor: Executor) -> None:
        pairs = [
            (f"print({i})", replace(ADD, id=str(j), tests=(Test("", str(j)),))) for i in range(6) for j in range(6)
        ]
        results = executor.run_many(pairs)
        assert [result.all_passed for result in results] == [float(i == j) for i in range(6) for j in range(6)]

    def test_equal_pairs_are_run_once(self, executor: Executor) -> None:
        source = "import time\nprint(time.time_ns())"
        other = replace(ADD, id="other")
        results = executor.run_many([(source, ADD), (source, other), (source, ADD)])
        assert results[0] is results[2]
        assert results[0].tests[0].output != results[1].tests[0].output

    def test_no_pairs(self, executor: Executor) -> None:
        assert executor.run_many([]) == []

    def test_from_many_threads(self, executor: Executor) -> None:
        results: dict[int, ProgramResult] = {}

        def work(number: int) -> None:
            results[number] = executor.run(f"print({number})", stdin(("", str(number))))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(results[number].all_passed == 1.0 for number in range(20))

    def test_tests_of_one_program_use_all_lanes(self, executor: Executor) -> None:
        source = "import time\nt = time.process_time()\nwhile time.process_time() < t + 0.1: pass\nprint(id(time))"
        result = executor.run(source, stdin(*[("", "")] * 8))
        assert len({test.output for test in result.tests}) == 2  # addresses differ between servers

    def test_program_is_compiled_once(self, executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
        compiled: list[bytes] = []
        make = jobs.job

        def spy(prepared: jobs.Prepared, index: int, program: str, code: bytes, nonce: str) -> Job:
            compiled.append(code)
            return make(prepared, index, program, code, nonce)

        monkeypatch.setattr(jobs, "job", spy)
        assert verdicts(executor.run("print(3)", stdin(*[("", "3")] * 50))) == [PASSED] * 50
        assert 1 <= compiled.count(b"") <= 2  # once in each lane at most
        compiled.clear()
        assert verdicts(executor.run("print(3", stdin(*[("", "3")] * 50))) == [CRASHED] * 50
        assert len(compiled) <= 2  # a program that cannot be compiled is not tried again

    def test_closed_executor_refuses(self) -> None:
        with Executor(cores=1) as closed:
            pending = [closed.submit(RIGHT, ADD) for _ in range(5)]
        assert all(future.result(0).all_passed == 1.0 for future in pending)
        with pytest.raises(RuntimeError, match="closed"):
            closed.submit(RIGHT, ADD)
        closed.close()


class TestMalformedProblems:
    @pytest.mark.parametrize(
        ("problem", "says"),
        [
            (replace(ADD, id="p/1", tests=()), "no tests"),
            (replace(ADD, id="p/1", limits=Limits(cpu_seconds=0)), "cpu_seconds"),
            (replace(ADD, id="p/1", limits=Limits(cpu_seconds=float("nan"))), "cpu_seconds"),
            (replace(ADD, id="p/1", limits=Limits(memory_bytes=-1)), "memory_bytes"),
            (replace(ADD, id="p/1", limits=Limits(output_bytes=-1)), "output_bytes"),
            (replace(ADD, id="p/1", judge=Judge(Comparison.CHECKER)), "checker"),
            (replace(ADD, id="p/1", mode=Mode.ASSERTS, judge=Judge(Comparison.CHECKER, checker="print(1)")), "stdin"),
            (replace(ADD, id="p/1", mode=Mode.FUNCTION), "entry_point"),
            (replace(ADD, id="p/1", mode=Mode.FUNCTION, entry_point="f"), "test 1"),
            (replace(ADD, id="p/1", mode=Mode.FUNCTION, entry_point="f", tests=(Test("[]", "{"),)), "output"),
            (replace(ADD, id="p/1", mode=Mode.FUNCTION, entry_point="f", tests=(Test("{}", "1"),)), "list"),
            (replace(ADD, id="p/1", mode=Mode.ASSERTS, tests=(Test("f(1)"),)), "asserts nothing"),
            (replace(ADD, id="p/1", mode=Mode.ASSERTS, tests=(Test("assert ("),)), "not Python"),
        ],
    )
    def test_the_message_names_the_problem_and_the_fault(self, executor: Executor, problem: Problem, says: str) -> None:
        with pytest.raises(ValueError, match="p/1") as raised:
            executor.run(RIGHT, problem)
        assert says in str(raised.value)
        with pytest.raises(ValueError, match="p/1"):
            executor.run_many([(RIGHT, ADD), (RIGHT, problem)])

    @pytest.mark.parametrize("text", ["\0", "\ud800\udcff", "\uffff", "\x1b[31m", "\r", "é" * 1000])
    def test_any_text_in_tests(self, executor: Executor, text: str) -> None:
        source = "import sys\nsys.stdout.buffer.write(sys.stdin.buffer.read())"
        assert verdicts(executor.run(source, stdin((text, text), judge=Judge(Comparison.EXACT)))) == [PASSED]

    @pytest.mark.parametrize("program", ["\0", "print(3)\0", "x = '\udcff'", "\x0c", "\\", "é = 3\nprint(é)"])
    def test_any_text_as_program(self, executor: Executor, program: str) -> None:
        assert verdicts(executor.run(program, stdin(("", "3"))))[0] in (PASSED, WRONG, CRASHED)

    def test_layers_must_be_known(self) -> None:
        with pytest.raises(ValueError, match="unknown layers"):
            Executor(cores=1, layers=["firewall"])

    @pytest.mark.parametrize("cores", [0, -1])
    def test_there_must_be_a_core(self, cores: int) -> None:
        with pytest.raises(ValueError, match="at least 1"):
            Executor(cores=cores)

    @pytest.mark.parametrize("program", [None, b"print(3)", 3])
    def test_a_program_is_text(self, executor: Executor, program: object) -> None:
        with pytest.raises(TypeError, match="a program is text"):
            executor.run(program, ADD)  # type: ignore[arg-type]

    @pytest.mark.parametrize("memory", [1, 4096, 2**16, 2**20])
    def test_very_little_memory_is_the_programs_fault(self, executor: Executor, memory: int) -> None:
        problem = replace(ADD, limits=Limits(cpu_seconds=1.0, memory_bytes=memory))
        result = executor.run("x = bytearray(2**21)", problem)
        assert set(verdicts(result)) <= {Verdict.OUT_OF_MEMORY, CRASHED}

    def test_a_future_cannot_be_cancelled(self, executor: Executor) -> None:
        future = executor.submit(RIGHT, ADD)
        assert not future.cancel()
        assert future.result().all_passed == 1.0

    def test_not_in_a_fork(self, executor: Executor) -> None:
        child = os.fork()
        if child == 0:
            try:
                executor.submit(RIGHT, ADD)
            except RuntimeError:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7

    def test_modules_must_exist(self) -> None:
        with pytest.raises(ModuleNotFoundError, match="no_such_module"):
            Executor(cores=1, modules=["no_such_module"])


def test_a_client_with_many_open_files() -> None:
    opened: list[int] = []
    try:
        while not opened or opened[-1] < 61:  # the descriptors that the server is given come next
            opened.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(12):
            opened.append(os.open(os.devnull, os.O_RDONLY))
            with Executor(cores=1) as executor:
                assert executor.run("print(1)", Problem("p", "?", (Test("", "1\n"),))).fraction == 1.0
    finally:
        for descriptor in opened:
            os.close(descriptor)
