"""The one place that says which formats there are, and which of them a row has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from openrlhf_maxk.problems.sources.formats import contests, functions
from openrlhf_maxk.problems.sources.formats.record import COLUMNS, Record, read_record
from openrlhf_maxk.problems.sources.source import Rejected


@dataclass(frozen=True)
class Format:
    """A shape of rows.

    ``columns`` are what it is recognised by: all of them are there and not null ("a.b" is b in a).
    """

    columns: tuple[str, ...]
    read: Callable[[Mapping[str, Any]], Record]


# In the order in which they are tried: those with the most particular columns first.
FORMATS: dict[str, Format] = {
    "verl": Format(("prompt", "reward_model"), contests.verl),
    "open-r1": Format(("verification_info",), contests.open_r1),
    "apps": Format(("question", "input_output"), contests.apps),
    "multipl-e": Format(("language", "prompt", "tests", "name"), functions.multipl_e),
    "humaneval": Format(("prompt", "entry_point", "test"), functions.humaneval),
    "mbppplus": Format(("code", "test", "test_list"), functions.mbpp_plus),
    "mbpp": Format(("code", "test_list"), functions.mbpp),
    "deepcoder": Format(("problem", "tests"), contests.deepcoder),
    "record": Format(("tests",), read_record),
}
ALIASES = {"prime": "verl", "taco": "apps", "humanevalplus": "humaneval", "synthetic-1": "open-r1", "own": "record"}
NAMES = ("auto", *FORMATS, *ALIASES)


# Shapes that cannot be read, by their columns, and what to do about each.
UNREADABLE = {
    (
        "base_input",
        "plus_input",
    ): "evalplus' own file has no expected results: take the hub's evalplus/humanevalplus or "
    "evalplus/mbppplus, which have a column test",
    ("question_content", "private_test_cases"): "that is LiveCodeBench: use `prepare livecodebench --source`",
    ("description", "private_tests", "generated_tests"): "that is CodeContests: use `prepare codecontests --source`",
    ("official_tests", "description"): "that is open-r1's codeforces: use `prepare codeforces --source`",
    ("original_json", "turns"): "that is LiveBench: use `prepare livebench --source`",
}


def recognise(row: Mapping[str, Any]) -> Format:
    """The format of a row.

    Raises:
        Rejected: "unknown_format", with what is there and what to do.
    """
    there = {name for name, value in row.items() if value is not None}
    for columns, advice in UNREADABLE.items():
        if there >= set(columns):
            raise Rejected("unknown_format", advice)
    for form in FORMATS.values():
        if there >= set(form.columns):
            return form
    if "public_tests" in there:
        return FORMATS["record"]
    near = {
        name: match[0] for name in sorted(row) if (match := get_close_matches(name, COLUMNS, 1)) and name != match[0]
    }
    mapping = ",".join(f"{ours}={name}" for name, ours in near.items()) or "tests=THEIR_NAME"
    shown = ", ".join(sorted(row)[:12])
    raise Rejected(
        "unknown_format",
        f"no field tests (there are: {shown}); name the fields with --columns {mapping}, or the format with --format",
    )


def format_named(name: str) -> Format:
    """A format by its name or another name of it. Raises KeyError."""
    return FORMATS[ALIASES.get(name, name)]
