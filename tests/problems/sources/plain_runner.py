"""The simplest runner of programs that could work: ``exec``, in every mode. No sandbox; for trusted programs.

The tests of data sources use it as an oracle that shares nothing with the project's executor.
"""

from __future__ import annotations

import ast
import io
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from openrlhf_maxk.problems.record import Comparison, Mode, Problem, Test
from openrlhf_maxk.problems.verdict import ProgramResult, TestResult, Verdict

CALL = """
import json as _json
_target = {target}
print(_json.dumps(_target(*_json.loads({given!r}))))
"""


def run_many(pairs: Sequence[tuple[str, Problem]]) -> list[ProgramResult]:
    """Run every program on every test of its problem."""
    return [ProgramResult(tuple(run_test(program, problem, t) for t in problem.tests)) for program, problem in pairs]


def run_test(program: str, problem: Problem, test: Test) -> TestResult:
    """One program on one test."""
    program = problem.whole(program)
    match problem.mode:
        case Mode.STDIN:
            source, given = program, test.input
        case Mode.ASSERTS:
            source, given = f"{problem.setup_code}\n{program}\n{test.input}", ""
        case Mode.FUNCTION:
            target = (problem.entry_point or "").replace("Solution.", "Solution().")
            source, given = f"{problem.setup_code}\n{program}\n{CALL.format(target=target, given=test.input)}", ""
    done = _python(source, given)
    if done.error:
        return TestResult(Verdict.CRASHED, detail=done.error)
    if problem.mode is Mode.ASSERTS:
        right = True
    elif problem.mode is Mode.FUNCTION:
        right = json.loads(done.stdout) == json.loads(test.output)
    else:
        right = _right(problem, test, done.stdout)
    return TestResult(Verdict.PASSED if right else Verdict.WRONG)


def _right(problem: Problem, test: Test, printed: str) -> bool:
    match problem.judge.comparison:
        case Comparison.EXACT:
            return printed.removesuffix("\n") == test.output.removesuffix("\n")
        case Comparison.CHECKER:
            return check(problem.judge.checker or "", test.input, test.output, printed)
        case Comparison.CASE_INSENSITIVE:
            return printed.lower().split() == test.output.lower().split()
        case Comparison.NUMERIC:
            ours, theirs = printed.split(), test.output.split()
            return len(ours) == len(theirs) and all(
                a == b or _close(a, b, problem.judge.tolerance) for a, b in zip(ours, theirs, strict=True)
            )
    return printed.split() == test.output.split()


def _close(a: str, b: str, tolerance: float) -> bool:
    try:
        values = ast.literal_eval(a), ast.literal_eval(b)
    except (ValueError, SyntaxError):
        return False
    return all(isinstance(v, float) for v in values) and abs(values[0] - values[1]) <= tolerance * max(
        1, abs(values[1])
    )


def check(checker: str, given: str, wanted: str, printed: str) -> bool:
    """Run a checker program."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name, text in (("input", given), ("wanted", wanted), ("printed", printed)):
            path = Path(folder, name)
            path.write_text(text, encoding="utf-8")
            paths.append(str(path))
        return _python(checker, "", *paths).stdout.strip() == "1"


@dataclass(frozen=True)
class Done:
    """How a program ended."""

    stdout: str
    error: str = ""


def _python(source: str, given: str, *arguments: str) -> Done:
    printed, stdin, argv = io.StringIO(), sys.stdin, sys.argv
    sys.stdin, sys.argv = io.StringIO(given), ["program", *arguments]
    try:
        with redirect_stdout(printed), redirect_stderr(io.StringIO()):
            exec(compile(source, "program", "exec"), {"__name__": "__main__"})
    except SystemExit as e:
        return Done(printed.getvalue(), f"exit {e.code}" if e.code else "")
    except Exception as e:
        return Done(printed.getvalue(), repr(e))
    finally:
        sys.stdin, sys.argv = stdin, argv
    return Done(printed.getvalue())
