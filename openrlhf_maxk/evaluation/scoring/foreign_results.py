"""Results as other tools write their own: evalplus' ``eval_results.json``, LiveCodeBench's ``_eval`` and ``_eval_all``.

Samples that could not be executed are left out, as everywhere. Texts are taken from the logs for a part of the problems
at a time, so that memory stays bounded however many samples there are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from openrlhf_maxk.evaluation.samples.problem_set import ProblemSet
from openrlhf_maxk.evaluation.samples.run_folder import RunFolder
from openrlhf_maxk.evaluation.scoring.execute import first_samples
from openrlhf_maxk.evaluation.statistics.estimators import pass_at_k
from openrlhf_maxk.problems.atomic import new_folder
from openrlhf_maxk.problems.record import Mode, Problem
from openrlhf_maxk.problems.verdict import Verdict

Extract = Callable[..., str | None]

EVALPLUS_KS = (1, 10, 100)
LIVECODEBENCH_KS = (1, 5, 10, 20, 40, 50, 75, 100, 125, 150, 200, 500, 1000)
_EVALPLUS_SETS = {"humaneval": "HumanEval", "mbpp": "Mbpp"}  # what its ids begin with, by our data sets
_TIMEOUTS = (Verdict.CPU_TIMEOUT, Verdict.WALL_TIMEOUT)
_CODES = {Verdict.WRONG: (-2, "Wrong Answer"), **dict.fromkeys(_TIMEOUTS, (-3, "Time Limit Exceeded"))}
_CRASHED = (-4, "Runtime Error")
_TEXT_AT_ONCE = 2**27  # characters of completions


@dataclass(frozen=True, slots=True)
class _Graded:
    """A sample with what running it told; without a program, no test was run."""

    completion: str
    program: str | None
    verdicts: tuple[Verdict, ...]
    detail: str

    @property
    def passed(self) -> bool:
        return bool(self.verdicts) and all(verdict is Verdict.PASSED for verdict in self.verdicts)

    @property
    def failure(self) -> Verdict | None:
        """How the first test ended that failed."""
        return next((verdict for verdict in self.verdicts if verdict is not Verdict.PASSED), None)


def write_results(
    run: RunFolder, problems: ProblemSet, samples: int, tools: Sequence[str], extract: Extract
) -> list[Path]:
    """Write the results of a finished evaluation for ``tools`` (evalplus, livecodebench), each into its own folder of
    the run; returns the files.

    ``extract`` is what found the programs (:func:`openrlhf_maxk.evaluation.scoring.execute.execute`).
    """
    written: list[Path] = []
    for tool in dict.fromkeys(tools):
        with new_folder(run.path / tool) as folder:
            names = _WRITERS[tool](folder, _graded(run, problems, samples, extract, _ORDERS[tool]))
        written += [run.path / tool / name for name in names]
    return written


def evalplus_id(problem: Problem) -> str:
    """What evalplus calls a problem: ``HumanEval/0``, ``Mbpp/2``; other data sets keep our ids."""
    prefix = _EVALPLUS_SETS.get(problem.source.removesuffix("plus").removesuffix("+"))
    return problem.id if prefix is None else f"{prefix}/{problem.id.rpartition('/')[2]}"


def livecodebench_id(problem: Problem) -> str:
    """What LiveCodeBench calls a problem: its id without the data set's prefix."""
    return problem.id.removeprefix("livecodebench/")


def _evalplus(folder: Path, graded: Iterator[tuple[Problem, list[_Graded]]]) -> list[str]:
    """One file. Its base tests are all tests of the problem; there are no further ones (as with ``--base-only``)."""
    name = "eval_results.json"
    correct: list[int] = []
    totals: list[int] = []
    with open(folder / name, "w", encoding="utf-8") as file:
        date = datetime.now().strftime("%Y-%m-%d %H:%M")
        file.write(f'{{"date": {json.dumps(date)}, "hash": null, "eval": {{')
        for problem, samples in graded:
            task = evalplus_id(problem)
            rows = [
                {
                    "task_id": task,
                    "solution": "" if sample.program is None else problem.whole(sample.program),
                    "base_status": _status(sample),
                    "plus_status": None,
                    "base_fail_tests": _first_failed(problem, sample),
                    "plus_fail_tests": [],
                }
                for sample in samples
            ]
            file.write(f"{', ' if totals else ''}{json.dumps(task)}: {json.dumps(rows)}")
            correct.append(sum(sample.passed for sample in samples))
            totals.append(len(samples))
        rates, _ = _pass_rates(correct, totals, EVALPLUS_KS)
        file.write(f'}}, "pass_at_k": {{"base": {json.dumps(rates)}}}}}')
    return [name]


def _status(sample: _Graded) -> str:
    if sample.passed:
        return "pass"
    return "timeout" if sample.failure in _TIMEOUTS else "fail"


def _first_failed(problem: Problem, sample: _Graded) -> list[Any]:
    """The input of the first test that failed, as evalplus shows it: the arguments of a call, or text."""
    for test, verdict in zip(problem.tests, sample.verdicts, strict=False):
        if verdict is not Verdict.PASSED:
            return [json.loads(test.input) if problem.mode is Mode.FUNCTION else test.input]
    return []


