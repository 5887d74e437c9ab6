"""The problems that a model is evaluated on, and what it is asked about each of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openrlhf_maxk.problems.record import Problem
from openrlhf_maxk.problems.store import ProblemStore

Input = str | list[dict[str, Any]]  # text, or the messages of a chat
Chat = Callable[[list[dict[str, Any]]], str]  # a tokenizer's chat template

_NOT_DECISIVE = ("source", "difficulty", "provenance", "statement")  # the statement acts through the prompt


class ProblemSetError(ValueError):
    """Problems that cannot be evaluated on. The message names the file and the fix."""


@dataclass(frozen=True, eq=False)
class ProblemSet:
    """Problems in a fixed order, looked up when they are needed, and the input that each is put to the model with."""

    problems: Mapping[str, Problem]
    inputs: Mapping[str, Input]  # by problem id; its order is the order of the set

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self.inputs)

    def __len__(self) -> int:
        return len(self.inputs)

    def __iter__(self) -> Iterator[Problem]:
        return (self.problems[problem] for problem in self.inputs)

    def first(self, count: int) -> ProblemSet:
        """The first ``count`` problems."""
        return ProblemSet(self.problems, dict(list(self.inputs.items())[:count]))

    def prompts(self, chat: Chat | None = None, template: str | None = None) -> dict[str, str]:
        """The text put before the model, by problem id: through a chat template, or through ``template`` (with
        ``{}`` for the input), or as it is.

        Raises:
            ProblemSetError: an input made of messages and no chat template.
        """
        if template is not None and "{}" not in template:
            raise ProblemSetError(f"the prompt template {template!r} has no {{}}, the place of the problem's text")
        prompts = {}
        for problem, text in self.inputs.items():
            if chat is not None:
                prompts[problem] = chat(messages_of(text))
            elif isinstance(text, str):
                prompts[problem] = text if template is None else template.replace("{}", text)
            else:
                raise ProblemSetError(f"the input of problem {problem!r} is a chat, but no chat template is in use")
        return prompts

    def digest(self, prompts: Mapping[str, str] | None = None) -> str:
        """A hash of all that decides samples and verdicts: ids, prompts (the inputs if none are given), tests, limits,
        judging; not labels such as difficulty."""
        digest = hashlib.sha256()
        for problem in self:
            decisive = {name: value for name, value in asdict(problem).items() if name not in _NOT_DECISIVE}
            decisive["prompt"] = (self.inputs if prompts is None else prompts)[problem.id]
            digest.update(json.dumps(decisive, sort_keys=True).encode() + b"\n")
        return digest.hexdigest()[:32]


def messages_of(text: Input) -> list[dict[str, Any]]:
    """An input as the messages of a chat."""
    return [{"role": "user", "content": text}] if isinstance(text, str) else text


def load_problem_set(folder: str | Path, split: str | None = None) -> ProblemSet:
    """The problems in a store, or one split of them.

    A split is a file ``<split>.jsonl`` in the folder, of lines with ``input`` (text or messages) and ``label`` (a
    problem id), as training reads it; where there is none, it is the problems whose provenance names that split.
    Without a split all problems are taken, with their statements as input.

    Raises:
        ProblemSetError: no such split, an empty one, or a malformed line (with its number).
        StoreError: there is no problem store at ``folder``.
    """
    folder = Path(folder)
    problems = ProblemStore(folder)
    if split is None:
        inputs: dict[str, Input] = {problem: problems[problem].statement for problem in problems}
    elif (path := folder / f"{split}.jsonl").is_file():
        inputs = _read_split(path, problems)
    else:
        inputs = {p.id: p.statement for p in problems.values() if p.provenance.get("split") == split}
        if not inputs:
            known = sorted(path.stem for path in folder.glob("*.jsonl"))
            raise ProblemSetError(f"{folder} has no split {split!r}; there is {', '.join(known) or 'no split'}")
    if not inputs:
        raise ProblemSetError(f"{folder if split is None else path} holds no problems")
    return ProblemSet(problems, inputs)


def _read_split(path: Path, problems: ProblemStore) -> dict[str, Input]:
    inputs: dict[str, Input] = {}
    for where, row in read_json_lines(path):
        for name in ("input", "label"):
            if name not in row:
                raise ProblemSetError(f"{where}: the field {name!r} is missing")
        if not isinstance(row["input"], str | list) or not isinstance(row["label"], str):
            raise ProblemSetError(f"{where}: input must be text or a list of messages, label a problem id")
        if row["label"] not in problems:
            raise ProblemSetError(f"{where}: problem {row['label']!r} is not in the store")
        if row["label"] in inputs:
            raise ProblemSetError(f"{where}: problem {row['label']!r} occurs twice")
        inputs[row["label"]] = row["input"]
    return inputs


def read_json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSONL file, each with "file, line n" for messages; empty lines are passed over.

    Raises:
        ProblemSetError: a line that is not a JSON object, or not UTF-8.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ProblemSetError(f"{where} is not JSON: {error}") from None
            if not isinstance(row, dict):
                raise ProblemSetError(f"{where} must be a JSON object, not {type(row).__name__}")
            yield where, row
