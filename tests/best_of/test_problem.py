"""Problems as users give them: records whose faults are named, and texts whose examples are tests."""

from __future__ import annotations

import json
import time

import pytest

from openrlhf_maxk.best_of.examples import examples_in
from openrlhf_maxk.best_of.problem import ProblemError, problem_in, problem_of
from openrlhf_maxk.problems.record import Comparison, Mode, Test
from openrlhf_maxk.rewards.judging.jobs import prepare

ATCODER = """Problem Statement
Print A+B.

Input
The input is given in one line.

A B

Output
Print the sum.

Sample Input 1

3 4

Sample Output 1

7

Since 3 + 4 = 7.

Sample Input 2

1
1

Sample Output 2

2
"""
CODEFORCES = """Input

The only line holds n.

Output

Print YES or NO.

Examples

Input

2 x
3

Output

YES
NO

Input

5

Output

NO

Note

In the first case, ...
"""
MARKDOWN = """Add two numbers.

### Example

**Input**
```
1 2

3
```
**Output:**
```text
3

3
```
Good luck!
"""
LIVECODEBENCH = (
    "Find it.\n\nSample Input 1:\n\n6\nabc\n\nSample Output 1:\n\nYES\n\n"
    "Sample Input 2:\n\n1\na\n\nSample Output 2:\n\nNO"
)
COLON = "Print the sum.\nInput: 3 4\nOutput: 7\nInput:\n1 1\nOutput:\n2\n\nThat is all there is.\n"
MINI = "print the count of the list after ascending, regular\nin -5 -5 9 0\nout 2\n"


@pytest.mark.parametrize(
    ("text", "tests"),
    [
        (ATCODER, [("3 4\n", "7\n"), ("1\n1\n", "2\n")]),
        (CODEFORCES, [("2 x\n3\n", "YES\nNO\n"), ("5\n", "NO\n")]),
        (MARKDOWN, [("1 2\n\n3\n", "3\n\n3\n")]),
        (LIVECODEBENCH, [("6\nabc\n", "YES\n"), ("1\na\n", "NO\n")]),
        (COLON, [("3 4\n", "7\n"), ("1 1\n", "2\n")]),
        (MINI, [("-5 -5 9 0\n", "2\n")]),
        ("Print hello.\n\nExample output:\nhello\n", []),
        ("Input\n3 4\nOutput\n7\n", []),  # sections without a mark may be anything
        ("Input: the first line has n\nOutput: print the answer\n", []),
        ("Example 1:\n\nInput: nums = [2,7], target = 9\nOutput: [0,1]\n", []),
        ("In the beginning was the word.\nOut of it came two.\n", []),
        ("", []),
    ],
)
def test_examples_of_a_text(text, tests):
    assert examples_in(text) == (Mode.STDIN, tuple(Test(*test) for test in tests))


@pytest.mark.parametrize(
    "text",
    [
        f"Input: {'a' * 50_000}\nOutput: 7\n",
        "Sample\nInput\n1\nOutput\n" + "\n" * 50_000 + "7\n",
        "Sample\nInput\n" + "\n" * 50_000 + "1\n" + "```\n" * 50_000 + "Output\n7\n",
    ],
    ids=["word", "empty_lines", "fences"],
)
def test_what_a_client_sends_does_not_take_time_by_its_square(text):
    started = time.process_time()
    assert len(examples_in(text)[1]) == 1
    assert time.process_time() - started < 2


def test_examples_of_a_docstring():
    text = '''def f(x):
    """Twice x.

    >>> f(2)
    4
    >>> f("a")
    'aa'
    >>> print(1)
    one
    """
'''
    assert examples_in(text) == (Mode.ASSERTS, (Test("assert f(2) == 4"), Test("assert f(\"a\") == 'aa'")))


