"""Samples that were made elsewhere: a file, or a folder, of any tool whose format is known (:mod:`.files.formats`)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from openrlhf_maxk.evaluation.samples.files.containers import Container, natural, open_container
from openrlhf_maxk.evaluation.samples.files.finding import POSITION, Finder, Way, choose_way
from openrlhf_maxk.evaluation.samples.files.formats import ID_FIELDS, Entry, Fields, Format, recognise, scalar
from openrlhf_maxk.evaluation.samples.problem_set import ProblemSet, ProblemSetError
from openrlhf_maxk.evaluation.samples.records import Request, Sample

ANY_FIELDS = Fields()
_PER_BATCH = 1024
_LOOKED_AT = 20  # rows that decide how problems are found


@dataclass
class Skipped:
    """Completions that are passed over for one reason."""

    count: int = 0
    problems: set[str] = field(default_factory=set)  # by what they are called in the file

    def add(self, count: int, problem: str) -> None:
        self.count += count
        self.problems.add(problem)


@dataclass(frozen=True)
class CompletionsFile:
    """A file of completions, checked from start to end. A problem's samples are numbered in the order of the file.

    A null completion was not generated: it is no sample. An empty one was: it is a sample without a program.
    """

    path: Path
    fields: Fields
    container: Container
    format: Format
    way: Way
    finder: Finder
    counts: Mapping[str, int]  # completions of each problem of the set
    skipped: Mapping[str, Skipped]  # by reason
    sha256: str
    ids_sha256: str | None

    @classmethod
    def open(
        cls,
        path: str | Path,
        problems: ProblemSet,
        fields: Fields = ANY_FIELDS,
        *,
        ids: str | Path | None = None,
        order: Sequence[str] | None = None,
    ) -> CompletionsFile:
        """Recognise a file, and check it.

        Args:
            path: the file, or a folder.
            problems: the problems to evaluate on.
            fields: of the problem's id and of the completion, where they are not to be found out.
            ids: a file of problem ids (one a line, a JSON array, or rows with an id), by position. Then rows that know
                their position are found by it.
            order: ids by position where there is no such file; those of ``problems`` unless given.

        Raises:
            ProblemSetError: a format that is not known, a malformed row (with its place), or nothing that is of use.
            FileNotFoundError: there is no such file.
        """
        path = Path(path)
        container = open_container(path, [name for name in (fields.id, fields.completion) if name is not None])
        given = None if ids is None else _read_ids(Path(ids), Finder(problems, ()))
        finder = Finder(problems, given if given is not None else order or problems.ids)
        first, head = None, []
        for where, row in islice(container, _LOOKED_AT):
            if first is None:
                first, found = row, recognise(row, fields)
            head.append(_entry(found, where, row, first, fields))
        if first is None:
            raise ProblemSetError(f"{path} holds no completion ({container.kind} without a row)")
        way = choose_way(head, finder, ordered=ids is not None)
        digests = [None if file is None else _sha256(Path(file)) for file in (path, ids)]
        file = cls(path, fields, container, found, way, finder, {}, {}, str(digests[0]), digests[1])
        return file._counted(problems, None if given is not None else len(order or problems.ids))

    def _counted(self, problems: ProblemSet, places: int | None) -> CompletionsFile:
        counts = dict.fromkeys(problems.ids, 0)
        skipped: dict[str, Skipped] = {}
        rows, example = 0, ""
        for where, problem, entry in self._entries():
            rows += 1
            generated = sum(answer.text is not None for answer in entry.answers)
            shown = self.way.shown(entry)
            example = example or shown
            if entry.skipped:
                skipped.setdefault(entry.skipped, Skipped()).add(1, where)
                continue
            if problem in counts:
                counts[problem] += generated
            else:
                reason = "of problems outside the split or the limit"
                reason = "of problems that are not in the problem store" if problem is None else reason
                skipped.setdefault(reason, Skipped()).add(generated, shown)
            if missing := len(entry.answers) - generated or not entry.answers:
                skipped.setdefault("null: not generated", Skipped()).add(missing, shown)
        if self.way.by == POSITION and places is not None and rows != places:
            raise ProblemSetError(
                f"{self.path} holds {rows} {self.format.name}, but there are {places} problems: "
                "give the problems' ids in the order of the file with --ids FILE"
            )
        if not any(counts.values()):
            raise ProblemSetError(
                f"{self.path} holds no completion of the problems to evaluate on: {self.what()}; "
                f"its first is {example}, the first of {len(problems)} problems is {problems.ids[0]!r}. "
                "Name the field of the ids with --id-field, that of the completion with --completion-field"
            )
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return CompletionsFile(**values | {"counts": counts, "skipped": skipped})

    def what(self) -> str:
        """What the file was taken for, and how its problems are found."""
        return f"read as {self.container.kind} ({self.format.name}), problems by {self.way.by}"

    def report(self) -> list[str]:
        """What was read, and what was passed over and why; a line each."""
        taken = sum(self.counts.values())
        lines = [f"{self.path}: {self.what()}: {taken} completions of {sum(map(bool, self.counts.values()))} problems"]
        for reason, skipped in self.skipped.items():
            example = next(iter(sorted(skipped.problems)))
            among = f"of {len(skipped.problems)} problems, such as " if len(skipped.problems) > 1 else ""
            lines.append(f"  passed over: {skipped.count} {reason} ({among}{example})")
        return lines

    def missing(self) -> list[str]:
        """Problems of the set without any completion."""
        return [problem for problem, count in self.counts.items() if not count]

    def identity(self) -> dict[str, Any]:
        key = {"kind": "completions", "sha256": self.sha256, "fields": [self.fields.id, self.fields.completion]}
        return key if self.ids_sha256 is None else key | {"ids": self.ids_sha256}

    def available(self, problem: str) -> int:
        return self.counts[problem]

    def sample(self, requests: Sequence[Request]) -> Iterator[list[Sample]]:
        """The completions asked for, read in the order of the file."""
        wanted = {(r.problem, r.first + i) for r in requests for i in range(r.count)}
        seen = dict.fromkeys(self.counts, 0)
        batch: list[Sample] = []
        for _, problem, entry in self._entries():
            if problem not in seen:
                continue
            for answer in entry.answers:
                if answer.text is None:
                    continue
                index, seen[problem] = seen[problem], seen[problem] + 1
                if (problem, index) in wanted:
                    batch.append(Sample(problem, index, answer.text, answer.finish, answer.tokens, answer.logprob))
            if len(batch) >= _PER_BATCH:
                yield batch
                batch = []
        if batch:
            yield batch

    def _entries(self) -> Iterator[tuple[str, str | None, Entry]]:
        """Each row: where it is, its problem if that is in the store, and what it says."""
        first: Any = None
        for place, (where, row) in enumerate(self.container):
            first = row if first is None else first
            entry = _entry(self.format, where, row, first, self.fields, place)
            try:
                yield where, None if entry.skipped else self.way.find(self.finder, entry), entry
            except ProblemSetError as error:
                raise ProblemSetError(f"{where}: {error}") from None


def _entry(format: Format, where: str, row: Any, first: Any, fields: Fields, place: int = 0) -> Entry:
    """What a row says; one that knows no position of its own has that of its place."""
    try:
        entry = format.read(row, first, fields)
    except ValueError as error:
        raise ProblemSetError(f"{where}{'' if str(error).startswith(('has ', 'must ')) else ':'} {error}") from None
    except (AttributeError, KeyError, TypeError):
        raise ProblemSetError(f"{where} is not as the first row, which is of the format {format.name}") from None
    if entry.position is None and not entry.names and entry.prompt is None:
        return Entry(entry.answers, position=place, skipped=entry.skipped)
    return entry


def _read_ids(path: Path, finder: Finder) -> list[str | None]:
    """The problems that a file names, one a line, in an array, or in the rows of a data set."""
    text = path.read_text(encoding="utf-8-sig") if path.suffix in ("", ".txt", ".ids", ".lst") else ""
    if text.strip() and text.lstrip()[0] not in "[{":
        return [finder.by_name(line) for line in text.splitlines() if line.strip()]
    found: list[str | None] = []
    for where, row in open_container(path):
        values = row if isinstance(row, list) else [row[name] for name in ID_FIELDS if name in row][:1]
        names = [name for name in map(scalar, values) if name is not None]
        if not names or len(names) < len(values):
            raise ProblemSetError(f"{where} names no problem: --ids takes a file of ids, one a line")
        found += [finder.by_name(name) for name in names]
    return found


def _sha256(path: Path) -> str:
    """Of a file; of a folder's files, with their names."""
    if path.is_file():
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for inner in sorted((p for p in path.rglob("*") if p.is_file()), key=lambda p: natural(str(p.relative_to(path)))):
        digest.update(f"{inner.relative_to(path)}\0{_sha256(inner)}\n".encode())
    return digest.hexdigest()
