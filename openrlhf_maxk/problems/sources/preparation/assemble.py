"""From decisions about single rows to a prepared folder: repeats dropped, splits assigned, everything accounted for.

Memory holds the fingerprints of all rows; the problems themselves pass through one by one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from openrlhf_maxk import __version__
from openrlhf_maxk.problems.atomic import new_folder
from openrlhf_maxk.problems.record import Problem, ReferenceSolution
from openrlhf_maxk.problems.sources.options import PrepareOptions
from openrlhf_maxk.problems.sources.preparation import manifest as account
from openrlhf_maxk.problems.sources.preparation.decontaminate import (
    FINGERPRINTS,
    fingerprint,
    repeats,
    write_fingerprints,
)
from openrlhf_maxk.problems.sources.preparation.journal import ChunkEnd, Decision, Journal
from openrlhf_maxk.problems.sources.source import DataFile, Source, SourceError
from openrlhf_maxk.problems.store import INDEX, PROBLEMS, SOLUTIONS, TESTS, ProblemWriter

DROPPED = "dropped.jsonl"
SHOWN = 5  # dropped rows, of one's own problems


class Assembler:
    """Writes the folder of a data set.

    Args:
        revision: of the files, kept with every problem.
    """

    def __init__(self, source: Source, options: PrepareOptions, data_files: Sequence[DataFile], revision: str) -> None:
        self.source = source
        self.options = options
        self.data_files = data_files
        self.revision = revision

    def assemble(self, out: Path, journal: Journal, identity: Mapping[str, Any]) -> dict[str, Any]:
        """Write the folder in one step; returns its manifest.

        Raises:
            SourceError: if no problem is left.
        """
        decisions = self._drop_repeats(list(journal.decisions()))
        left = [i for i, d in enumerate(decisions) if not d.reason]
        splits = self.source.assign_splits([(decisions[i].id, decisions[i].split) for i in left])
        for i, split in zip(left, splits, strict=True):
            reason = "" if split else "beyond_split_sizes"
            decisions[i] = replace(decisions[i], split=split or decisions[i].split, reason=reason)
        if not any(splits):
            reasons = _places(decisions, self.data_files) if self.source.explains else []
            raise SourceError("\n  ".join([_nothing_left(decisions), *reasons]))
        with new_folder(out) as folder:
            names = self._write_problems(folder, journal, decisions)
            _write_dropped(folder, decisions, self.data_files)
            prints = [(d.id or f"row {d.row}", not d.reason, d.fingerprint) for d in decisions if d.fingerprint]
            write_fingerprints(folder, ((i, kept, f) for i, kept, f in prints if f is not None))
            manifest = self._manifest(folder, journal, decisions, identity, [*names, DROPPED, FINGERPRINTS])
            (folder / account.MANIFEST).write_text(f"{json.dumps(manifest, indent=2)}\n", encoding="utf-8")
            (folder / account.SUMMARY).write_text(account.summary(manifest), encoding="utf-8")
        return manifest

    def _drop_repeats(self, decisions: list[Decision]) -> list[Decision]:
        """Drop problems that repeat an earlier one, and give those that only share its id one of their own."""
        left = [i for i, d in enumerate(decisions) if not d.reason]
        if self.options.within != "keep":
            prints = [decisions[i].fingerprint or fingerprint("", self.options.ngram) for i in left]
            overlap = self.options.overlap if self.options.within == "near" else 0.0
            for later, earlier in repeats(prints, overlap).items():
                i, first = left[later], decisions[left[earlier]]
                decisions[i] = replace(decisions[i], reason="repeated", detail=f"of {first.id}")
        taken: set[str] = set()
        for i, d in enumerate(decisions):
            if d.reason:
                continue
            name, copy = d.id, 2
            while name in taken:
                name, copy = f"{d.id} ({copy})", copy + 1
            taken.add(name)
            decisions[i] = replace(d, id=name)
        return decisions

    def _write_problems(self, folder: Path, journal: Journal, decisions: list[Decision]) -> list[str]:
        """The store, and the prompts of every split; the problems pass through one by one."""
        prepared = journal.prepared()
        candidates = [d for d in decisions if not d.reason or d.reason in ("repeated", "beyond_split_sizes")]
        prompts: dict[str, IO[str]] = {}
        with ExitStack() as stack, ProblemWriter(folder) as writer:
            for decision, item in zip(candidates, prepared, strict=True):
                if decision.reason:
                    continue
                problem = self._stored(item.problem, decision)
                writer.add(problem)
                for program in item.references:
                    writer.add_solution(ReferenceSolution(problem.id, program))
                split = decision.split
                if split not in prompts:
                    prompts[split] = stack.enter_context((folder / f"{split}.jsonl").open("w", encoding="utf-8"))
                row = {"input": item.prompt, "label": problem.id, "datasource": self.source.name}
                prompts[split].write(f"{json.dumps(row)}\n")
        return [PROBLEMS, TESTS, SOLUTIONS, INDEX, *(f"{split}.jsonl" for split in prompts)]

    def _stored(self, problem: Problem, decision: Decision) -> Problem:
        origin = {"revision": self.revision, "file": self.data_files[decision.file].name, "row": decision.row}
        provenance = {**problem.provenance, **({} if self.source.generated else origin), "split": decision.split}
        return replace(problem, id=decision.id, provenance=provenance)

    def _manifest(
        self,
        folder: Path,
        journal: Journal,
        decisions: list[Decision],
        identity: Mapping[str, Any],
        outputs: list[str],
    ) -> dict[str, Any]:
        ledger = account.Ledger()
        for d in decisions:
            group = (d.group.source, d.group.difficulty)
            if d.reason:
                ledger.drop(group, d.reason)
            else:
                ledger.keep(group, d.split, d.validation, (d.statement_tokens, d.prompt_tokens))
        errors = journal.errors()
        rows = [sum(d.file == n for d in decisions) for n in range(len(self.data_files))]
        return {
            "format": account.FORMAT,
            "identity": account.written_identity(identity),
            "made_with": f"openrlhf_maxk {__version__}",
            "data_set": self.source.name,
            "repo": identity["repo"],
            "revision": identity["revision"],
            "options": identity["options"],
            "tokenizer": identity["tokenizer"],
            "files": [
                {"name": f.name, "split": f.split, "bytes": f.size, "sha256": f.sha256, "rows": n}
                for f, n in zip(self.data_files, rows, strict=True)
            ],
            "side_files": journal.side_files(),
            "unreadable_files": [{"name": self.data_files[e.file].name, "error": e.file_error} for e in errors],
            "decontaminated_against": [
                {"data_set": name, "manifest_sha256": digest} for name, digest in identity["decontaminated_against"]
            ],
            "counts": ledger.account(len(decisions)),
            "warnings": self._warnings(ledger, errors, decisions),
            "outputs": account.describe_files(folder, outputs),
        }

    def _warnings(self, ledger: account.Ledger, errors: list[ChunkEnd], decisions: list[Decision]) -> list[str]:
        found = [f"{self.data_files[e.file].name} could not be read to its end: {e.file_error}" for e in errors]
        if n := ledger.dropped["unexpected_error"]:
            found.append(f"{n} rows failed in a way that nothing foresaw: see {DROPPED}")
        train, test = getattr(self.options, "train_size", 0), getattr(self.options, "test_size", 0)
        if train and ledger.kept.total() < train + test and not self.source.generated:
            found.append(
                f"{train:,} + {test:,} problems were asked for, {ledger.kept.total():,} are left: "
                "they are split in the same proportion"
            )
        if not self.options.validate:
            found.append("reference solutions were not run (--no-validate)")
        return [*found, *_places(decisions, self.data_files)] if self.source.explains else found


def _write_dropped(folder: Path, decisions: list[Decision], files: Sequence[DataFile]) -> None:
    with (folder / DROPPED).open("w", encoding="utf-8") as f:
        for d in decisions:
            if d.reason:
                row = {"file": files[d.file].name, "row": d.row, "id": d.id, "reason": d.reason, "detail": d.detail}
                f.write(f"{json.dumps(row)}\n")


def _nothing_left(decisions: list[Decision]) -> str:
    return f"no problem is left: {_reasons(decisions)}. Loosen the options, or check --source"


def _places(decisions: list[Decision], files: Sequence[DataFile]) -> list[str]:
    """Where the first rows that were dropped are, and what is wrong with them."""
    dropped = [d for d in decisions if d.reason]
    found = []
    for d in dropped[:SHOWN]:
        name = files[d.file].name
        place = f"line {d.row + 1}" if ".jsonl" in name else f"row {d.row} (the first is 0)"
        found.append(f"{name}, {place}: {d.reason}{f': {d.detail}' if d.detail else ''}")
    return [*found, f"{len(dropped) - SHOWN} more: see {DROPPED}"] if len(dropped) > SHOWN else found


def _reasons(decisions: list[Decision]) -> str:
    """How many rows were dropped for what, with a detail of each reason."""
    counts = Counter(d.reason for d in decisions)
    details = {d.reason: f" (as {d.detail})" for d in reversed(decisions) if d.detail}
    return ", ".join(f"{n} {reason}{details.get(reason, '')}" for reason, n in counts.most_common()) or "no rows at all"
