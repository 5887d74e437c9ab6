"""Files in the data sets' original schemas, made from the facts of their pages on the hub, with every known trap."""

from __future__ import annotations

import base64
import json
import pickle
import random
import zlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

TEXT = pa.string()
SOLUTIONS = pa.struct([("language", pa.list_(pa.int64())), ("solution", pa.list_(TEXT))])
TESTS = pa.struct([("input", pa.list_(TEXT)), ("output", pa.list_(TEXT))])
CASES = pa.list_(pa.struct([("input", TEXT), ("output", TEXT)]))

CODECONTESTS = pa.schema(
    [
        ("name", TEXT),
        ("description", TEXT),
        ("public_tests", TESTS),
        ("private_tests", TESTS),
        ("generated_tests", TESTS),
        ("source", pa.int64()),
        ("difficulty", pa.int64()),
        ("solutions", SOLUTIONS),
        ("incorrect_solutions", SOLUTIONS),
        ("cf_contest_id", pa.int64()),
        ("cf_index", TEXT),
        ("cf_points", pa.float32()),
        ("cf_rating", pa.int64()),
        ("cf_tags", pa.list_(TEXT)),
        ("is_description_translated", pa.bool_()),
        ("untranslated_description", TEXT),
        ("time_limit", pa.struct([("seconds", pa.int64()), ("nanos", pa.int64())])),
        ("memory_limit_bytes", pa.int64()),
        ("input_file", TEXT),
        ("output_file", TEXT),
    ]
)

CODEFORCES = pa.schema(
    [
        ("id", TEXT),
        ("aliases", pa.list_(TEXT)),
        ("contest_id", TEXT),
        ("contest_name", TEXT),
        ("contest_type", TEXT),
        ("contest_start", pa.int64()),
        ("contest_start_year", pa.int64()),
        ("index", TEXT),
        ("time_limit", pa.float64()),
        ("memory_limit", pa.float64()),
        ("title", TEXT),
        ("description", TEXT),
        ("input_format", TEXT),
        ("output_format", TEXT),
        ("interaction_format", TEXT),
        ("note", TEXT),
        ("examples", CASES),
        ("editorial", TEXT),
        ("rating", pa.int64()),
        ("tags", pa.list_(TEXT)),
        ("testset_size", pa.int64()),
        ("official_tests", CASES),
        ("official_tests_complete", pa.bool_()),
        ("input_mode", TEXT),
        ("generated_checker", TEXT),
        ("executable", pa.bool_()),
        ("generated_tests", pa.int64()),
    ]
)

LIVEBENCH = pa.schema(
    [
        ("question_id", TEXT),
        ("category", TEXT),
        ("turns", pa.list_(TEXT)),
        ("question_title", TEXT),
        ("public_test_cases", TEXT),
        ("private_test_cases", TEXT),
        (
            "original_json",
            pa.struct(
                [
                    (name, TEXT)
                    for name in ("question_title", "question_content", "platform", "question_id", "contest_id")
                ]
                + [
                    ("contest_date", pa.timestamp("s")),
                    ("starter_code", TEXT),
                    ("difficulty", TEXT),
                    ("metadata", TEXT),
                ]
            ),
        ),
        ("release_date", pa.timestamp("s")),
        ("citation", TEXT),
        ("task", TEXT),
        ("livebench_release_date", pa.timestamp("s")),
        ("livebench_removal_date", TEXT),
        ("remainder", TEXT),
        ("solution", TEXT),
        ("partial_solution", TEXT),
    ]
)

MBPP_FULL = pa.schema(
    [
        ("task_id", pa.int32()),
        ("text", TEXT),
        ("code", TEXT),
        ("test_list", pa.list_(TEXT)),
        ("test_setup_code", TEXT),
        ("challenge_test_list", pa.list_(TEXT)),
    ]
)
MBPP_SANITIZED = pa.schema(
    [
        ("source_file", TEXT),
        ("task_id", pa.int32()),
        ("prompt", TEXT),
        ("code", TEXT),
        ("test_imports", pa.list_(TEXT)),
        ("test_list", pa.list_(TEXT)),
    ]
)


def write_parquet(path: Path, rows: Sequence[dict[str, Any]], schema: pa.Schema, group_rows: int = 5) -> Path:
    """A Parquet file with small row groups; absent fields are null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema), path, row_group_size=group_rows)
    return path


def write_json_lines(path: Path, rows: Sequence[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def write_generated_tests(folder: Path, contest: int, tests: Sequence[tuple[str, str, str]]) -> Path:
    """One contest's generated tests: (problem id, input, output)."""
    rows = [
        {"problem_id": owner, "test_case_i": i, "input": given, "output": wanted}
        for i, (owner, given, wanted) in enumerate(tests)
    ]
    schema = pa.schema([("problem_id", TEXT), ("test_case_i", pa.int64()), ("input", TEXT), ("output", TEXT)])
    return write_parquet(folder / "generated_tests" / f"test_cases_{contest:04d}.parquet", rows, schema)


def pairs(*tests: tuple[str, str]) -> dict[str, list[str]]:
    return {"input": [given for given, _ in tests], "output": [wanted for _, wanted in tests]}


def story(i: int) -> str:
    """A statement like no other, but for its last sentence."""
    draw = random.Random(i)
    words = [
        "".join(draw.choice(("ka", "lo", "mi", "ren", "su", "ta", "vo")) for _ in range(draw.randint(2, 4)))
        for _ in range(40)
    ]
    return f"{' '.join(words).capitalize()}. Two integers are given. Print their sum."


