"""Rows in the schemas that people's problems come in, with problems and texts of our own."""

from __future__ import annotations

import json
from typing import Any

SUM = "print(sum(map(int, input().split())))"
PAIRS: dict[str, Any] = {"inputs": ["1 2\n", "5 7\n"], "outputs": ["3\n", "12\n"]}
CALLS: dict[str, Any] = {"fn_name": "widest", "inputs": [[[1, 5, 2]], [[4, 4]]], "outputs": [[4], [0]]}
WIDEST = "def widest(nums):\n    return max(nums) - min(nums)\n"
METHOD = "class Solution:\n    def widest(self, nums):\n        return max(nums) - min(nums)\n"
SUM_TEXT = "Read two integers and print their sum."
WIDEST_TEXT = "Return the largest difference between two numbers."
CHAT = [{"role": "system", "content": "Think first."}, {"role": "user", "content": SUM_TEXT}]


def verl(truth: Any, **more: Any) -> dict[str, Any]:
    """verl's Parquet, as PRIME's data set has it."""
    row = {
        "data_source": "taco",
        "prompt": CHAT,
        "ability": "code",
        "reward_model": {"ground_truth": truth if isinstance(truth, str) else json.dumps(truth), "style": "rule"},
        "extra_info": {"index": 7, "split": "dummy"},
    }
    return row | more


def apps(tests: dict[str, Any], solutions: list[str], **more: Any) -> dict[str, Any]:
    """APPS; TACO has more columns."""
    row = {
        "problem_id": 12,
        "question": SUM_TEXT,
        "solutions": json.dumps(solutions),
        "input_output": json.dumps(tests),
        "difficulty": "interview",
        "url": "https://codeforces.com/problemset/problem/1575/A",
        "starter_code": "",
    }
    return row | more


TACO = {"source": "codeforces", "time_limit": "2.5 seconds", "memory_limit": "1.0 gigabytes", "name": None}


def deepcoder(tests: Any, solutions: list[str], **more: Any) -> dict[str, Any]:
    return {"problem": SUM_TEXT, "solutions": solutions, "tests": json.dumps(tests)} | more


def open_r1(cases: list[dict[str, Any]], solution: str, language: str = "python") -> dict[str, Any]:
    return {
        "source": "apps",
        "task_type": "verifiable_code",
        "in_source_id": "p_3",
        "prompt": SUM_TEXT,
        "gold_standard_solution": solution,
        "verification_info": {"language": language, "test_cases": cases},
        "metadata": {"difficulty": None},
        "problem_id": "vfc_3",
    }


HUMANEVAL_PROMPT = 'def double(xs):\n    """ Twice every number.\n    >>> double([1])\n    [2]\n    """\n'
HUMANEVAL = {
    "task_id": "Toy/0",
    "prompt": HUMANEVAL_PROMPT,
    "entry_point": "double",
    "canonical_solution": "    return [2 * x for x in xs]\n",
    "test": (
        "\n\nMETADATA = {'author': 'us'}\n\n\ndef check(candidate):\n    assert candidate([1, 2]) == [2, 4]\n"
        "    assert candidate([]) == [], 'nothing'\n    assert True, 'this is always so'\n"
        "    big = [10] * 3\n    assert candidate(big) == [20, 20, 20]\n"
    ),
}
ASSERTION = """\
import numpy as np

def is_floats(x) -> bool:
    return isinstance(x, float)

def assertion(out, exp, atol):
    same = out == exp
    if atol == 0 and is_floats(exp):
        atol = 1e-6
    if not same and atol != 0:
        assert np.allclose(out, exp, rtol=1e-07, atol=atol)
    else:
        assert same
"""
HUMANEVAL_PLUS = HUMANEVAL | {
    "test": f"{ASSERTION}\n\ndef check(candidate):\n    inputs = [[[1, 2]], [[]], [[-3]]]\n"
    "    results = [[2, 4], [], [-6]]\n"
    "    for i, (inp, exp) in enumerate(zip(inputs, results)):\n        assertion(candidate(*inp), exp, 0)\n"
}
CROSSCHECKED = HUMANEVAL | {
    "test": f"{ASSERTION}\n\ndef ref_func(xs):\n    return [x + x for x in xs]\n\ndef check(candidate):\n"
    "    inputs = [[[1, 2]], [[5]]]\n    for i, inp in enumerate(inputs):\n"
    "        assertion(candidate(*inp), ref_func(*inp), 0)\n"
}
MBPP_PLUS = {
    "task_id": 4,
    "code": "def half(x):\n    return x / 2",
    "prompt": "Write a function to halve a number.",
    "source_file": "Toy",
    "test_imports": [],
    "test": f"{ASSERTION}\ninputs = [[1], [4], [-6.0]]\nresults = [0.5, 2.0, -3.0]\n"
    "for i, (inp, exp) in enumerate(zip(inputs, results)):\n    assertion(half(*inp), exp, 0)\n",
    "test_list": ["assert half(1) == 0.5"],
}
MULTIPL_E = {
    "name": "Toy_0_double",
    "language": "py",
    "prompt": HUMANEVAL_PROMPT,
    "doctests": "transform",
    "stop_tokens": ["\ndef"],
    "tests": (
        "def check(candidate):\n    assert candidate([1, 2]) == [2, 4]\n    assert candidate([]) == []\n\n"
        "def test_check():\n    check(double)\n\ntest_check()\n"
    ),
}
