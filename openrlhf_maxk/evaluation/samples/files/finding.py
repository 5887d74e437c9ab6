"""Which problem a row is about: by a name in it, by the statement that its prompt holds, or by its place.

Names are compared as people mean them: capital letters, the zeros before a number and the data set's prefix do not
matter, but a prefix of another data set does: ``HumanEval/2`` is not ``mbpp/full/2``.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from openrlhf_maxk.evaluation.samples.files.answers import last_message
from openrlhf_maxk.evaluation.samples.files.formats import Entry
from openrlhf_maxk.evaluation.samples.problem_set import ProblemSet, ProblemSetError

PROMPT, POSITION = "the prompt", "position"
_VAGUE = ("id", "label", "name")  # fields whose numbers may be anything: a place in a log, a grade
_SHORTEST_PREFIX = 3  # characters of a prefix that may be a part of another one: "mbpp" of "mbppplus"
_SHORTEST_STATEMENT = 20  # characters; a shorter one may stand in a prompt by chance


class Finder:
    """Finds problems of a set.

    Args:
        problems: the set. Names of other problems in its store are found as well.
        order: ids by position, None for a place that has no problem in the store; for rows that have a position only.
    """

    def __init__(self, problems: ProblemSet, order: Sequence[str | None]) -> None:
        self._problems = problems
        self._order = order

    def by_name(self, name: str | int) -> str | None:
        """The problem of that name; None if there is none.

        Raises:
            ProblemSetError: two problems may be meant.
        """
        text = str(name).strip()
        if text in self._problems.problems:
            return text
        for given in (text, text.replace("_", "/")):  # evalplus' folders are HumanEval_0
            for before, last in _cuts(given):
                found = [problem for problem, parts in self._endings.get(last, ()) if _agree(before, parts)]
                found = [problem for problem in found if problem in self._problems.inputs] or found
                if len(found) > 1:
                    raise ProblemSetError(f"{name!r} may be {found[0]!r} or {found[1]!r}: write one of them")
                if found:
                    return found[0]
        return None

    def by_prompt(self, prompt: str) -> str | None:
        """The problem whose statement (or whole input) stands in a prompt: the last one, if there are several."""
        return self._by_text(" ".join(prompt.split()))

    def by_position(self, position: int) -> str | None:
        return self._order[position] if 0 <= position < len(self._order) else None

    @cached_property
    def _endings(self) -> dict[str, list[tuple[str, tuple[str, ...]]]]:
        """Problems by each end of their id, with the parts before it."""
        endings = defaultdict(list)
        for problem in self._problems.problems:
            for before, last in _cuts(problem):
                endings[last].append((problem, before))
        return endings

    @cached_property
    def _texts(self) -> list[tuple[str, str]]:
        """Normalised statements and inputs, each with its problem."""
        texts: dict[str, str] = {}
        for problem, asked in self._problems.inputs.items():
            user = asked if isinstance(asked, str) else last_message(asked, assistant=False) or ""
            for text in (user, self._problems.problems[problem].statement):
                texts.setdefault(" ".join(text.split()), problem)
        return [(text, problem) for text, problem in texts.items() if text]

    @cached_property
    def _by_text(self) -> Any:
        exact = dict(self._texts)
        statements = [(text, problem) for text, problem in self._texts if len(text) >= _SHORTEST_STATEMENT]

        @lru_cache(64)
        def find(prompt: str) -> str | None:
            if prompt in exact:
                return exact[prompt]
            ends = (
                (prompt.rfind(text) + len(text), len(text), problem) for text, problem in statements if text in prompt
            )
            return max(ends, default=(0, 0, None))[2]

        return find


@dataclass(frozen=True)
class Way:
    """How the problems of one file are found: by a field of that name, by :data:`PROMPT` or by :data:`POSITION`."""

    by: str

    def find(self, finder: Finder, entry: Entry) -> str | None:
        """The problem of an entry."""
        if self.by == POSITION:
            return None if entry.position is None else finder.by_position(entry.position)
        if self.by == PROMPT:
            return None if entry.prompt is None else finder.by_prompt(entry.prompt)
        return finder.by_name(entry.names[self.by]) if self.by in entry.names else None

    def shown(self, entry: Entry) -> str:
        """What an entry has to be found by, for people."""
        if self.by == POSITION:
            return f"position {entry.position}"
        text = entry.prompt if self.by == PROMPT else entry.names.get(self.by)
        return repr(text if len(str(text)) <= 60 else f"{str(text)[:57]}...")


def choose_way(entries: Sequence[Entry], finder: Finder, *, ordered: bool) -> Way:
    """What finds most of a file's first entries; of equals a name, then the prompt, then a number that may be the
    place in some other list. The place itself counts where the user gave the order, or where there is nothing else.
    """
    if ordered and any(entry.position is not None for entry in entries):
        return Way(POSITION)
    ways = [Way(name) for name in dict.fromkeys(name for entry in entries for name in entry.names)]
    vague = [way for way in ways if way.by in _VAGUE]
    numbers = [way for way in vague if all(_is_number(e.names[way.by]) for e in entries if way.by in e.names)]
    ways = [way for way in ways if way not in numbers]
    if any(entry.prompt is not None for entry in entries):
        ways.append(Way(PROMPT))
    ways += numbers
    if not ways:
        return Way(POSITION)
    return max(ways, key=lambda way: sum(_finds(way, finder, entry) for entry in entries))


def _finds(way: Way, finder: Finder, entry: Entry) -> bool:
    try:
        return way.find(finder, entry) is not None
    except ProblemSetError:  # two may be meant; said where it is used
        return True


def _is_number(name: str | int) -> bool:
    return isinstance(name, int) or name.strip().isdecimal()


def _cuts(name: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each end of a name, the longest first, with the parts before it; all in the form in which they are compared."""
    parts = [str(int(part)) if part.isdecimal() else part for part in name.casefold().split("/")]
    for i in range(len(parts)):
        yield tuple(parts[:i]), "/".join(parts[i:])


def _agree(before: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    """Whether the beginning of a name may be that of an id: each part is, or is in, one of the id's, or the reverse."""
    return not parts or all(any(_related(a, b) for b in parts) for a in before)


def _related(a: str, b: str) -> bool:
    a, b = (re.sub(r"[^a-z0-9]", "", text) for text in (a, b))
    return a == b or (min(len(a), len(b)) >= _SHORTEST_PREFIX and (a in b or b in a))