ADD = "a, b = map(int, input().split())\nprint(a + b)"


def contest(i: int, **changes: Any) -> dict[str, Any]:
    """A good row of CodeContests: add two numbers."""
    row = {
        "name": f"p{i:05d} Sum",
        "description": story(i),
        "public_tests": pairs((f"{i} 1\n", f"{i + 1}\n")),
        "private_tests": pairs((f"{i} {i}\n", f"{2 * i}\n")),
        "generated_tests": pairs(*((f"{i} {k}\n", f"{i + k}\n") for k in range(2, 8))),
        "source": 5,
        "difficulty": 0,
        "solutions": {
            "language": [2, 3, 1],
            "solution": ["int main() {}", ADD, "print sum(map(int, raw_input().split()))"],
        },
        "incorrect_solutions": {"language": [3], "solution": ["print(0)"]},
        "cf_contest_id": 0,
        "cf_index": "",
        "cf_points": 0.0,
        "cf_rating": 0,
        "cf_tags": [""],
        "is_description_translated": False,
        "untranslated_description": "",
        "time_limit": {"seconds": 2, "nanos": 500_000_000},
        "memory_limit_bytes": 256_000_000,
        "input_file": "",
        "output_file": "",
    }
    return row | changes


def forces(i: int, **changes: Any) -> dict[str, Any]:
    """A good row of CodeForces, with complete tests."""
    row = {
        "id": f"{100 + i}/A",
        "aliases": None,
        "contest_id": str(100 + i),
        "index": "A",
        "time_limit": 1.0,
        "memory_limit": 256.0,
        "title": f"Sum {i}",
        "description": story(1000 + i),
        "input_format": "One line holds two integers.",
        "output_format": "Print one integer.",
        "interaction_format": None,
        "note": None,
        "examples": [{"input": f"{i} 1\r\n", "output": f"{i + 1}\r\n"}],
        "rating": 800,
        "tags": ["math"],
        "official_tests": [{"input": f"{i} {k}\r\n", "output": f"{i + k}\r\n"} for k in range(1, 4)],
        "official_tests_complete": True,
        "input_mode": "stdio",
        "generated_checker": None,
        "executable": True,
        "generated_tests": 0,
    }
    return row | changes


def packed(cases: Any) -> str:
    """Private tests as LiveCodeBench packs them."""
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(cases)))).decode()


def case(given: str, wanted: str, kind: str = "stdin") -> dict[str, str]:
    return {"input": given, "output": wanted, "testtype": kind}


def live_code(i: int, **changes: Any) -> dict[str, Any]:
    """A good row of LiveCodeBench with standard input."""
    row = {
        "question_title": f"Sum {i}",
        "question_content": story(2000 + i),
        "platform": "atcoder",
        "question_id": f"abc{400 + i}_a",
        "contest_id": f"abc{400 + i}",
        "contest_date": "2024-03-09T00:00:00",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": json.dumps([case(f"{i} 1\n", f"{i + 1}\n")]),
        "private_test_cases": packed([case(f"{i} {k}\n", f"{i + k}\n") for k in (2, 3)]),
        "metadata": "{}",
    }
    return row | changes


STARTER = "class Solution:\n    def add(self, nums: List[int], extra: int) -> int:\n        "


def leetcode(i: int, **changes: Any) -> dict[str, Any]:
    """A good row of LiveCodeBench with a function to complete."""
    row = live_code(i) | {
        "question_title": f"Add Everything {i}",
        "platform": "leetcode",
        "question_id": str(3000 + i),
        "starter_code": STARTER,
        "public_test_cases": json.dumps([case(f"[1, 2]\n{i}", str(3 + i), "functional")]),
        "private_test_cases": packed([case(f"[{k}]\n{i}", str(k + i), "functional") for k in (5, 6)]),
        "metadata": json.dumps({"func_name": "add"}),
    }
    return row | changes


SOLVED = STARTER + "return sum(nums) + extra"
BEGUN = STARTER + "total = extra\n        for n in nums:"


def live_bench(i: int, **changes: Any) -> dict[str, Any]:
    """A good row of LiveBench: a LeetCode problem to solve."""
    code = leetcode(i)
    row = {
        "question_id": f"{i:064x}",
        "category": "coding",
        "turns": [f"### Instructions: solve.\n{code['question_content']}"],
        "question_title": code["question_title"],
        "public_test_cases": code["public_test_cases"],
        "private_test_cases": code["private_test_cases"],
        "original_json": {
            "question_title": code["question_title"],
            "question_content": story(3000 + i),
            "platform": "leetcode",
            "question_id": code["question_id"],
            "contest_id": "weekly",
            "contest_date": datetime(2024, 1, 6),
            "starter_code": STARTER,
            "difficulty": "medium",
            "metadata": code["metadata"],
        },
        "release_date": datetime(2024, 1, 6),
        "citation": "",
        "task": "LCB_generation",
        "livebench_release_date": datetime(2024, 6, 24),
        "livebench_removal_date": "",
        "remainder": None,
        "solution": None,
        "partial_solution": None,
    }
    return row | changes


def completion(i: int, **changes: Any) -> dict[str, Any]:
    """A good row of LiveBench: a begun solution."""
    rest = "\n            total += n\n        return total"
    begun = {"task": "coding_completion", "partial_solution": BEGUN, "remainder": rest, "solution": BEGUN + rest}
    return live_bench(i) | begun | changes
