"""MBPP (Austin et al., 2021): short functions with three asserts each, turned into programs that read and print.

The paper: "we process tests for MBPP to support input/output format". ``assert f(args) == value`` becomes a test whose
input is one argument a line, as Python literals, and whose output is the value as ``print`` shows it. The statement
gets a section that says so, with an example. What cannot be converted is rejected with the reason.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from openrlhf_maxk.problems.record import Comparison, Judge, Mode, Problem, Test
from openrlhf_maxk.problems.sources.conversion.asserts import Case, Form, assign, defined, parse, read_cases
from openrlhf_maxk.problems.sources.conversion.cases import check_sizes, check_statement, scaled_limits
from openrlhf_maxk.problems.sources.conversion.expressions import NotAValue
from openrlhf_maxk.problems.sources.conversion.values import (
    checker,
    describe,
    literal,
    order_or_rounding_matters,
    plain,
    shown,
)
from openrlhf_maxk.problems.sources.options import PrepareOptions, option
from openrlhf_maxk.problems.sources.reading import fields
from openrlhf_maxk.problems.sources.reading.files import split_files
from openrlhf_maxk.problems.sources.source import Candidate, Group, Rejected, SideFiles, Source

# The original file has all splits in one; task ids tell them apart.
SPLIT_IDS = {"prompt": range(1, 11), "test": range(11, 511), "validation": range(511, 601), "train": range(601, 975)}
WHOLE_FILES = ("mbpp.jsonl", "sanitized-mbpp.json")


@dataclass(frozen=True)
class MbppOptions(PrepareOptions):
    """The paper evaluates on MBPP; the usual reading is the 500 problems of the full test split."""

    config: str = option("full", "full, or the hand-verified subset", choices=("full", "sanitized"))
    splits: str = option("test", f"splits to read, comma separated: {', '.join(SPLIT_IDS)}")
    mode: str = option(
        "stdin",
        "stdin: programs that read and print; asserts: functions that the asserts call",
        choices=("stdin", "asserts"),
    )
    examples: int = option(1, "tests that a statement shows")

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.splits.split(",")) - set(SPLIT_IDS)):
            raise ValueError(f"--splits {', '.join(unknown)}: known are {', '.join(SPLIT_IDS)}")
        super().__post_init__()


class Mbpp(Source):
    """The problems of https://huggingface.co/datasets/google-research-datasets/mbpp."""

    name = "mbpp"
    options_type = MbppOptions
    repo = "google-research-datasets/mbpp"
    key = "task_id"
    required = ("task_id", "code", "test_list")
    columns = ("text", "prompt", "test_setup_code", "test_imports")

    def __init__(self, options: MbppOptions) -> None:
        self.options = options

    def select(self, names: Sequence[str]) -> list[tuple[str, str]]:
        splits = self.options.splits.split(",")
        whole = [n for n in names if PurePosixPath(n).name == WHOLE_FILES[self.options.config == "sanitized"]]
        if whole or (len(names) == 1 and PurePosixPath(names[0]).suffix in (".json", ".jsonl")):
            return [((whole or names)[0], "")]  # every row's split follows from its task id
        return split_files(names, splits, (self.options.config, ""))

    def group(self, row: Mapping[str, Any]) -> Group:
        return Group("mbpp", self.options.config)

    def convert(self, row: Mapping[str, Any], split: str, side: SideFiles) -> Candidate:
        number = fields.integer(row, "task_id")
        if not split:
            split = next((name for name, ids in SPLIT_IDS.items() if number in ids), "none")
            if split not in self.options.splits.split(","):
                raise Rejected("other_split", split)
        narrative = check_statement(self.narrative(row), self.options)
        code, tests = fields.text(row, "code"), fields.texts(row, "test_list")
        imports = "\n".join(fields.texts(row, "test_imports", []))
        setup = fields.text(row, "test_setup_code", "").strip()
        if not tests:
            raise Rejected("no_tests")
        problem = Problem(
            id=f"{self.name}/{self.options.config}/{number}",
            statement=narrative,
            tests=(),
            limits=scaled_limits(self.options, ()),
            source=self.name,
            difficulty=self.options.config,
            provenance={"split": split},
        )
        if self.options.mode == "asserts":
            return self._native(replace(problem, setup_code=imports), code, tests, setup)
        return self._converted(problem, code, tests, f"{imports}\n{setup}")

    def narrative(self, row: Mapping[str, Any]) -> str:
        return fields.text(row, "prompt" if row.get("text") is None else "text")

    def _native(self, problem: Problem, code: str, tests: list[str], setup: str) -> Candidate:
        """The asserts as they are. Their setup comes after the solution: it may make objects of its classes."""
        for test in tests:
            if not any(isinstance(node, ast.Assert) for node in ast.walk(parse(test, "test"))):
                raise Rejected("not_an_assert", "no assert statement")
        parse(setup, "test_setup_code")
        parse(code, "code")
        problem = replace(
            problem,
            mode=Mode.ASSERTS,
            tests=tuple(Test(f"{setup}\n{test}".strip()) for test in dict.fromkeys(tests)),
        )
        check_sizes(problem.tests, self.options)
        problem = replace(problem, public_tests=min(self.options.examples, len(problem.tests)))
        return Candidate(problem, (code,))

    def _converted(self, problem: Problem, code: str, tests: list[str], setup: str) -> Candidate:
        """Programs that read the arguments and print the result."""
        module = parse(code, "code")
        names: dict[str, Any] = {}
        for statement in parse(setup, "test_setup_code").body:
            if isinstance(statement, ast.Assign):
                assign(statement, names)
        functions = defined(module)
        cases = [case for test in tests for case in read_cases(test, functions, names)]
        check_alike(cases)
        pairs: dict[str, str] = {}
        for case in cases:
            given, wanted = as_input(case), as_output(case)
            if pairs.setdefault(given, wanted) != wanted:
                raise Rejected("contradictory_tests", f"two results for the input {given[:60]!r}")
        section = format_section(cases, parameters(module, cases[0].function), pairs, self.options)
        problem = replace(
            problem,
            statement=f"{problem.statement}\n\n{section}",
            tests=tuple(Test(given, wanted) for given, wanted in pairs.items()),
            judge=judge(cases),
        )
        check_sizes(problem.tests, self.options)
        problem = replace(problem, public_tests=min(self.options.examples, len(problem.tests)))
        fair = checker("values", problem.judge.tolerance) if cases[0].form is Form.CLOSE else checker("values")
        lenient = replace(problem, judge=Judge(Comparison.CHECKER, checker=fair))
        fallback = lenient if problem.judge.comparison in (Comparison.TOKENS, Comparison.NUMERIC) else None
        return Candidate(problem, (reference_program(code, cases[0]),), lenient=fallback)


