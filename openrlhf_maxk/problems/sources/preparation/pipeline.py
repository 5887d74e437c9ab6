"""One preparation, from files to a folder: what is fetched, what was done before, what is still to do.

The rows are decided one by one (:mod:`decide`), then the folder is put together (:mod:`assemble`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from openrlhf_maxk import __version__
from openrlhf_maxk.problems.sources.options import PrepareOptions
from openrlhf_maxk.problems.sources.preparation import manifest as account
from openrlhf_maxk.problems.sources.preparation.assemble import Assembler
from openrlhf_maxk.problems.sources.preparation.decide import Decider
from openrlhf_maxk.problems.sources.preparation.decontaminate import Contaminant, Index, read_fingerprints
from openrlhf_maxk.problems.sources.preparation.journal import Journal
from openrlhf_maxk.problems.sources.preparation.prompts import Prompter, load_tokenizer
from openrlhf_maxk.problems.sources.preparation.validate import RunMany, Validator
from openrlhf_maxk.problems.sources.reading.files import HubFiles, LocalFiles
from openrlhf_maxk.problems.sources.source import DataFile, Source, SourceError


class Preparation:
    """One run of ``prepare`` for one data set.

    Args:
        run_many: makes the function that runs programs, which may be used until the stack is closed.
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
            manifest = self._run(journal)
        except BaseException:
            journal.close()
            raise
        journal.remove()
        return manifest

    def _run(self, journal: Journal) -> dict[str, Any]:
        files = self._open_files(journal.identity())
        data_files = (
            [DataFile(self.source.name, Path(), "", 0, "")] if self.source.generated else files.data_files(self.source)
        )
        prompter = Prompter(self.options, load_tokenizer(self.options))
        contaminants = self._contaminants()
        revision = "generated" if self.source.generated else files.revision
        identity = self._identity(data_files, revision, prompter, contaminants)
        if (done := self._finished(identity)) is not None:
            return done
        journal.start(identity)
        with ExitStack() as stack:
            run_many = self._make_run_many(stack) if self.options.validate else None
            validator = Validator(self.options, run_many)
            decider = Decider(self.source, self.options, files, data_files, prompter, contaminants, validator)
            decider.decide(journal, self._progress)
        return Assembler(self.source, self.options, data_files, revision).assemble(self.out, journal, identity)

    def _open_files(self, earlier: Mapping[str, Any] | None) -> LocalFiles | HubFiles:
        if self.options.source or self.source.generated:
            return LocalFiles(Path(self.options.source).absolute())
        repo, revision = self.options.repo or self.source.repo, self.options.revision
        if earlier and earlier.get("repo") == repo and earlier.get("asked_revision") == revision:
            revision = earlier["revision"]  # a branch may have moved since
        return HubFiles(repo, revision)

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

    def _identity(
        self, data_files: list[DataFile], revision: str, prompter: Prompter, contaminants: list[Contaminant]
    ) -> dict[str, Any]:
        """Everything that decides what is written (and the revision that was asked for)."""
        options = {k: v for k, v in self.options.identity().items() if k != "tokenizer"}
        return {
            "version": __version__,
            "data_set": self.source.name,
            "repo": self.options.repo or self.source.repo,
            "asked_revision": self.options.revision,
            "revision": revision,
            "options": options,
            "files": [[f.name, f.split, f.size, f.sha256] for f in data_files],
            "tokenizer": prompter.identity(),
            "decontaminated_against": [[c.data_set, c.manifest] for c in contaminants],
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
        if found.get("identity") == account.written_identity(identity):
            return found
        if not self.options.overwrite:
            raise SourceError(
                f"{self.out} holds something else already ({_what_it_is(found, identity)}): "
                "pass --overwrite, or choose another --out"
            )
        return None


def _what_it_is(manifest: Mapping[str, Any], identity: Mapping[str, Any]) -> str:
    """In which way a folder is not the one that is to be written."""
    if not manifest:
        return "not a data set"
    if manifest["data_set"] != identity["data_set"]:
        return f"data set {manifest['data_set']}"
    made_with = manifest["options"]
    other = [f"--{name} {made_with.get(name)}" for name, v in identity["options"].items() if made_with.get(name) != v]
    return f"made with {', '.join(other)}" if other else "made of other files, or with another tokenizer or version"
