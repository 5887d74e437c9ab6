"""Fetching from a hub: one recorded commit, whole files, and clear words where it cannot be reached."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from openrlhf_maxk.problems.sources import SOURCES
from openrlhf_maxk.problems.sources.preparation import pipeline
from openrlhf_maxk.problems.sources.preparation.pipeline import Preparation
from openrlhf_maxk.problems.sources.reading.files import HubFiles
from openrlhf_maxk.problems.sources.source import SourceError
from openrlhf_maxk.problems.store import ProblemStore

from .accounts import adds_up, contents
from .hub import Hub, serve
from .mbpp_problems import CONVERTIBLE, numbered
from .originals import CODEFORCES, MBPP_FULL, forces, live_code, write_generated_tests, write_parquet
from .plain_runner import run_many

MBPP = "google-research-datasets/mbpp"
FILE = "full/test-00000-of-00001.parquet"
Fetch = Callable[..., dict[str, Any]]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with serve() as found:
        monkeypatch.setattr(pipeline, "HubFiles", lambda repo, revision: HubFiles(repo, revision, found.url))
        yield found


@pytest.fixture
def fetch(hub: Hub, tmp_path: Path) -> Fetch:
    def run(
        data_set: str, out: str = "out", progress: Callable[[int], None] = lambda rows: None, **options: Any
    ) -> Any:
        source_type = SOURCES[data_set]
        chosen = source_type.options_type(out=str(tmp_path / out), tokenizer="none", **options)
        return Preparation(source_type(chosen), chosen, lambda stack: run_many, progress).run()

    return run


def parquet(tmp_path: Path, rows: list[dict[str, Any]]) -> bytes:
    return write_parquet(tmp_path / "made.parquet", rows, MBPP_FULL).read_bytes()


def test_the_commit_is_recorded_and_reproduces_the_bytes(hub: Hub, fetch: Fetch, tmp_path: Path) -> None:
    script = b"raise SystemExit('a loading script')"
    first = hub.push(MBPP, {FILE: parquet(tmp_path, numbered(CONVERTIBLE[:5])), "mbpp.py": script, "README.md": b"x"})
    manifest = fetch("mbpp")
    assert adds_up(manifest)
    assert (manifest["repo"], manifest["revision"]) == (MBPP, first)
    assert [f["name"] for f in manifest["files"]] == [FILE]
    assert set(hub.downloads) == {FILE}
    second = hub.push(MBPP, {FILE: parquet(tmp_path, numbered(CONVERTIBLE[5:9]))})
    assert fetch("mbpp", "new")["revision"] == second
    assert fetch("mbpp", "old", revision=first)["revision"] == first
    assert contents(tmp_path / "old") == contents(tmp_path / "out") != contents(tmp_path / "new")
    assert next(iter(ProblemStore(tmp_path / "out").values())).provenance["revision"] == first


def test_an_interrupted_job_goes_on_with_its_commit(hub: Hub, fetch: Fetch, tmp_path: Path) -> None:
    class Interrupted(BaseException):
        pass

    def stop(rows: int) -> None:
        if rows >= 4:
            raise Interrupted

    first = hub.push(MBPP, {FILE: parquet(tmp_path, numbered(CONVERTIBLE[:9]))})
    with pytest.raises(Interrupted):
        fetch("mbpp", progress=stop, chunk_rows=2)
    hub.push(MBPP, {FILE: parquet(tmp_path, numbered(CONVERTIBLE[9:12]))})
    manifest = fetch("mbpp", chunk_rows=2)
    assert (manifest["revision"], manifest["counts"]["rows_in"]) == (first, 9)


def test_a_damaged_download_is_fetched_again(hub: Hub, fetch: Fetch, tmp_path: Path) -> None:
    data = parquet(tmp_path, numbered(CONVERTIBLE[:5]))
    hub.push(MBPP, {FILE: data})
    flipped = bytes([*data[:40], data[40] ^ 1, *data[41:]])
    hub.sent_instead[FILE] = [flipped]
    assert adds_up(fetch("mbpp"))
    assert hub.downloads == [FILE, FILE]
    hub.push(MBPP, {FILE: data + b" "})  # another file, for the cache
    hub.sent_instead[FILE] = [flipped + b" ", flipped + b" "]
    with pytest.raises(SourceError, match=r"arrives damaged \(another SHA-256 than the hub's\)"):
        fetch("mbpp", "other")


def test_a_download_that_is_cut_short_is_an_error(hub: Hub, fetch: Fetch, tmp_path: Path) -> None:
    data = parquet(tmp_path, numbered(CONVERTIBLE[:5]))
    hub.push(MBPP, {FILE: data})
    hub.sent_instead[FILE] = [data[:100]] * 9
    with pytest.raises(SourceError, match=r"test-00000-of-00001.parquet"):
        fetch("mbpp")
    assert not (tmp_path / "out").exists()


def test_what_the_hub_does_not_have_is_named(hub: Hub, fetch: Fetch, tmp_path: Path) -> None:
    hub.push(MBPP, {FILE: parquet(tmp_path, numbered(CONVERTIBLE[:5]))})
    with pytest.raises(SourceError, match=r"mbpp, revision v9: cannot be fetched from the hub .*--source"):
        fetch("mbpp", revision="v9")
    with pytest.raises(SourceError, match="somebody/else, revision main: cannot be fetched"):
        fetch("mbpp", repo="somebody/else")
    with pytest.raises(SourceError, match="no file of split train found"):
        fetch("mbpp", splits="train")


def test_what_was_fetched_before_serves_when_the_hub_is_out_of_reach(
    hub: Hub, fetch: Fetch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.push(MBPP, {FILE: parquet(tmp_path, numbered(CONVERTIBLE[:5]))})
    fetch("mbpp")
    monkeypatch.setattr(pipeline, "HubFiles", lambda repo, revision: HubFiles(repo, revision, "http://127.0.0.1:9"))
    with pytest.raises(SourceError, match="or name a commit that was fetched before with --revision"):
        fetch("mbpp", "offline")  # where the branch is now is not known
    manifest = fetch("mbpp", "offline", revision=commit)
    assert manifest["revision"] == commit
    assert contents(tmp_path / "offline") == contents(tmp_path / "out")
    with pytest.raises(SourceError, match="livebench/coding, revision main: cannot be fetched"):
        fetch("livebench", "nothing")


def test_shards_are_fetched_although_there_is_a_loading_script(hub: Hub, fetch: Fetch) -> None:
    row = f"{json.dumps(live_code(1))}\n".encode()
    shards = {f"test{i}.jsonl": row.replace(b"abc401", b"abc40%d" % i) for i in range(2, 7)}
    hub.push(
        "livecodebench/code_generation_lite",
        {"test.jsonl": row, **shards, "code_generation_lite.py": b"raise SystemExit", "images/x.png": b""},
    )
    assert fetch("livecodebench")["counts"]["rows_in"] == 6
    assert "code_generation_lite.py" not in hub.downloads
    hub.downloads.clear()
    assert fetch("livecodebench", "v6", release="v6")["counts"]["rows_in"] == 1
    assert set(hub.downloads) <= {"test6.jsonl"}


def test_only_the_generated_tests_that_are_needed_are_fetched(hub: Hub, fetch: Fetch, tmp_path: Path) -> None:
    rows = [forces(1), forces(2, official_tests_complete=False), forces(3, official_tests_complete=False)]
    files = {
        "verifiable/test-00000-of-00001.parquet": write_parquet(tmp_path / "t.parquet", rows, CODEFORCES).read_bytes()
    }
    for number in (101, 102):
        path = write_generated_tests(tmp_path, number, [(f"{number}/A", "5 5", "10")])
        files[f"generated_tests/{path.name}"] = path.read_bytes()
    hub.push("open-r1/codeforces", files)
    manifest = fetch("codeforces")
    assert adds_up(manifest)
    assert manifest["counts"]["dropped"] == {"no_complete_tests": 1}
    assert list(manifest["side_files"]) == ["generated_tests/test_cases_0102.parquet"]
    assert "generated_tests/test_cases_0101.parquet" not in hub.downloads
