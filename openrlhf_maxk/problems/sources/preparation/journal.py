"""What a preparation has done so far, on disk, so that a killed one goes on from there.

A journal is a folder beside the one to be written. Rows are decided in chunks; a chunk's two files are written whole or
not at all, the one with the decisions last. Which rows make up a chunk does not change what is written in the end.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from openrlhf_maxk.problems.atomic import write_text
from openrlhf_maxk.problems.record import Comparison, Judge, Limits, Mode, Problem, Test
from openrlhf_maxk.problems.sources.preparation.decontaminate import Fingerprint
from openrlhf_maxk.problems.sources.preparation.prompts import Prompt
from openrlhf_maxk.problems.sources.source import Group, SourceError


@dataclass(frozen=True)
class Decision:
    """What became of one row."""

    file: int  # position in the list of files
    row: int  # within the file
    group: Group
    reason: str = ""  # why it was dropped; "" if it was not
    detail: str = ""
    id: str = ""
    split: str = ""  # the data set's own
    fingerprint: Fingerprint | None = None  # None if the row has no statement
    validation: str = ""
    statement_tokens: int | None = None
    prompt_tokens: int | None = None


@dataclass(frozen=True)
class Prepared:
    """A problem as it will be written."""

    problem: Problem
    references: tuple[str, ...]
    prompt: Prompt


@dataclass(frozen=True)
class ChunkEnd:
    """Where a chunk ends, and so where the next one starts."""

    file: int
    next_row: int
    file_ends: bool
    file_error: str = ""  # why the rest of the file could not be read
    side_files: Mapping[str, str] = field(default_factory=dict)  # that rows asked for, with their SHA-256


class Journal:
    """The journal of the folder ``out``; held by one process at a time.

    Raises:
        SourceError: if another process holds it.
    """

    def __init__(self, out: Path) -> None:
        self.path = out.parent / f".{out.name}.progress"
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise SourceError(
                f"{out} is being prepared by another process: wait for it, or choose another --out"
            ) from None

    def identity(self) -> dict[str, Any] | None:
        """What this journal is of, None if it is new."""
        try:
            return json.loads((self.path / "identity.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None

    def start(self, identity: Mapping[str, Any]) -> None:
        """Keep what was done for the same identity, forget everything else."""
        if self.identity() == json.loads(json.dumps(identity)):
            return
        for entry in self.path.iterdir():
            entry.unlink()
        write_text(self.path / "identity.json", json.dumps(identity))

    def chunks(self) -> list[Path]:
        """The complete chunks, in order."""
        return sorted(self.path.glob("*.decisions.jsonl"))

    def last(self) -> ChunkEnd | None:
        """Where the last complete chunk ended."""
        chunks = self.chunks()
        return _end(chunks[-1]) if chunks else None

    def append(self, end: ChunkEnd, decisions: Sequence[Decision], prepared: Sequence[Prepared]) -> None:
        """Write a chunk. ``prepared`` belongs to the decisions without a reason, in order."""
        stem = f"{len(self.chunks()):06d}"
        write_text(self.path / f"{stem}.problems.jsonl", "".join(f"{_dump(p)}\n" for p in prepared))
        lines = [json.dumps(asdict(end)), *(json.dumps(_decision(d)) for d in decisions)]
        write_text(self.path / f"{stem}.decisions.jsonl", "".join(f"{line}\n" for line in lines))

    def errors(self) -> list[ChunkEnd]:
        """The files that could not be read to their end."""
        return [end for end in map(_end, self.chunks()) if end.file_error]

    def side_files(self) -> dict[str, str]:
        """The files that rows asked for, with their SHA-256."""
        return dict(
            sorted((name, digest) for chunk in self.chunks() for name, digest in _end(chunk).side_files.items())
        )

    def decisions(self) -> Iterator[Decision]:
        """Every decision, in order."""
        for chunk in self.chunks():
            with chunk.open(encoding="utf-8") as f:
                next(f)
                for line in f:
                    yield _read_decision(json.loads(line))

    def prepared(self) -> Iterator[Prepared]:
        """Every problem of a decision without a reason, in order, one at a time."""
        for chunk in self.chunks():
            path = chunk.with_name(chunk.name.replace(".decisions.", ".problems."))
            with path.open(encoding="utf-8") as f:
                for line in f:
                    yield _load(json.loads(line))

    def remove(self) -> None:
        """The job is done."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.close()

    def close(self) -> None:
        """Let others have it; a journal of nothing leaves no folder."""
        with suppress(OSError):
            self.path.rmdir()
        os.close(self._lock)


def _end(chunk: Path) -> ChunkEnd:
    with chunk.open(encoding="utf-8") as f:
        return ChunkEnd(**json.loads(f.readline()))


def _decision(decision: Decision) -> dict[str, Any]:
    values = {f.name: getattr(decision, f.name) for f in fields(decision)}
    values["group"] = [decision.group.source, decision.group.difficulty]
    if (f := decision.fingerprint) is not None:
        ngrams = base64.b64encode(f.ngrams.astype("<u8").tobytes()).decode()
        values["fingerprint"] = [f.digest, ngrams, list(f.names)]
    return values


def _read_decision(values: dict[str, Any]) -> Decision:
    group = Group(*values.pop("group"))
    print_ = None
    if (found := values.pop("fingerprint")) is not None:
        ngrams = np.frombuffer(base64.b64decode(found[1]), "<u8").astype(np.uint64)
        print_ = Fingerprint(found[0], ngrams, tuple(found[2]))
    return Decision(**values, group=group, fingerprint=print_)


def _dump(prepared: Prepared) -> str:
    return json.dumps(asdict(prepared))


def _load(values: dict[str, Any]) -> Prepared:
    problem = values["problem"]
    judge = problem["judge"]
    return Prepared(
        Problem(
            **{
                **problem,
                "tests": tuple(Test(**test) for test in problem["tests"]),
                "mode": Mode(problem["mode"]),
                "limits": Limits(**problem["limits"]),
                "judge": Judge(**{**judge, "comparison": Comparison(judge["comparison"])}),
            }
        ),
        tuple(values["references"]),
        values["prompt"],
    )
