"""The embedded benchmark behind the same interface as the others: its rows are generated, not read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from openrlhf_maxk.problems.mini.generator import ProblemSettings, generate
from openrlhf_maxk.problems.sources.options import PrepareOptions, option
from openrlhf_maxk.problems.sources.source import Candidate, Group, SideFiles, Source


@dataclass(frozen=True)
class MiniOptions(PrepareOptions):
    """Statements are made for a tiny base model: they are its prompts as they are."""

    tokenizer: str = option("none", "tokenizer that counts tokens; none: do without", identity=False)
    prompt: str = option(
        "statement",
        "statement: as it is; the others as for other data sets",
        choices=("statement", "chat", "chat_text", "few_shot", "plain"),
    )
    train_size: int = option(2000, "training problems")
    validation_size: int = option(96, "validation problems")
    test_size: int = option(256, "held-out problems")
    seed: int = option(0, "of the problems")


class Mini(Source):
    """See ``docs/mini.md``."""

    name = "mini"
    options_type = MiniOptions

    def __init__(self, options: MiniOptions) -> None:
        self.options = options

    def own_rows(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        o = self.options
        for problem, solution in generate(ProblemSettings(o.seed, o.train_size, o.validation_size, o.test_size)):
            yield problem.provenance["split"], {"problem": problem, "solution": solution}

    def group(self, row: Mapping[str, Any]) -> Group:
        return Group(self.name, row["problem"].difficulty)

    def narrative(self, row: Mapping[str, Any]) -> str:
        return row["problem"].statement

    def convert(self, row: Mapping[str, Any], split: str, side: SideFiles) -> Candidate:
        return Candidate(row["problem"], (row["solution"].program,))