def check_alike(cases: Sequence[Case]) -> None:
    """Refuse asserts that do not all call one function in one way.

    Raises:
        Rejected: "several_functions", "mixed_forms", "varying_keywords".
    """
    first = cases[0]
    if len({case.function for case in cases}) > 1:
        raise Rejected("several_functions", ", ".join(sorted({case.function for case in cases})))
    mixed = {Form.EQUAL, Form.TRUTH} == {c.form for c in cases} and all(isinstance(c.expected, bool) for c in cases)
    if not mixed and len({(case.form, case.wrapper, case.digits) for case in cases}) > 1:
        raise Rejected("mixed_forms", "results are not all compared in the same way")
    if len({tuple(name for name, _ in case.keywords) for case in cases}) > 1 or (
        first.keywords and len({len(case.positional) for case in cases}) > 1
    ):
        raise Rejected("varying_keywords", "the calls name different arguments")


def as_input(case: Case) -> str:
    """A call's arguments, one a line."""
    try:
        lines = [literal(value) for value in (*case.positional, *(value for _, value in case.keywords))]
    except NotAValue as e:
        raise Rejected("argument_not_a_value", str(e)) from None
    return "".join(f"{line}\n" for line in lines)


def as_output(case: Case) -> str:
    """What a program prints for a call."""
    try:
        if case.form in (Form.SET, Form.ITEMS):
            return f"{literal(sorted(case.expected, key=literal))}\n"
        return f"{shown(plain(case.expected))}\n"
    except NotAValue as e:
        raise Rejected("expected_not_a_value", str(e)) from None


def judge(cases: Sequence[Case]) -> Judge:
    """The cheapest comparison that accepts what the asserts accept."""
    form, values = cases[0].form, [plain(case.expected) for case in cases]
    if form in (Form.SET, Form.ITEMS):
        return Judge(Comparison.CHECKER, checker=checker(str(form)))
    if form is Form.CLOSE:
        return Judge(Comparison.NUMERIC, tolerance=max(case.tolerance for case in cases))
    if order_or_rounding_matters(values):
        return Judge(Comparison.CHECKER, checker=checker("values"))
    if all(isinstance(value, float) for value in values):
        return Judge(Comparison.NUMERIC, tolerance=1e-9)
    if any(text != " ".join(text.split()) for text in map(shown, values)):
        return Judge(Comparison.EXACT)  # the spaces are part of the answer
    return Judge(Comparison.TOKENS)


