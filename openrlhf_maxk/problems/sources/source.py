"""What a source of problems is: which files it reads and how one row of them becomes a problem.

A row ends in exactly one of two ways: as a :class:`Candidate`, or as a :class:`Rejected` with a reason that is counted.
Whatever concerns a whole file or the whole job is a :class:`SourceError` and stops it.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from openrlhf_maxk.problems.record import Comparison, Problem
from openrlhf_maxk.problems.sources.options import PrepareOptions

Message = dict[str, str]  # "role" and "content"


class Rejected(Exception):
    """A row that does not become a problem.

    Args:
        reason: a short name that rows are counted by ("no_tests").
        detail: what exactly, for people; the same on every run and machine.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class SourceError(Exception):
    """Files that cannot be found, fetched or read, or options that contradict each other. The message says the fix."""


@dataclass(frozen=True, slots=True)
class Group:
    """What rows are counted by."""

    source: str = "?"  # where the problem comes from, e.g. "ATCODER"
    difficulty: str = "?"  # as that source grades it


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row that became a problem, before anything is known of the other rows."""

    problem: Problem
    references: tuple[str, ...] = ()  # programs known to be right
    lenient: Problem | None = None  # the same problem with a costlier, fairer judge, if references fail the first
    messages: tuple[Message, ...] = ()  # the prompt, where the row itself has one
    examples: tuple[tuple[str, str], ...] = ()  # statements and answers, for earlier turns of a chat


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it was read. ``fields`` is the reason instead where it could not be."""

    index: int  # within its file; of JSON lines, the line's
    fields: Mapping[str, Any] | Rejected


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file of rows."""

    name: str  # relative, with forward slashes: the same on every machine
    path: Path
    split: str
    size: int  # bytes
    sha256: str


class SideFiles(Protocol):
    """Files of the same data set that are fetched when a row asks for them."""

    def get(self, name: str) -> Path | None:
        """The local path of a file of the data set; None if the data set has no such file."""


class Source(ABC):
    """One data set. Its options are those of ``options_type``."""

    name: str
    aliases: ClassVar[tuple[str, ...]] = ()  # other names of its command
    options_type: ClassVar[type[PrepareOptions]]
    repo: str = ""  # on the hub
    key: ClassVar[str] = ""  # the column that tells rows apart, for people
    required: ClassVar[tuple[str, ...]] = ()  # columns without which a file is not one of this data set
    answers: Comparison | None = None  # how answers are compared, where problems ask for these
    columns: ClassVar[tuple[str, ...]] = ()  # columns that are read where present, beside the required ones; "*": all
    explains: ClassVar[bool] = False  # whether rows that are dropped are shown at the end, with what is wrong with them

    @property
    def generated(self) -> bool:
        """Whether it makes its rows itself instead of reading them from files."""
        return not self.repo

    def select(self, names: Sequence[str]) -> list[tuple[str, str]]:
        """Which of a data set's files to read, each with its split.

        Raises:
            SourceError: if files that the options ask for are missing.
        """
        return []

    def made_by(self) -> str:
        """What made the rows of a source without files, with its version: other versions may make others.

        Raises:
            SourceError: it is not installed.
        """
        return "generated"

    def own_rows(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """(split, fields) of the rows of a source without files."""
        return iter(())

    @abstractmethod
    def __init__(self, options: Any) -> None: ...

    @abstractmethod
    def group(self, row: Mapping[str, Any]) -> Group:
        """What a row is counted by. Never fails: what cannot be read is "?"."""

    @abstractmethod
    def narrative(self, row: Mapping[str, Any]) -> str:
        """What near-duplicates are found by: the task in words, without what this package adds to it.

        Raises:
            Rejected: if the row has none.
        """

    def names(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """What other data sets know a row's problem by, e.g. "codeforces:1575/A"."""
        return ()

    @abstractmethod
    def convert(self, row: Mapping[str, Any], split: str, side: SideFiles) -> Candidate:
        """The problem in a row.

        Raises:
            Rejected: if there is none.
        """

    def assign_splits(self, candidates: Sequence[tuple[str, str]]) -> list[str]:
        """The split that each problem goes to, "" for none.

        Args:
            candidates: (id, the data set's own split) of every problem that is left, in order.
        """
        return [split for _, split in candidates]


def in_random_order(ids: Sequence[str], seed: int) -> list[str]:
    """Ids in an order that depends on nothing but them and the seed."""
    return sorted(ids, key=lambda i: hashlib.sha256(f"{seed} {i}".encode()).digest())