def test_a_record_of_each_kind():
    stdin = problem_in(json.dumps({"id": "7", "statement": "s", "tests": [{"input": "1", "output": "2"}] * 2}))
    assert (stdin.id, stdin.mode, stdin.tests, stdin.public_tests) == ("7", Mode.STDIN, (Test("1", "2"),) * 2, 2)
    call = {"statement": "s", "entry_point": "f", "tests": [{"input": [1, "a"], "output": None}], "cpu_seconds": 2}
    function = problem_in(json.dumps(call))
    assert (function.mode, function.tests) == (Mode.FUNCTION, (Test('[1, "a"]', "null"),))
    assert function.limits.cpu_seconds == 2
    asserts = problem_of({"tests": ["assert f(1) == 2"], "memory_mb": 64, "comparison": "exact"}, "s")
    assert (asserts.mode, asserts.limits.memory_bytes) == (Mode.ASSERTS, 64 * 2**20)
    assert asserts.judge.comparison is Comparison.EXACT
    assert problem_of({"checker": "print(1)", "tests": [{"input": "", "output": ""}]}, "").judge.checker == "print(1)"
    assert problem_in(ATCODER).tests == examples_in(ATCODER)[1]
    assert problem_in(json.dumps({"statement": MINI})).tests == (Test("-5 -5 9 0\n", "2\n"),)
    for problem in (stdin, function, asserts):
        prepare(problem)


def test_only_public_tests_are_taken():
    tests = [{"input": str(i), "output": ""} for i in range(3)]
    assert len(problem_of({"tests": tests, "public_tests": 1}, "").tests) == 1
    assert problem_of({"tests": tests, "public_tests": tests[2:]}, "").tests == (Test("2"),)
    with pytest.raises(ProblemError, match=r"^tests: there are none that may be seen"):
        problem_of({"tests": tests, "public_tests": 0}, ATCODER)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "tests: there are none, and no examples in the statement"),
        ({"tests": []}, "tests: there are none that may be seen"),
        ({"tests": {}}, "tests: it must be a list, not dict"),
        ({"tests": [1]}, r"tests\[0\]: it must be an object with input and output"),
        ({"tests": [{"input": "1"}]}, r"tests\[0\]: it must be an object with input and output"),
        ({"tests": [{"input": "1", "output": "1"}, "assert 1"]}, r"tests\[1\]: it must be an object"),
        ({"tests": [{"input": "1", "output": 1}]}, r"tests\[0\].output: it must be a text, not int"),
        ({"tests": [{"input": "1", "output": 1}], "entry_point": "f"}, r"tests\[0\].input: it must be the list"),
        ({"tests": ["assert 1"] * 1001}, "tests: 1001 are more than 1000"),
        ({"tests": ["assert 1"], "public_tests": 2}, "public_tests: it must be a list, or a number up to 1, not 2"),
        ({"tests": ["assert 1"], "public_tests": True}, "public_tests: .* not True"),
        ({"public_tests": 2}, "public_tests: it says how many"),
        ({"tests": ["assert 1"], "entry_point": 3}, "entry_point: it must be a text, not int"),
        ({"tests": ["assert 1"], "cpu_seconds": 0}, "cpu_seconds: it must be a number above 0, up to 60, not 0"),
        ({"tests": ["assert 1"], "cpu_seconds": 61}, "cpu_seconds: .* not 61"),
        ({"tests": ["assert 1"], "memory_mb": "1"}, "memory_mb: .* not '1'"),
        ({"tests": ["assert 1"], "comparison": "close"}, "comparison: it must be one of exact, tokens, .* not 'close'"),
        ({"tests": ["assert 1"], "comparison": []}, r"comparison: it must be one of .* not \[\]"),
        ({"tests": ["assert 1"], "test": []}, "test: there is no such field"),
        ({"statement": " "}, "statement: it must be a text that is not empty"),
    ],
)
def test_what_is_wrong_is_named(fields, message):
    with pytest.raises(ProblemError, match=f"^{message}"):
        problem_in(json.dumps({"statement": "s", **fields}))


def test_a_broken_record_is_no_statement():
    with pytest.raises(ProblemError, match="begins as a JSON object and is none"):
        problem_in('{"statement": ')
