"""From files to a prepared folder: read, convert, count tokens, validate; then drop repeats, split and write.

The first half looks at one row at a time and is journalled, so that a killed job goes on. The second half looks at all
decisions, streams the problems once and puts the folder in place in one step. Memory holds one chunk of problems and
the fingerprints of all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from openrlhf_maxk import __version__
from openrlhf_maxk.problems.atomic import new_folder
from openrlhf_maxk.problems.record import Problem, ReferenceSolution
from openrlhf_maxk.problems.sources import manifest as account
from openrlhf_maxk.problems.sources.decontaminate import (
    FINGERPRINTS,
    Fingerprint,
    Index,
    fingerprint,
    read_fingerprints,
    repeats,
    write_fingerprints,
)
from openrlhf_maxk.problems.sources.files import HubFiles, LocalFiles
from openrlhf_maxk.problems.sources.journal import ChunkEnd, Decision, Journal, Prepared
from openrlhf_maxk.problems.sources.options import PrepareOptions
from openrlhf_maxk.problems.sources.prompts import Prompter, load_tokenizer
from openrlhf_maxk.problems.sources.rows import BadFile, RowReader
from openrlhf_maxk.problems.sources.source import Candidate, DataFile, Group, Rejected, Row, Source, SourceError
from openrlhf_maxk.problems.sources.validate import Accepted, RunMany, Validator
from openrlhf_maxk.problems.store import INDEX, PROBLEMS, SOLUTIONS, TESTS, ProblemWriter

CHUNK_BYTES = 2**27  # of tests: a chunk ends early when it holds that much
DROPPED = "dropped.jsonl"
MIB = 2**20


@dataclass(frozen=True)
class Contaminant:
    """A prepared folder whose problems must not occur in this one."""

    data_set: str
    manifest: str  # SHA-256
    ids: list[str]
    index: Index


@dataclass
class Draft:
    """A row on its way."""

    file: int
    row: int
    group: Group
    split: str
    fingerprint: Fingerprint | None = None
    candidate: Candidate | None = None
    rejected: Rejected | None = None
    prompt: Any = None
    statement_tokens: int | None = None
    prompt_tokens: int | None = None


class Preparation:
    """One run of ``prepare`` for one data set.

    Args:
        run_many: makes the function that runs programs; called only when there is something to validate.
        progress: told the number of rows done after every chunk.
    """

    def __init__(
        self,
        source: Source,
        options: PrepareOptions,
        run_many: Callable[[ExitStack], RunMany],
        progress: Callable[[int], None] = lambda rows: None,
    ) -> None:
        self.source = source
        self.options = options
        self.out = Path(options.out).absolute()
        self._make_run_many = run_many
        self._progress = progress

    def run(self) -> dict[str, Any]:
        """Prepare the folder, or find that it is there already. Returns its manifest.

        Raises:
            SourceError: with what is wrong and what to do. What was done so far is kept for the next run.
        """
        journal = Journal(self.out)
        try:
            self.files = self._open_files(journal.identity())
            self.data_files = self.files.data_files(self.source) if self.source.repo else self._own_files()
            self.prompter = Prompter(self.options, load_tokenizer(self.options))
            self.contaminants = self._contaminants()
            identity = self._identity()
            if (done := self._finished(identity)) is not None:
                journal.remove()
                return done
            journal.start(identity)
            with ExitStack() as stack:
                self._decide(journal, stack)
            manifest = self._write(journal, identity)
            journal.remove()
            return manifest
        except BaseException:
            journal.close()
            raise

    # Before any row is read

    def _open_files(self, earlier: Mapping[str, Any] | None) -> LocalFiles | HubFiles:
        if self.options.source or not self.source.repo:
            return LocalFiles(Path(self.options.source).absolute())
        repo, revision = self.options.repo or self.source.repo, self.options.revision
        if earlier and earlier.get("repo") == repo and earlier.get("asked_revision") == revision:
            revision = earlier["revision"]  # a branch may have moved since
        return HubFiles(repo, revision)

    def _own_files(self) -> list[DataFile]:
        return [DataFile(self.source.name, Path(), "", 0, "")]

    def _contaminants(self) -> list[Contaminant]:
        found = []
        for text in filter(None, (part.strip() for part in self.options.decontaminate.split(","))):
            folder = Path(text)
            manifest = account.read_manifest(folder)
            ngram = manifest["options"]["ngram"]
            if ngram != self.options.ngram:
                raise SourceError(f"--decontaminate {folder} was prepared with --ngram {ngram}: use the same")
            ids, prints = read_fingerprints(folder, self.options.decontaminate_against)
            digest = account.sha256(folder / account.MANIFEST)
            found.append(Contaminant(manifest["data_set"], digest, ids, Index(prints, self.options.overlap)))
        return found

    def _identity(self) -> dict[str, Any]:
        """Everything that decides what is written (and the revision that was asked for)."""
        options = {k: v for k, v in self.options.identity().items() if k != "tokenizer"}
        return {
            "version": __version__,
            "data_set": self.source.name,
            "repo": self.options.repo or self.source.repo,
            "asked_revision": self.options.revision,
            "revision": self.files.revision if self.source.repo else "generated",
            "options": options,
            "files": [[f.name, f.split, f.size, f.sha256] for f in self.data_files],
            "tokenizer": self.prompter.identity(),
            "decontaminated_against": [[c.data_set, c.manifest] for c in self.contaminants],
        }

    def _finished(self, identity: Mapping[str, Any]) -> dict[str, Any] | None:
        if not self.out.exists():
            return None
        if self.out.is_dir() and not any(self.out.iterdir()):
            return None
        try:
            found = account.read_manifest(self.out)
        except SourceError:
            found = {}
        if found.get("identity") == _written_identity(identity):
            return found
        if not self.options.overwrite:
            raise SourceError(f"{self.out} holds something else already: pass --overwrite, or choose another --out")
        return None

    # One row at a time

    def _decide(self, journal: Journal, stack: ExitStack) -> None:
        """Decide about every row that the journal has no decision on."""
        last = journal.last()
        done = sum(1 for _ in journal.decisions())
        self._progress(done)
        validator: Validator | None = None
        for number, file in enumerate(self.data_files):
            start = 0
            if last is not None and (number < last.file or (number == last.file and last.file_ends)):
                continue
            if last is not None and number == last.file:
                start = last.next_row
            for end, drafts in self._chunks(number, file, start, done):
                if validator is None:
                    run_many = self._make_run_many(stack) if self.options.validate else None
                    validator = Validator(self.options, run_many)
                decisions, prepared = self._settle(drafts, validator)
                journal.append(replace(end, side_files=dict(self.files.used)), decisions, prepared)
                done += len(decisions)
                self._progress(done)

    def _chunks(self, number: int, file: DataFile, start: int, done: int) -> Iterator[tuple[ChunkEnd, list[Draft]]]:
        """The rows of a file from ``start`` on, converted, in chunks. The last one may be empty."""
        drafts: list[Draft] = []
        size, next_row, error = 0, start, ""
        rows = self._rows(file, start)
        while not self.options.limit or done < self.options.limit:
            try:
                found = next(rows, None)
            except BadFile as e:
                if self.options.on_bad_file == "stop":
                    raise SourceError(f"{e} (or pass --on_bad_file skip to go on without it)") from None
                error, found = str(e), None
            if found is None:
                break
            split, row = found
            draft = self._draft(number, split, row)
            drafts.append(draft)
            done, next_row = done + 1, row.index + 1
            if draft.candidate is not None:
                size += sum(len(t.input) + len(t.output) for t in draft.candidate.problem.tests)
            if len(drafts) == self.options.chunk_rows or size > CHUNK_BYTES:
                yield ChunkEnd(number, next_row, False), drafts
                drafts, size = [], 0
        yield ChunkEnd(number, next_row, True, error), drafts

    def _rows(self, file: DataFile, start: int) -> Iterator[tuple[str, Row]]:
        if not self.source.repo:
            for index, (split, fields) in enumerate(self.source.own_rows()):
                if index >= start:
                    yield split, Row(index, fields)
            return
        reader = RowReader(
            file.path,
            self.source.required,
            self.source.columns,
            max_row_bytes=self.options.max_row_mb * MIB,
            skip_bad=self.options.on_bad_file == "skip",
        )
        for row in reader.read(start):
            yield file.split, row

    def _draft(self, number: int, split: str, row: Row) -> Draft:
        """Everything about a row that needs no program to run."""
        if isinstance(row.fields, Rejected):
            return Draft(number, row.index, Group(), split, rejected=row.fields)
        draft = Draft(number, row.index, Group(), split)
        try:
            draft.group = self.source.group(row.fields)
            draft.fingerprint = self._fingerprint(row.fields)
            candidate = self.source.convert(row.fields, split, self.files)
            if draft.fingerprint is None:  # no problem is kept that could not be compared with others
                self.source.names(row.fields)
                raise Rejected("empty_statement")
            self._check_contamination(draft.fingerprint)
            prompted = self.prompter(candidate.problem)
            draft.statement_tokens, draft.prompt_tokens = prompted.statement_tokens, prompted.prompt_tokens
            tokens = draft.prompt_tokens if self.options.token_limit_on == "prompt" else draft.statement_tokens
            if self.options.token_limit and tokens is not None and tokens > self.options.token_limit:
                raise Rejected("too_many_tokens", f"{tokens} tokens")
            draft.candidate, draft.prompt = candidate, prompted.prompt
        except Rejected as rejected:
            draft.rejected = rejected
        except SourceError:
            raise
        except Exception as e:  # a row that nothing foresaw: counted under a name that shows
            draft.rejected = Rejected("unexpected_error", type(e).__name__)
        return draft

    def _fingerprint(self, fields: Mapping[str, Any]) -> Fingerprint | None:
        try:
            narrative = self.source.narrative(fields)[: self.options.max_statement_chars]
            names = self.source.names(fields)
        except Rejected:
            return None
        return fingerprint(narrative, self.options.ngram, names) if narrative.strip() else None

    def _check_contamination(self, found: Fingerprint) -> None:
        for other in self.contaminants:
            if match := other.index.find(found):
                raise Rejected(f"in_{other.data_set}", f"{other.ids[match.position]}, overlap {match.share:.2f}")

    def _settle(self, drafts: list[Draft], validator: Validator) -> tuple[list[Decision], list[Prepared]]:
        """Validate a chunk's candidates together, and say what became of every row."""
        pending = [d for d in drafts if d.candidate is not None]
        answers = dict(zip(map(id, pending), validator([d.candidate for d in pending if d.candidate]), strict=True))
        decisions, prepared = [], []
        for d in drafts:
            answer = answers.get(id(d), d.rejected)
            decision = Decision(d.file, d.row, d.group, split=d.split, fingerprint=d.fingerprint)
            if d.candidate is not None:
                split = str(d.candidate.problem.provenance.get("split", d.split))
                decision = replace(decision, id=d.candidate.problem.id, split=split)
            if isinstance(answer, Accepted):
                decision = replace(
                    decision,
                    validation=answer.validation,
                    statement_tokens=d.statement_tokens,
                    prompt_tokens=d.prompt_tokens,
                )
                prepared.append(Prepared(answer.problem, answer.references, d.prompt))
            else:
                assert answer is not None
                decision = replace(decision, reason=answer.reason, detail=answer.detail)
            decisions.append(decision)
        return decisions, prepared

    # All rows together

    def _write(self, journal: Journal, identity: Mapping[str, Any]) -> dict[str, Any]:
        decisions = self._drop_repeats(list(journal.decisions()))
        left = [i for i, d in enumerate(decisions) if not d.reason]
        splits = self.source.assign_splits([(decisions[i].id, decisions[i].split) for i in left])
        for i, split in zip(left, splits, strict=True):
            reason = "" if split else "beyond_split_sizes"
            decisions[i] = replace(decisions[i], split=split or decisions[i].split, reason=reason)
        if not any(splits):
            raise SourceError(f"no problem is left: {_reasons(decisions)}. Loosen the options")
        with new_folder(self.out) as folder:
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
        origin = {"revision": self.files.revision, "file": self.data_files[decision.file].name, "row": decision.row}
        provenance = {**problem.provenance, **(origin if self.source.repo else {}), "split": decision.split}
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
            "identity": _written_identity(identity),
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
            "warnings": self._warnings(ledger, errors),
            "outputs": account.describe_files(folder, outputs),
        }

    def _warnings(self, ledger: account.Ledger, errors: list[ChunkEnd]) -> list[str]:
        found = [f"{self.data_files[e.file].name} could not be read to its end: {e.file_error}" for e in errors]
        if n := ledger.dropped["unexpected_error"]:
            found.append(f"{n} rows failed in a way that nothing foresaw: see {DROPPED}")
        train, test = getattr(self.options, "train_size", 0), getattr(self.options, "test_size", 0)
        if train and ledger.kept.total() < train + test and self.source.repo:
            found.append(
                f"{train:,} + {test:,} problems were asked for, {ledger.kept.total():,} are left: "
                "they are split in the same proportion"
            )
        if not self.options.validate:
            found.append("reference solutions were not run (--no-validate)")
        return found


def _written_identity(identity: Mapping[str, Any]) -> str:
    return account.identity_hash({k: v for k, v in identity.items() if k != "asked_revision"})


def _write_dropped(folder: Path, decisions: list[Decision], files: list[DataFile]) -> None:
    with (folder / DROPPED).open("w", encoding="utf-8") as f:
        for d in decisions:
            if d.reason:
                row = {"file": files[d.file].name, "row": d.row, "id": d.id, "reason": d.reason, "detail": d.detail}
                f.write(f"{json.dumps(row)}\n")


def _reasons(decisions: list[Decision]) -> str:
    ledger = account.Ledger()
    for d in decisions:
        ledger.drop(("", ""), d.reason)
    return ", ".join(f"{n} {reason}" for reason, n in ledger.dropped.most_common()) or "there were no rows"