def parameters(module: ast.Module, function: str) -> list[str]:
    """The names of a function's positional parameters."""
    for statement in module.body:
        match statement:
            case ast.FunctionDef(name) if name == function:
                return [a.arg for a in (*statement.args.posonlyargs, *statement.args.args)]
            case ast.Assign(targets, ast.Lambda(arguments)) if any(dotted_name(t) == function for t in targets):
                return [a.arg for a in (*arguments.posonlyargs, *arguments.args)]
    return []


def dotted_name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def format_section(cases: Sequence[Case], names: Sequence[str], pairs: Mapping[str, str], options: MbppOptions) -> str:
    """What a statement must add once a function has become a program."""
    lines = ["Input"]
    most, least = max(len(case.positional) for case in cases), min(len(case.positional) for case in cases)
    columns = [(names[i] if i < len(names) else f"value {i + 1}", i) for i in range(most)]
    for name, i in columns:
        values = [case.positional[i] for case in cases if i < len(case.positional)]
        lines.append(f"Line {i + 1}{' (may be absent)' if i >= least else ''}: {name}, {describe(values)}")
    for i, (name, _) in enumerate(cases[0].keywords):
        lines.append(f"Line {most + i + 1}: {name}, {describe([case.keywords[i][1] for case in cases])}")
    if len(lines) == 1:
        lines.append("There is no input.")
    else:
        lines.insert(1, "Every line holds one value, written as a Python literal.")
    lines += ["", "Output", output_section(cases)]
    for given, wanted in list(pairs.items())[: options.examples]:
        lines += ["", "Example input", given.rstrip("\n"), "Example output", wanted.rstrip("\n")]
    return "\n".join(lines)


def output_section(cases: Sequence[Case]) -> str:
    """What a program prints, in words."""
    case, values = cases[0], [plain(case.expected) for case in cases]
    if case.form is Form.SET:
        return f"Print the result as a Python list ({describe([list(v) for v in values])}), in any order."
    if case.form is Form.ITEMS:
        return f"Print the result as a Python list ({describe(values)}), in any order."
    if case.form is Form.CLOSE:
        return "Print the result, a floating-point number."
    if case.form is Form.TRUTH:
        return "Print True or False."
    if case.digits is not None:
        return f"Print the result rounded to {case.digits} digits after the decimal point."
    return f"Print the result as Python's print shows it: {describe(values)}."


def reference_program(code: str, case: Case) -> str:
    """The reference solution as a program. What the solution itself prints goes elsewhere."""
    count = len(case.positional)
    given = ", ".join(
        ["*_values" if not case.keywords else f"*_values[:{count}]"]
        + [f"{name}=_values[{count + i}]" for i, (name, _) in enumerate(case.keywords)]
    )
    result = f"{case.function}({given})"
    if case.form in (Form.SET, Form.ITEMS):
        result = f"_builtins.list({result})"
    elif case.form is Form.TRUTH:
        result = f"_builtins.bool({result})"
    elif case.wrapper:
        result = f"_builtins.{case.wrapper}({result}{'' if case.digits is None else f', {case.digits}'})"
    future = any(isinstance(s, ast.ImportFrom) and s.module == "__future__" for s in ast.parse(code).body)
    aside = "import sys as _sys\n_stdout, _sys.stdout = _sys.stdout, _sys.stderr\n"
    return (
        f"{'' if future else aside}{code.rstrip()}\n\n{aside if future else ''}{PLAIN}"
        + f"""\
_values = [_ast.literal_eval(_line) for _line in _sys.stdin.read().split("\\n") if _line]
_result = _plain({result})
_sys.stdout = _stdout
_builtins.print(_result)
"""
    )


# A solution may define functions that are called like Python's own. What it returns is printed as values.plain has it.
PLAIN = """\
import ast as _ast
import builtins as _builtins
def _plain(value):
    if _builtins.isinstance(value, _builtins.dict):
        return {key: _plain(part) for key, part in value.items()}
    if _builtins.isinstance(value, _builtins.list):
        return [_plain(part) for part in value]
    if _builtins.isinstance(value, _builtins.tuple):
        return _builtins.tuple([_plain(part) for part in value])
    return _builtins.set(value) if _builtins.isinstance(value, _builtins.frozenset) else value

"""
