"""Functions with asserts: HumanEval, HumanEval+, MBPP+, MBPP and MultiPL-E's Python."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from openrlhf_maxk.problems.record import Comparison, Judge, Mode, Test
from openrlhf_maxk.problems.sources.conversion.checks import Comparisons, comparisons
from openrlhf_maxk.problems.sources.formats.record import Record, identifier
from openrlhf_maxk.problems.sources.reading import fields
from openrlhf_maxk.problems.sources.source import Rejected


def humaneval(row: Mapping[str, Any]) -> Record:
    """HumanEval and HumanEval+: ``prompt`` (code), ``test`` with ``check(candidate)``, ``entry_point``."""
    entry_point, prompt = fields.text(row, "entry_point"), fields.text(row, "prompt")
    solution = fields.text(row, "canonical_solution", "")
    found = comparisons(fields.text(row, "test"), entry_point)
    references = (f"{prompt}{solution}",) if solution.strip() else ()
    return _completion(found, prompt, entry_point, references, identifier(row, "task_id"))


def multipl_e(row: Mapping[str, Any]) -> Record:
    """MultiPL-E's Python: ``language``, ``prompt``, ``tests``."""
    language = fields.text(row, "language")
    if language not in ("py", "python"):
        raise Rejected("not_python", f"language: {language[:40]!r}; only Python is run")
    found = comparisons(fields.text(row, "tests"), "")
    return _completion(found, fields.text(row, "prompt"), found.entry_point, (), identifier(row, "name"))


def mbpp(row: Mapping[str, Any]) -> Record:
    """MBPP: ``text`` or ``prompt``, ``code``, ``test_list``."""
    setup = [*fields.texts(row, "test_imports", []), fields.text(row, "test_setup_code", "")]
    before = "\n".join(part for part in setup if part.strip())
    tests = [f"{before}\n{source}".strip() for source in fields.texts(row, "test_list")]
    return _described(row, tuple(map(Test, tests)), len(tests), None)


def mbpp_plus(row: Mapping[str, Any]) -> Record:
    """MBPP+: MBPP's columns and ``test``, a script that compares results in a loop."""
    listed = fields.texts(row, "test_list")
    found = comparisons(fields.text(row, "test"), "")
    tests = tuple(dict.fromkeys(Test(source) for source in (*listed, *found.tests)))
    return _described(row, tests, len(listed), _judge(found))


def _completion(found: Comparisons, prompt: str, entry_point: str, references: tuple[str, ...], name: str) -> Record:
    return Record(
        tests=tuple(dict.fromkeys(map(Test, found.tests))),
        mode=Mode.ASSERTS,
        statement=f"Complete the function {entry_point}.",
        narrative=prompt,
        id=name,
        program_prefix=prompt,
        judge=_judge(found),
        references=references,
    )


def _described(row: Mapping[str, Any], tests: tuple[Test, ...], public: int, judge: Judge | None) -> Record:
    return Record(
        tests=tests,
        mode=Mode.ASSERTS,
        statement=fields.text(row, "prompt" if row.get("text") is None else "text"),
        id=re.sub(r"^Mbpp/", "", identifier(row, "task_id")),
        public_tests=min(1, public),
        judge=judge,
        references=(fields.text(row, "code"),),
    )


def _judge(found: Comparisons) -> Judge | None:
    return Judge(Comparison.NUMERIC, found.tolerance) if found.tolerance else None
