"""Finding a data set's files: below a local folder, or on the hub at one recorded commit."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from openrlhf_maxk.problems.sources.reading.rows import SUFFIXES, suffix
from openrlhf_maxk.problems.sources.source import DataFile, Source, SourceError

NOT_ROWS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")  # of ``datasets``
SPLITS = ("train", "valid", "validation", "test", "prompt")
SHARD = re.compile(r"-(\d{5})-of-(\d{5})(?=[-.])")


@dataclass
class LocalFiles:
    """A data set's original files on disk: one file, or a folder of them."""

    root: Path
    revision: str = "local"
    used: dict[str, str] = field(default_factory=dict)  # side files that rows asked for, with their SHA-256

    def data_files(self, source: Source) -> list[DataFile]:
        """The files that the options ask for, hashed.

        Raises:
            SourceError: if there are none, or some are missing.
        """
        if not self.root.exists():
            raise SourceError(f"--source {self.root}: there is no such file or folder")
        base = self.root.parent if self.root.is_file() else self.root
        paths = [self.root] if self.root.is_file() else sorted(p for p in self.root.rglob("*") if p.is_file())
        names = [name for p in paths if is_data(name := p.relative_to(base).as_posix())]
        if not names:
            raise SourceError(f"--source {self.root}: no data files at all; known formats are {', '.join(SUFFIXES)}")
        chosen = source.select(names)
        check_shards(name for name, _ in chosen)
        return [data_file(name, base / name, split) for name, split in chosen]

    def get(self, name: str) -> Path | None:
        base = self.root.parent if self.root.is_file() else self.root
        path = base / name
        if not path.is_file():
            return None
        if name not in self.used:
            self.used[name] = sha256(path)
        return path


@dataclass
class HubFiles:
    """A data set on the hub, at the commit that ``revision`` was when the job first asked.

    Args:
        endpoint: another hub than the public one (default: as ``huggingface_hub`` is configured).
    """

    repo: str
    revision: str
    endpoint: str | None = None
    used: dict[str, str] = field(default_factory=dict)
    _hashes: dict[str, str | None] = field(default_factory=dict)  # every file of the commit; None: the hub has no hash
    _sizes: dict[str, int | None] = field(default_factory=dict)
    _cached: LocalFiles | None = None  # what an earlier job fetched, where the hub is out of reach

    def data_files(self, source: Source) -> list[DataFile]:
        """The files that the options ask for, downloaded and verified.

        Raises:
            SourceError: if the hub cannot be reached, has no such data set, revision or files, or sends damaged ones.
        """
        try:
            self._resolve()
        except SourceError:
            self._cached = self._from_cache()
            if self._cached is None:
                raise
            self.revision = self._cached.revision
            return self._cached.data_files(source)
        names = sorted(filter(is_data, self._hashes))
        chosen = source.select(names)
        check_shards(name for name, _ in chosen)
        return [self._download(name, split) for name, split in chosen]

    def get(self, name: str) -> Path | None:
        if self._cached is not None:
            return self._cached.get(name)
        if name not in self._hashes:
            return None
        file = self._download(name, "")
        self.used[name] = file.sha256
        return file.path

    def _from_cache(self) -> LocalFiles | None:
        from huggingface_hub import snapshot_download

        try:
            folder = snapshot_download(self.repo, repo_type="dataset", revision=self.revision, local_files_only=True)
        except Exception:  # not there, or not whole: the first error says more
            return None
        return LocalFiles(Path(folder), Path(folder).name, self.used)

    def _resolve(self) -> None:
        from huggingface_hub import HfApi

        try:
            info = HfApi(endpoint=self.endpoint).dataset_info(
                self.repo, revision=self.revision, files_metadata=True, timeout=60
            )
        except Exception as e:
            raise self._failed(f"revision {self.revision}", e) from None
        if not info.sha:
            raise SourceError(f"{self.repo}: the hub names no commit for revision {self.revision}")
        self.revision = info.sha
        for sibling in info.siblings or []:
            self._hashes[sibling.rfilename] = sibling.lfs.sha256 if sibling.lfs else None
            self._sizes[sibling.rfilename] = sibling.size

    def _download(self, name: str, split: str) -> DataFile:
        from huggingface_hub import hf_hub_download

        fault = ""
        for again in (False, True):  # a damaged copy in the cache is fetched once more
            try:
                path = hf_hub_download(
                    self.repo,
                    name,
                    repo_type="dataset",
                    revision=self.revision,
                    endpoint=self.endpoint,
                    force_download=again,
                )
            except Exception as e:
                raise self._failed(name, e) from None
            file = data_file(name, Path(path), split)
            fault = self._fault(file)
            if not fault:
                return file
        raise SourceError(f"{self.repo}: {name} arrives damaged ({fault}); try again later, or use --source")

    def _fault(self, file: DataFile) -> str:
        size, digest = self._sizes[file.name], self._hashes[file.name]
        if size is not None and size != file.size:
            return f"{file.size} bytes instead of {size}"
        if digest is not None and digest != file.sha256:
            return "another SHA-256 than the hub's"
        return ""

    def _failed(self, what: str, error: Exception) -> SourceError:
        reason = (str(error).splitlines() or [""])[0]
        return SourceError(
            f"{self.repo}, {what}: cannot be fetched from the hub ({type(error).__name__}: {reason}). Without access "
            "to it, copy the original files here and name their folder with --source, or name a commit that was "
            "fetched before with --revision"
        )


