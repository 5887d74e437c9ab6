"""What is wrong with samples before any test can be: no program, one that does not compile, one that crashes at once.

Many of these are a sign of the machinery around the model (an end token, a template, a missing import), which pass@k
does not tell from a model that cannot solve problems. Training and evaluation count them alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from openrlhf_maxk.problems.verdict import ProgramResult, Verdict

MANY = 0.05  # of the samples: from here on an example is shown
MOST = 0.5  # of the samples of a training step: from here on it is said

_COMPILER = ("SyntaxError", "IndentationError", "TabError")
_SHOWN = 70  # characters of either end of a completion


class Ailment(StrEnum):
    """Why no test had a say; the values are names of metrics."""

    NO_PROGRAM = "no_program"
    NOT_COMPILED = "not_compiled"
    CRASHED_AT_ONCE = "crashed_at_once"


TEXTS: Mapping[Ailment, str] = {
    Ailment.NO_PROGRAM: "without a program or answer",
    Ailment.NOT_COMPILED: "that do not compile",
    Ailment.CRASHED_AT_ONCE: "that crash on every test before they print anything",
}


def ailment(verdicts: Sequence[str], silent: bool, detail: str) -> Ailment | None:
    """What a program suffers from; None if a test had a say.

    Args:
        verdicts: of its tests.
        silent: it has printed nothing on any of them.
        detail: the last line of the traceback of the first test that failed.
    """
    if not verdicts or any(verdict != Verdict.CRASHED for verdict in verdicts):
        return None
    if detail.startswith(_COMPILER):
        return Ailment.NOT_COMPILED
    return Ailment.CRASHED_AT_ONCE if silent else None


def ailment_of(result: ProgramResult) -> Ailment | None:
    """The same, of what running a program told."""
    tests = result.tests
    detail = next((test.detail for test in tests if test.verdict is not Verdict.PASSED), "")
    return ailment([test.verdict for test in tests], not any(test.output for test in tests), detail)


def as_metrics(found: Ailment | None) -> dict[str, float]:
    """One number for each ailment, to be averaged over samples."""
    return {str(kind): float(kind is found) for kind in Ailment}


def excerpt(completion: str) -> str:
    """Both ends of a completion on one line: what is wrong is often there."""
    if len(completion) <= 2 * _SHOWN:
        return repr(completion)
    return f"{completion[:_SHOWN]!r} … {completion[-_SHOWN:]!r}"


@dataclass
class Health:
    """The ailments of many samples."""

    samples: int = 0
    counts: Counter[Ailment] = field(default_factory=Counter)
    examples: dict[Ailment, str] = field(default_factory=dict)  # the first of each

    def add(self, found: Ailment | None, where: str, completion: str, detail: str = "") -> None:
        """Count a sample; ``where`` it stands, for the example."""
        self.samples += 1
        if found is None:
            return
        self.counts[found] += 1
        if found not in self.examples:
            self.examples[found] = f"{where}: {f'{detail}, in ' if detail else ''}{excerpt(completion)}"

    def lines(self) -> list[str]:
        """For people: one line with the counts, and one for an example of each ailment that many samples have."""
        counts = ", ".join(f"{self.counts[kind]} {TEXTS[kind]}" for kind in Ailment)
        many = [kind for kind in Ailment if self.counts[kind] and self.counts[kind] >= MANY * self.samples]
        return [
            f"health of {self.samples} samples: {counts}",
            *(f"  {TEXTS[kind]}, such as {self.examples[kind]}" for kind in many),
        ]
