"""Reference solutions in the public benchmarks' shapes get full marks; with one wrong token they do not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from openrlhf_maxk.problems.record import Limits, Mode, Problem, Test
from openrlhf_maxk.rewards.execution.executor import Executor


@dataclass(frozen=True)
class Reference:
    """A solution, the same with one token changed, and the problem."""

    right: str
    token: str
    spoiled: str
    problem: Problem

    @property
    def wrong(self) -> str:
        assert self.right.count(self.token) == 1
        return self.right.replace(self.token, self.spoiled)


def problem(name: str, mode: Mode, tests: list[tuple[str, str]], **fields: Any) -> Problem:
    records = tuple(Test(*test) for test in tests)
    return Problem(name, "", records, mode, limits=Limits(cpu_seconds=2.0), **fields)


def call(*arguments: object, gives: object) -> tuple[str, str]:
    return json.dumps(arguments), json.dumps(gives)


REFERENCES = [
    Reference(  # a contest: fast input, many cases, CRLF in the expected output
        "import sys\n"
        "def main():\n"
        "    data = sys.stdin.buffer.read().split()\n"
        "    t, at, out = int(data[0]), 1, []\n"
        "    for _ in range(t):\n"
        "        n = int(data[at]); xs = list(map(int, data[at + 1:at + 1 + n])); at += n + 1\n"
        "        best = here = 0\n"
        "        for x in xs:\n"
        "            here = max(0, here + x); best = max(best, here)\n"
        "        out.append(best)\n"
        "    print(*out, sep='\\n')\n"
        "main()\n",
        "max(0, here",
        "max(1, here",
        problem("contest", Mode.STDIN, [("2\n3\n1 -2 3\n2\n-1 -1\n", "3\r\n0\r\n"), ("1\n1\n-5\n", "0\n")]),
    ),
    Reference(  # interactive style: input() in a loop, recursion deeper than Python's default, in a thread
        "import sys, threading\n"
        "def main():\n"
        "    sys.setrecursionlimit(10**6)\n"
        "    def f(n):\n"
        "        return 0 if n == 0 else f(n - 1) + n\n"
        "    print(f(int(input())))\n"
        "threading.stack_size(2**27)\n"
        "thread = threading.Thread(target=main)\n"
        "thread.start()\n"
        "thread.join()\n",
        "if n == 0",
        "if n == 1",
        problem("recursion", Mode.STDIN, [("20000\n", "200010000\n"), ("3\n", "6\n")]),
    ),
    Reference(  # LeetCode: class Solution with the usual imports from the setup code
        "class Solution:\n"
        "    def twoSum(self, nums: List[int], target: int) -> Optional[List[int]]:\n"
        "        seen = defaultdict(int)\n"
        "        for i, x in enumerate(nums):\n"
        "            if target - x in seen:\n"
        "                return [seen[target - x], i]\n"
        "            seen[x] = i\n",
        "target - x in",
        "target + x in",
        problem(
            "leetcode",
            Mode.FUNCTION,
            [
                call([2, 7, 11, 15], 9, gives=[0, 1]),
                call([3, 3], 6, gives=[0, 1]),
                call([1], 5, gives=None),
            ],
            entry_point="Solution.twoSum",
            setup_code="from typing import *\nfrom collections import *\n",
        ),
    ),
    Reference(  # LeetCode: helper methods, a cache, tuples as results, memory on the object
        "class Solution:\n"
        "    def __init__(self):\n"
        "        self.calls = 0\n"
        "    @lru_cache(None)\n"
        "    def ways(self, n):\n"
        "        self.calls += 1\n"
        "        return 1 if n < 2 else self.ways(n - 1) + self.ways(n - 2)\n"
        "    def climb(self, n: int):\n"
        "        return self.ways(n), self.calls\n",
        "self.ways(n - 2)",
        "self.ways(n - 3)",
        problem(
            "cache",
            Mode.FUNCTION,
            [call(10, gives=[89, 11]), call(80, gives=[37889062373143906, 81])],
            entry_point="Solution.climb",
            setup_code="from functools import lru_cache\n",
        ),
    ),
    Reference(  # MBPP
        "def remove_Occ(s,ch): \r\n"
        "    i = s.find(ch)\r\n"
        "    if i < 0: return s\r\n"
        "    s = s[:i] + s[i+1:]\r\n"
        "    i = s.rfind(ch)\r\n"
        "    return s if i < 0 else s[:i] + s[i+1:]\r\n",
        "s.rfind",
        "s.find",
        problem(
            "mbpp",
            Mode.ASSERTS,
            [
                ('assert remove_Occ("hellolo","l") == "heloo"', ""),
                ('assert remove_Occ("abcda","a") == "bcd"', ""),
                ('assert remove_Occ("PHP","P") == "H"', ""),
            ],
        ),
    ),
    Reference(  # HumanEval: a check function that holds the asserts
        "def truncate_number(number: float) -> float:\n    return number % 1.0\n",
        "1.0",
        "2.0",
        problem(
            "humaneval",
            Mode.ASSERTS,
            [
                (
                    "def check(candidate):\n    assert candidate(3.5) == 0.5\n"
                    "    assert abs(candidate(1.33) - 0.33) < 1e-6\ncheck(truncate_number)",
                    "",
                )
            ],
        ),
    ),
]


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with Executor(cores=2) as executor:
        yield executor


@pytest.mark.parametrize("reference", REFERENCES, ids=lambda reference: reference.problem.id)
def test_full_marks_and_not_with_one_wrong_token(executor: Executor, reference: Reference) -> None:
    right = executor.run(reference.right, reference.problem)
    assert right.all_passed == 1.0, right
    wrong = executor.run(reference.wrong, reference.problem)
    assert wrong.all_passed == 0.0, wrong