def is_data(name: str) -> bool:
    """Whether a file may hold rows, by its name."""
    path = PurePosixPath(name)
    return bool(suffix(name)) and path.name not in NOT_ROWS and not any(p.startswith(".") for p in path.parts)


def data_file(name: str, path: Path, split: str) -> DataFile:
    """A file with its size and hash."""
    return DataFile(name, path, split, path.stat().st_size, sha256(path))


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def split_files(names: Sequence[str], splits: Sequence[str], folders: Sequence[str]) -> list[tuple[str, str]]:
    """The files of some splits, as the hub and ``datasets`` name them.

    "data/train-00000-of-00002.parquet", "train.jsonl" and "train/data-00000-of-00001.arrow" are of split "train".

    Args:
        folders: where to look, best first ("" for anywhere); the first folder that has a split's files provides them.
    Returns:
        (name, split) of every file, split by split. A lone file may be of any of the splits, the first unless its name
        tells.
    Raises:
        SourceError: if a split has no file.
    """
    if len(names) == 1 and not any(_is_of(names[0], s) for s in SPLITS if s not in splits):
        return [(names[0], next((s for s in splits if _is_of(names[0], s)), splits[0]))]
    chosen = []
    for split in splits:
        of_split = [n for n in names if _is_of(n, split)]
        found = next((inside for folder in folders if (inside := [n for n in of_split if _is_in(n, folder)])), [])
        if not found:
            more = f" and {len(names) - 10} more" if len(names) > 10 else ""
            raise SourceError(f"no file of split {split} found among: {', '.join(names[:10]) or 'nothing'}{more}")
        chosen += [(name, split) for name in found]
    return chosen


def check_shards(names: Iterable[str]) -> None:
    """Refuse a set of shards "…-00003-of-00039…" with some missing."""
    shards: dict[tuple[str, int], set[int]] = {}
    for name in names:
        if match := SHARD.search(name):
            shards.setdefault((name[: match.start()], int(match[2])), set()).add(int(match[1]))
    for (stem, total), found in shards.items():
        missing = sorted(set(range(total)) - found)
        if missing:
            listed = ", ".join(f"{i:05d}" for i in missing[:5])
            raise SourceError(f"{stem}: {len(missing)} of {total} shards are missing ({listed} …): fetch them too")


def _is_of(name: str, split: str) -> bool:
    path = PurePosixPath(name)
    return re.match(rf"{re.escape(split)}(?![a-z0-9])", path.name) is not None or path.parent.name == split


def _is_in(name: str, folder: str) -> bool:
    return not folder or folder in PurePosixPath(name).parts[:-1]