def _livecodebench(folder: Path, graded: Iterator[tuple[Problem, list[_Graded]]]) -> list[str]:
    """Three files, as its runner leaves them: outputs, metrics with every test's result, and both together."""
    names = [f"codegeneration{ending}.json" for ending in ("", "_eval", "_eval_all")]
    results: dict[str, list[list[bool | int]]] = {}
    metadata: list[list[str]] = []
    correct: list[int] = []
    totals: list[int] = []
    with (
        open(folder / names[0], "w", encoding="utf-8") as outputs,
        open(folder / names[2], "w", encoding="utf-8") as everything,
    ):
        for number, (problem, samples) in enumerate(graded):
            told = _livecodebench_problem(problem) | {
                "output_list": [sample.completion for sample in samples],
                "code_list": [sample.program or "" for sample in samples],
            }
            _element(outputs, told, number)
            passed = [sample.passed for sample in samples]
            about = [json.dumps(_failure(sample)) for sample in samples]
            rate = sum(passed) / len(passed) if passed else 0.0
            _element(everything, told | {"graded_list": passed, "pass@1": rate, "metadata": about}, number)
            results[str(number)] = [_codes(sample) for sample in samples]
            metadata.append(about)
            correct.append(sum(passed))
            totals.append(len(passed))
        for file in (outputs, everything):
            file.write("\n]\n" if totals else "[]\n")
    rates, details = _pass_rates(correct, totals, LIVECODEBENCH_KS)
    detail = {k: {str(i): value for i, value in enumerate(values)} for k, values in details.items()}
    metrics = [{**rates, "detail": detail}, results, metadata]
    (folder / names[1]).write_text(json.dumps(metrics), encoding="utf-8")
    return names


def _element(file: TextIO, value: Mapping[str, Any], number: int) -> None:
    file.write(f"{',' if number else '['}\n{json.dumps(value)}")


def _livecodebench_problem(problem: Problem) -> dict[str, Any]:
    known = problem.provenance
    day = str(known.get("date") or "")
    return {
        "question_title": str(known.get("title") or problem.id),
        "question_content": problem.statement,
        "platform": str(known.get("origin") or problem.source),
        "question_id": livecodebench_id(problem),
        "contest_id": str(known.get("contest_id") or ""),
        "contest_date": f"{day}T00:00:00" if len(day) == 10 else day,
        "starter_code": problem.starter_code,
        "difficulty": problem.difficulty,
    }


def _codes(sample: _Graded) -> list[bool | int]:
    """LiveCodeBench's result of each test up to the first that fails: true, or a negative number."""
    codes: list[bool | int] = []
    for verdict in sample.verdicts:
        if verdict is not Verdict.PASSED:
            return [*codes, _CODES.get(verdict, _CRASHED)[0]]
        codes.append(True)
    return codes or [_CRASHED[0]]


def _failure(sample: _Graded) -> dict[str, Any]:
    if sample.passed:
        return {}
    if sample.failure is None:
        return {"error": "no program", "error_code": _CRASHED[0], "error_message": _CRASHED[1]}
    code, message = _CODES.get(sample.failure, _CRASHED)
    return {"error": sample.detail, "error_code": code, "error_message": message}


def _pass_rates(
    correct: list[int], totals: list[int], ks: Sequence[int]
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """pass@k over the problems and of each, for the k that every problem has samples for."""
    known = [k for k in ks if totals and k <= min(totals)]
    if not known:
        return {}, {}
    values = pass_at_k(correct, totals, known)
    means = {f"pass@{k}": float(values[:, i].mean()) for i, k in enumerate(known)}
    return means, {f"pass@{k}": values[:, i].tolist() for i, k in enumerate(known)}


def _graded(
    run: RunFolder, problems: ProblemSet, samples: int, extract: Extract, order: Callable[[str], Any] | None
) -> Iterator[tuple[Problem, list[_Graded]]]:
    """Problems with their samples, in order of their numbers; a part of the problems is read at a time."""
    ids = list(problems.ids) if order is None else sorted(problems.ids, key=order)
    program_of = {(record["problem"], record["index"]): record["program"] for record in run.programs}
    outcomes = {
        (record["problem"], record["program"]): (tuple(map(Verdict, record["verdicts"])), record["detail"])
        for record in run.results
    }
    sizes = dict.fromkeys(ids, 0)
    for sample in first_samples(run, problems, samples):
        sizes[sample["problem"]] += len(sample["completion"])
    for part in _parts(ids, sizes):
        chosen = ProblemSet(problems.problems, {problem: problems.inputs[problem] for problem in part})
        rows: dict[str, list[tuple[int, str]]] = {problem: [] for problem in part}
        for sample in first_samples(run, chosen, samples):
            rows[sample["problem"]].append((sample["index"], sample["completion"]))
        for problem_id in part:
            problem = problems.problems[problem_id]
            graded = []
            for index, completion in sorted(rows.pop(problem_id)):
                digest = program_of.get((problem_id, index), "")
                if digest is None:
                    graded.append(_Graded(completion, None, (), ""))
                elif (problem_id, digest) in outcomes:
                    program = extract(completion, True) if problem.program_prefix else extract(completion)
                    graded.append(_Graded(completion, program, *outcomes[problem_id, digest]))
            yield problem, graded


def _parts(ids: Sequence[str], sizes: Mapping[str, int]) -> Iterator[list[str]]:
    part: list[str] = []
    size = 0
    for problem in ids:
        if part and size + sizes[problem] > _TEXT_AT_ONCE:
            yield part
            part, size = [], 0
        part.append(problem)
        size += sizes[problem]
    if part:
        yield part


_WRITERS = {"evalplus": _evalplus, "livecodebench": _livecodebench}
_ORDERS: dict[str, Callable[[str], Any] | None] = {
    "evalplus": None,
    "livecodebench": lambda problem: problem.removeprefix("livecodebench/"),  # its files are sorted by question_id
}
