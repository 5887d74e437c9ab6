"""What becomes of each row, looked at alone: read, converted, compared with other data sets, counted, validated.

Decisions are journalled chunk by chunk, so that a killed job goes on. Memory holds one chunk of problems.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from openrlhf_maxk.problems.sources.options import PrepareOptions
from openrlhf_maxk.problems.sources.preparation.decontaminate import Contaminant, Fingerprint, fingerprint
from openrlhf_maxk.problems.sources.preparation.journal import ChunkEnd, Decision, Journal, Prepared
from openrlhf_maxk.problems.sources.preparation.prompts import Prompter
from openrlhf_maxk.problems.sources.preparation.validate import Accepted, Validator
from openrlhf_maxk.problems.sources.reading.files import HubFiles, LocalFiles
from openrlhf_maxk.problems.sources.reading.rows import BadFile, RowReader
from openrlhf_maxk.problems.sources.source import Candidate, DataFile, Group, Rejected, Row, Source, SourceError

CHUNK_BYTES = 2**27  # of tests: a chunk ends early when it holds that much
MIB = 2**20


@dataclass
class Draft:
    """A row on its way."""

    file: int
    row: int
    group: Group
    split: str
    name: str = ""  # for people, until there is an id
    fingerprint: Fingerprint | None = None
    candidate: Candidate | None = None
    rejected: Rejected | None = None
    prompt: Any = None
    statement_tokens: int | None = None
    prompt_tokens: int | None = None


class Decider:
    """Decides about the rows of a data set's files.

    Args:
        contaminants: prepared folders whose problems are dropped.
    """

    def __init__(
        self,
        source: Source,
        options: PrepareOptions,
        files: LocalFiles | HubFiles,
        data_files: Sequence[DataFile],
        prompter: Prompter,
        contaminants: Sequence[Contaminant],
        validator: Validator,
    ) -> None:
        self.source = source
        self.options = options
        self.files = files
        self.data_files = data_files
        self.prompter = prompter
        self.contaminants = contaminants
        self.validator = validator

    def decide(self, journal: Journal, progress: Callable[[int], None]) -> None:
        """Decide about every row that the journal has no decision on.

        Args:
            progress: told the number of rows done after every chunk.
        Raises:
            SourceError: if a file cannot be read or programs cannot be run. The journal keeps what is done.
        """
        last = journal.last()
        done = sum(1 for _ in journal.decisions())
        progress(done)
        for number, file in enumerate(self.data_files):
            start = 0
            if last is not None and (number < last.file or (number == last.file and last.file_ends)):
                continue
            if last is not None and number == last.file:
                start = last.next_row
            for end, drafts in self._chunks(number, file, start, done):
                decisions, prepared = self._settle(drafts)
                journal.append(replace(end, side_files=dict(self.files.used)), decisions, prepared)
                done += len(decisions)
                progress(done)

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
        if self.source.generated:
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
            draft.name = self._name(row.fields)
            draft.fingerprint = self._fingerprint(row.fields)
            candidate = self.source.convert(row.fields, split, self.files)
            if draft.fingerprint is None:  # no problem is kept that could not be compared with others
                self.source.names(row.fields)
                raise Rejected("empty_statement")
            self._check_contamination(draft.fingerprint)
            prompted = self.prompter(candidate.problem, candidate.messages, candidate.examples)
            draft.statement_tokens, draft.prompt_tokens = prompted.statement_tokens, prompted.prompt_tokens
            tokens = draft.prompt_tokens if self.options.token_limit_on == "prompt" else draft.statement_tokens
            if self.options.token_limit and tokens is not None and tokens > self.options.token_limit:
                raise Rejected("too_many_tokens", f"{tokens} tokens")
            draft.candidate, draft.prompt = candidate, prompted.prompt
        except Rejected as rejected:
            draft.rejected = rejected.with_traceback(None)  # which would keep the row in memory
        except SourceError:
            raise
        except Exception as e:  # a row that nothing foresaw: counted under a name that shows
            draft.rejected = Rejected("unexpected_error", type(e).__name__)
        return draft

    def _name(self, fields: Mapping[str, Any]) -> str:
        value = fields.get(self.source.key)
        if isinstance(value, str):
            value = value[:200].encode(errors="replace").decode()
        elif isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 10**18:
            return ""
        return f"{self.source.name}/{value}"

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

    def _settle(self, drafts: list[Draft]) -> tuple[list[Decision], list[Prepared]]:
        """Validate a chunk's candidates together, and say what became of every row."""
        pending = [d for d in drafts if d.candidate is not None]
        answers = dict(
            zip(map(id, pending), self.validator([d.candidate for d in pending if d.candidate]), strict=True)
        )
        decisions, prepared = [], []
        for d in drafts:
            answer = answers.get(id(d), d.rejected)
            decision = Decision(d.file, d.row, d.group, id=d.name, split=d.split, fingerprint=d.fingerprint)
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
