"""reasoning-gym (Stojanovski et al., 2025, arXiv:2505.24760): generated tasks with graded verifiers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from openrlhf_maxk.problems.record import Comparison, Judge, Mode, Problem, Test
from openrlhf_maxk.problems.sources.options import PrepareOptions, option
from openrlhf_maxk.problems.sources.reading import reasoning_gym
from openrlhf_maxk.problems.sources.source import Candidate, Group, Rejected, SideFiles, Source, SourceError


@dataclass(frozen=True)
class ReasoningGymOptions(PrepareOptions):
    """Each task gives as many problems as the others."""

    tokenizer: str = option("none", "tokenizer that counts tokens; none: do without")
    prompt: str = option(
        "chat",
        "chat: messages, for --data.apply_chat_template; chat_text: rendered; plain: text for base models",
        choices=("chat", "chat_text", "plain"),
    )
    tasks: str = option("", "names of tasks, comma separated")
    train_size: int = option(2000, "training problems, of all tasks together")
    test_size: int = option(200, "held-out problems, of all tasks together")
    seed: int = option(0, "of the problems")
    shots: int = option(0, "questions of the same task, with their answers, as earlier turns of each chat")
    config: str = option("{}", 'settings of tasks, as JSON: {"chain_sum": {"max_terms": 4}}')

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError("--tasks: name one of reasoning-gym's tasks or several, such as countdown,chain_sum")
        try:
            settings = json.loads(self.config)
        except ValueError as error:
            raise ValueError(f"--config is not JSON: {error}") from None
        if not isinstance(settings, dict) or not all(isinstance(of_one, dict) for of_one in settings.values()):
            raise ValueError("--config must be a JSON object that holds an object for each task")
        if unknown := sorted(set(settings) - set(self.names)):
            raise ValueError(f"--config has settings of {', '.join(unknown)}, which --tasks does not name")
        if reserved := sorted(name for of_one in settings.values() for name in of_one if name in ("seed", "size")):
            raise ValueError(f"--config sets {', '.join(reserved)}: --seed, --train_size and --test_size do")
        if self.shots < 0:
            raise ValueError(f"--shots must be at least 0, not {self.shots}")
        if self.shots and self.prompt == "plain":
            raise ValueError("--shots are turns of a chat: use --prompt chat or chat_text, not plain")
        super().__post_init__()

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(name.strip() for name in self.tasks.split(",") if name.strip()))


class ReasoningGym(Source):
    """The tasks of https://github.com/open-thought/reasoning-gym."""

    name = "reasoning_gym"
    options_type = ReasoningGymOptions
    answers = Comparison.REASONING_GYM

    def __init__(self, options: ReasoningGymOptions) -> None:
        self.options = options

    def made_by(self) -> str:
        return f"reasoning-gym {reasoning_gym.version()}"

    def own_rows(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Of each task the first questions are shown as examples, the next are held out, the others are
        for training; none occurs twice."""
        names, shots = self.options.names, self.options.shots
        test, train = -(-self.options.test_size // len(names)), -(-self.options.train_size // len(names))
        examples: dict[str, list[tuple[str, str]]] = {name: [] for name in names}
        seen = dict.fromkeys(names, 0)
        rows = reasoning_gym.entries(names, shots + test + train, self.options.seed, json.loads(self.options.config))
        for row in rows:
            task = row["task"]
            if len(examples[task]) < shots:
                examples[task].append(_example(row["entry"]))
            else:
                seen[task] += 1
                yield "test" if seen[task] <= test else "train", {**row, "examples": examples[task]}

    def group(self, row: Mapping[str, Any]) -> Group:
        return Group(self.name, row["task"])

    def narrative(self, row: Mapping[str, Any]) -> str:
        return row["entry"]["question"]

    def convert(self, row: Mapping[str, Any], split: str, side: SideFiles) -> Candidate:
        entry = row["entry"]
        answer = entry["answer"] if isinstance(entry["answer"], str) else ""
        if len(entry["question"]) > self.options.max_statement_chars:
            raise Rejected("statement_too_long", f"{len(entry['question'])} characters")
        judged = {"task": row["task"], "config": row["config"], "entry": entry}
        problem = Problem(
            id=f"{self.name}/{row['task']}/{row['index']}",
            statement=entry["question"],
            tests=(Test(json.dumps(judged), answer),),
            mode=Mode.ANSWER,
            judge=Judge(Comparison.REASONING_GYM),
            source=self.name,
            difficulty=row["task"],
            provenance={"split": split, "seed": self.options.seed, "made_by": self.made_by()},
        )
        return Candidate(problem, (answer,) if answer else (), examples=tuple(row["examples"]))


def _example(entry: Mapping[str, Any]) -> tuple[str, str]:
    """A question, and what is to be said to it.

    Raises:
        SourceError: the task gives no answers.
    """
    if not isinstance(entry["answer"], str) or not entry["answer"]:
        raise SourceError("--shots: the task of this question gives no answer to show: " + entry["question"][:80])
    return entry["question"], f"<answer>{entry['answer']}</answer>"
