"""Samples that were made elsewhere: a JSONL file of problem ids and completions."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrlhf_maxk.evaluation.samples.problem_set import ProblemSet, ProblemSetError, read_json_lines
from openrlhf_maxk.evaluation.samples.records import Request, Sample

ID_FIELDS = ("problem", "problem_id", "task_id", "question_id", "label")
COMPLETION_FIELDS = ("completion", "completions", "response", "output", "code_list", "generation")
_PER_BATCH = 1024


@dataclass(frozen=True)
class Fields:
    """The names of the two fields; the first known name that a line has is taken where none is given."""

    id: str | None = None
    completion: str | None = None


ANY_FIELDS = Fields()


@dataclass(frozen=True)
class CompletionsFile:
    """A file of completions, checked from start to end. A problem's samples are numbered in the order of the file.

    A line names a problem and holds one completion or a list of them. It may also hold ``tokens`` (how many were
    generated), ``logprob`` (of the completion, in nats) and ``finish``.
    """

    path: Path
    fields: Fields
    counts: Mapping[str, int]  # completions of each problem of the set
    others: int  # completions of problems outside the set, which are passed over
    sha256: str

    @classmethod
    def open(cls, path: str | Path, problems: ProblemSet, fields: Fields = Fields()) -> CompletionsFile:
        """Check a file.

        Raises:
            ProblemSetError: a malformed line, or one about a problem that is not in the store (with its number).
            FileNotFoundError: there is no such file.
        """
        path = Path(path)
        with open(path, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        counts = dict.fromkeys(problems.ids, 0)
        others = 0
        for where, problem, completions, _ in _lines(path, fields):
            if problem in counts:
                counts[problem] += len(completions)
            elif problem in problems.problems:
                others += len(completions)
            else:
                raise ProblemSetError(f"{where}: problem {problem!r} is not in the problem store")
        if not any(counts.values()):
            raise ProblemSetError(f"{path} holds no completion of the problems to evaluate on")
        return cls(path, fields, counts, others, sha256)

    def missing(self) -> list[str]:
        """Problems of the set without any completion."""
        return [problem for problem, count in self.counts.items() if not count]

    def identity(self) -> dict[str, Any]:
        return {"kind": "completions", "sha256": self.sha256, "fields": [self.fields.id, self.fields.completion]}

    def available(self, problem: str) -> int:
        return self.counts[problem]

    def sample(self, requests: Sequence[Request]) -> Iterator[list[Sample]]:
        """The completions asked for, read in the order of the file."""
        wanted = {(r.problem, r.first + i) for r in requests for i in range(r.count)}
        seen = dict.fromkeys(self.counts, 0)
        batch: list[Sample] = []
        for _, problem, completions, row in _lines(self.path, self.fields):
            for completion in completions if problem in seen else []:
                index, seen[problem] = seen[problem], seen[problem] + 1
                if (problem, index) in wanted:
                    batch.append(Sample(problem, index, completion, row["finish"], row["tokens"], row["logprob"]))
            if len(batch) >= _PER_BATCH:
                yield batch
                batch = []
        if batch:
            yield batch


def _lines(path: Path, fields: Fields) -> Iterator[tuple[str, str, list[str], dict[str, Any]]]:
    """Each line: where it is, its problem, its completions, and what else is known about them."""
    for where, row in read_json_lines(path):
        problem = row[_name(where, row, fields.id, ID_FIELDS, "the problem's id", "--id-field")]
        if not isinstance(problem, str):
            raise ProblemSetError(f"{where}: the problem's id must be text, not {type(problem).__name__}")
        name = _name(where, row, fields.completion, COMPLETION_FIELDS, "the completion", "--completion-field")
        value = row[name]
        completions = [value] if isinstance(value, str) else value
        if not isinstance(completions, list) or not all(isinstance(text, str) for text in completions):
            raise ProblemSetError(f"{where}: {name!r} must be text or a list of texts")
        yield where, problem, completions, _known(where, row, single=len(completions) == 1)


def _name(where: str, row: Mapping, given: str | None, known: Collection[str], what: str, option: str) -> str:
    for name in [given] if given is not None else known:
        if name in row:
            return name
    expected = repr(given) if given is not None else ", ".join(known)
    raise ProblemSetError(f"{where} has no field for {what} ({expected}); name it with {option}")


def _known(where: str, row: Mapping[str, Any], *, single: bool) -> dict[str, Any]:
    """Length, log-probability and ending of a completion; of a list of completions none is known."""
    tokens, logprob, finish = row.get("tokens"), row.get("logprob"), row.get("finish")
    if not single:
        return {"tokens": -1, "logprob": None, "finish": "stop"}
    if tokens is not None and (not isinstance(tokens, int) or tokens < 0):
        raise ProblemSetError(f"{where}: 'tokens' must be a number of tokens, not {tokens!r}")
    if logprob is not None and (not isinstance(logprob, int | float) or not logprob <= 0):
        raise ProblemSetError(f"{where}: 'logprob' must be a log-probability (at most 0), not {logprob!r}")
    if logprob is not None and tokens is None:
        raise ProblemSetError(f"{where}: 'logprob' needs 'tokens' beside it, for the entropy of a token")
    return {"tokens": -1 if tokens is None else tokens, "logprob": logprob, "finish": str(finish or "stop")}
