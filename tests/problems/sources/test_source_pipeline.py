"""A whole preparation: every row accounted for, the same bytes every time, whatever interrupts it."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openrlhf_maxk.problems.record import Problem
from openrlhf_maxk.problems.sources import SOURCES
from openrlhf_maxk.problems.sources.preparation.journal import Journal
from openrlhf_maxk.problems.sources.preparation.pipeline import Preparation
from openrlhf_maxk.problems.sources.reading.files import LocalFiles
from openrlhf_maxk.problems.sources.source import SourceError
from openrlhf_maxk.problems.store import ProblemStore
from openrlhf_maxk.problems.verdict import ProgramResult

from .accounts import adds_up, contents, dropped, reason
from .conftest import Prepare
from .mbpp_problems import CONVERTIBLE, FAILING, REJECTED, numbered
from .originals import (
    CODECONTESTS,
    CODEFORCES,
    LIVEBENCH,
    completion,
    contest,
    forces,
    leetcode,
    live_bench,
    live_code,
    packed,
    pairs,
    write_generated_tests,
    write_json_lines,
    write_parquet,
)
from .plain_runner import run_many

ROOT = Path(__file__).parents[3]


def mixed_contests(count: int) -> list[dict[str, Any]]:
    """Good rows and bad ones in between."""
    bad: list[dict[str, Any]] = [
        {"difficulty": 9},
        {"input_file": "in.txt"},
        {"description": ""},
        {"public_tests": pairs(), "private_tests": pairs(), "generated_tests": pairs()},
        {"solutions": {"language": [3], "solution": ["print(1)"]}},
    ]
    return [contest(i, **(bad[i // 3 % len(bad)] if i % 3 == 2 else {})) for i in range(count)]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    folder = tmp_path / "cc"
    rows = mixed_contests(30)
    for i, (split, part) in enumerate((("train", rows[:11]), ("train", rows[11:24]))):
        write_parquet(folder / f"{split}-{i:05d}-of-00002.parquet", part, CODECONTESTS)
    write_parquet(folder / "valid-00000-of-00001.parquet", rows[24:24], CODECONTESTS)
    write_parquet(folder / "test-00000-of-00001.parquet", rows[24:], CODECONTESTS)
    return folder


def test_the_same_inputs_and_options_give_the_same_bytes(prepare: Prepare, shards: Path, tmp_path: Path) -> None:
    manifest = prepare("codecontests", shards, tmp_path / "a")
    assert adds_up(manifest)
    assert manifest["counts"]["dropped"] == {
        "empty_statement": 2,
        "file_io": 2,
        "no_tests": 2,
        "reference_fails": 2,
        "too_hard": 2,
    }
    lines = (tmp_path / "a" / "dropped.jsonl").read_text(encoding="utf-8").splitlines()
    first = {"file": "train-00000-of-00002.parquet", "row": 2, "id": "codecontests/p00002 Sum"}
    assert json.loads(lines[0]) == {**first, "reason": "too_hard", "detail": "C"}
    assert manifest == json.loads((tmp_path / "a" / "manifest.json").read_text(encoding="utf-8"))
    shards = shards.rename(tmp_path / "moved")
    for i, chunk_rows in enumerate((1, 2, 5, 1000)):
        prepare("codecontests", shards, tmp_path / f"again{i}", chunk_rows=chunk_rows)
        assert contents(tmp_path / f"again{i}") == contents(tmp_path / "a")
    prepare("codecontests", shards, tmp_path / "seed", seed=1)
    assert contents(tmp_path / "seed") != contents(tmp_path / "a")
    ProblemStore(tmp_path / "a").verify()


def test_what_is_written(prepare: Prepare, shards: Path, tmp_path: Path) -> None:
    manifest = prepare("codecontests", shards)
    out = tmp_path / "out"
    written = {*manifest["outputs"], "manifest.json", "summary.txt"}
    assert {p.name for p in out.iterdir()} == written
    assert {"problems.parquet", "tests.bin", "solutions.parquet", "store.json", "train.jsonl", "test.jsonl"} < written
    hashes = contents(out)
    assert all(hashes[name] == entry["sha256"] for name, entry in manifest["outputs"].items())
    store = ProblemStore(out)
    labels = []
    for split in ("train", "test"):
        for row in map(json.loads, (out / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()):
            assert set(row) == {"input", "label", "datasource"}
            assert row["datasource"] == "codecontests"
            assert row["input"][-1]["role"] == "user"
            assert store[row["label"]].statement in row["input"][-1]["content"]
            assert store[row["label"]].provenance["split"] == split
            labels.append(row["label"])
    assert sorted(labels) == sorted(store)
    origin = store["codecontests/p00012 Sum"].provenance
    assert (origin["file"], origin["row"], origin["revision"]) == ("train-00001-of-00002.parquet", 1, "local")
    summary = (out / "summary.txt").read_text(encoding="utf-8")
    assert "       30 rows read\n" in summary
    assert "       20 problems kept: 2 test, 18 train\n" in summary


def test_a_finished_folder_is_left_alone(prepare: Prepare, shards: Path, tmp_path: Path) -> None:
    first = prepare("codecontests", shards)
    stamps = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()}
    assert prepare("codecontests", shards, chunk_rows=3) == first
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()} == stamps
    with pytest.raises(SourceError, match=r"already \(made with --seed 0\): pass --overwrite"):
        prepare("codecontests", shards, seed=1)
    with pytest.raises(SourceError, match=r"already \(data set codecontests\)"):
        prepare("mini")
    (shards / "train-00000-of-00002.parquet").write_bytes((shards / "train-00001-of-00002.parquet").read_bytes())
    with pytest.raises(SourceError, match=r"already \(made of other files, or with another tokenizer or version\)"):
        prepare("codecontests", shards)
    other = prepare("codecontests", shards, seed=1, overwrite=True)
    assert other["options"]["seed"] == 1
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize("content", [None, "file", "folder"])
def test_what_is_already_there_is_never_lost(
    prepare: Prepare, shards: Path, tmp_path: Path, content: str | None
) -> None:
    out = tmp_path / "out"
    if content == "file":
        out.write_text("mine", encoding="utf-8")
    else:
        out.mkdir()
        if content == "folder":
            (out / "notes.txt").write_text("mine", encoding="utf-8")
    if content is None:  # an empty folder is as good as none
        prepare("codecontests", shards)
        return
    with pytest.raises(SourceError, match=r"holds something else already \(not a data set\)"):
        prepare("codecontests", shards)
    assert (out if content == "file" else out / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_killed_at_every_durable_step(prepare: Prepare, shards: Path, tmp_path: Path) -> None:
    prepare("codecontests", shards, tmp_path / "whole", limit=13)
    options = {
        "out": str(tmp_path / "killed"),
        "source": str(shards),
        "tokenizer": "none",
        "token_limit": 0,
        "limit": 13,
    }
    request = json.dumps({"data_set": "codecontests", "options": options | {"chunk_rows": 6}})
    done = subprocess.run(
        [sys.executable, "-m", "tests.problems.sources.killed_everywhere", request],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 20
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert not list(tmp_path.glob(".killed*"))


def test_killed_by_signal_while_programs_run(tmp_path: Path) -> None:
    """The command itself, with the project's executor, kill -9 at random moments."""
    source = write_parquet(tmp_path / "train-00000-of-00001.parquet", mixed_contests(36), CODECONTESTS)
    command = [sys.executable, "-m", "openrlhf_maxk.cli.prepare", "codecontests", "--source", str(source)]
    command += ["--tokenizer", "none", "--token_limit", "0", "--chunk_rows", "4"]
    subprocess.run([*command, "--out", tmp_path / "whole"], check=True, capture_output=True, cwd=ROOT)
    draw, kills = random.Random(0), 0
    for wanted in (1, 4, 8):
        child = subprocess.Popen([*command, "--out", tmp_path / "out"], stderr=subprocess.DEVNULL, cwd=ROOT)
        progress = tmp_path / ".out.progress"
        while child.poll() is None and len(list(progress.glob("*.decisions.jsonl"))) < wanted:
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.05))
        child.send_signal(signal.SIGKILL)
        kills += child.wait() == -signal.SIGKILL
    assert kills >= 2
    done = subprocess.run([*command, "--out", tmp_path / "out"], check=True, capture_output=True, text=True, cwd=ROOT)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert "36 rows read" in done.stdout


class Interrupted(BaseException):
    """As Ctrl-C, but not for pytest."""


def test_nothing_is_run_twice_after_an_interruption(prepare: Prepare, shards: Path, tmp_path: Path) -> None:
    ran: list[tuple[str, str]] = []
    source_type = SOURCES["codecontests"]
    options = source_type.options_type(
        out=str(tmp_path / "out"), source=str(shards), tokenizer="none", token_limit=0, chunk_rows=4
    )

    def run(jobs: Sequence[tuple[str, Problem]]) -> list[ProgramResult]:
        ran.extend((problem.id.split(" #")[0], test.input) for _, problem in jobs for test in problem.tests)
        return run_many(jobs)

    def attempt(most: int) -> None:
        def stop(rows: int) -> None:
            if rows >= most:
                raise Interrupted

        Preparation(source_type(options), options, lambda stack: run, stop).run()

    for most in (3, 8, 19):
        with pytest.raises(Interrupted):
            attempt(most)
    attempt(1000)
    assert len(ran) == len(set(ran)) > 100
    prepare("codecontests", shards, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_changed_inputs_are_never_mixed_with_old_work(shards: Path, tmp_path: Path, prepare: Prepare) -> None:
    source_type = SOURCES["codecontests"]
    options = source_type.options_type(
        out=str(tmp_path / "out"), source=str(shards), tokenizer="none", token_limit=0, chunk_rows=2, validate=False
    )
    count = 0

    def interrupt(rows: int) -> None:
        nonlocal count
        count = rows
        if rows >= 10:
            raise Interrupted

    with pytest.raises(Interrupted):
        Preparation(source_type(options), options, lambda stack: run_many, interrupt).run()
    assert count == 10
    write_parquet(shards / "train-00000-of-00002.parquet", [contest(i) for i in range(100, 111)], CODECONTESTS)
    manifest = prepare("codecontests", shards, validate=False)
    assert adds_up(manifest)
    assert "codecontests/p00100 Sum" in ProblemStore(tmp_path / "out")


def test_two_at_once_are_refused(prepare: Prepare, shards: Path, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "out")
    with pytest.raises(SourceError, match="is being prepared by another process"):
        prepare("codecontests", shards)
    journal.close()
    prepare("codecontests", shards)


def test_a_machine_that_cannot_run_programs_decides_nothing(shards: Path, tmp_path: Path, prepare: Prepare) -> None:
    def broken(stack: ExitStack) -> Any:
        return lambda jobs: [ProgramResult(()) for _ in jobs]

    source_type = SOURCES["codecontests"]
    options = source_type.options_type(out=str(tmp_path / "out"), source=str(shards), tokenizer="none", token_limit=0)
    with pytest.raises(SourceError, match=r"codecontests/p00000 Sum could not be run .*run the command again"):
        Preparation(source_type(options), options, broken).run()
    assert not (tmp_path / "out").exists()
    assert adds_up(prepare("codecontests", shards))


def test_unreadable_files_stop_the_job_or_are_counted(prepare: Prepare, shards: Path, tmp_path: Path) -> None:
    broken = shards / "train-00001-of-00002.parquet"
    broken.write_bytes(broken.read_bytes()[:-100])
    with pytest.raises(
        SourceError, match=r"train-00001-of-00002.parquet is not a whole Parquet file .*--on_bad_file skip"
    ):
        prepare("codecontests", shards)
    manifest = prepare("codecontests", shards, on_bad_file="skip")
    assert adds_up(manifest)
    assert [f["rows"] for f in manifest["files"]] == [11, 0, 0, 6]
    assert [f["name"] for f in manifest["unreadable_files"]] == ["train-00001-of-00002.parquet"]
    assert "could not be read to its end" in manifest["warnings"][0]


def test_missing_shards_and_files_are_named(prepare: Prepare, shards: Path, tmp_path: Path) -> None:
    (shards / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(SourceError, match=r"train: 1 of 2 shards are missing \(00001 …\): fetch them too"):
        prepare("codecontests", shards)
    with pytest.raises(SourceError, match="no file of split prompt found among"):
        prepare("mbpp", shards, splits="prompt")
    with pytest.raises(SourceError, match="there is no such file or folder"):
        prepare("mbpp", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    for data_set in ("codecontests", "livebench", "codeforces", "mbpp"):
        with pytest.raises(SourceError, match=r"no data files at all; known formats are \.parquet"):
            prepare(data_set, tmp_path / "empty")
    assert not list(tmp_path.glob(".out*"))


def test_a_limit_on_rows(prepare: Prepare, shards: Path, tmp_path: Path) -> None:
    manifest = prepare("codecontests", shards, limit=14, chunk_rows=4)
    assert adds_up(manifest)
    assert [f["rows"] for f in manifest["files"]] == [11, 3, 0, 0]


def test_the_embedded_benchmark(prepare: Prepare, tmp_path: Path) -> None:
    manifest = prepare("mini", train_size=30, validation_size=5, test_size=8)
    assert adds_up(manifest)
    assert manifest["counts"]["kept"] == {"test": 8, "train": 30, "validation": 5}
    assert manifest["counts"]["validation"] == {"passed": 43}
    store = ProblemStore(tmp_path / "out")
    row = json.loads((tmp_path / "out" / "validation.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert row["input"] == store[row["label"]].statement
    assert len(list(store.solutions())) == 43


# Rows of every shape

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.just("\ud800")
    | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["input", "output", "seconds"]), inner),
    max_leaves=6,
)
GOOD = {
    "codecontests": lambda: contest(1),
    "livecodebench": lambda: live_code(1),
    "livebench": lambda: completion(1),
    "codeforces": lambda: forces(1),
    "mbpp": lambda: numbered(CONVERTIBLE[:1])[0],
}


@settings(max_examples=250)
@given(st.sampled_from(sorted(GOOD)), st.data())
def test_rows_with_fields_of_any_kind_are_problems_or_rejected(data_set: str, data: st.DataObject) -> None:
    source_type = SOURCES[data_set]
    source = source_type(source_type.options_type(out="unused"))
    row = GOOD[data_set]()
    for name in data.draw(st.lists(st.sampled_from(sorted(row)), min_size=1, max_size=3)):
        row[name] = data.draw(JSON)
    group = source.group(row)
    assert isinstance(group.source, str)
    assert isinstance(group.difficulty, str)
    for read in (source.narrative, source.names, lambda r: source.convert(r, "", LocalFiles(Path("nowhere")))):
        assert (reason(lambda read=read: read(row)) or "fine").isidentifier()


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_files_of_any_rows_add_up(prepare: Prepare, tmp_path: Path, data: st.DataObject) -> None:
    rows: list[Any] = []
    for i in range(data.draw(st.integers(1, 6))):
        row: Any = numbered(CONVERTIBLE[i : i + 1], 11 + i)[0]
        if data.draw(st.booleans()):
            row = (
                data.draw(JSON)
                if data.draw(st.booleans())
                else row | {data.draw(st.sampled_from(sorted(row))): data.draw(JSON)}
            )
        rows.append(row)
    rows.append(numbered(CONVERTIBLE[-1:], 500)[0])
    rows.append({**rows[-1], "task_id": "\ud800"})
    source = write_json_lines(tmp_path / "any" / "mbpp.jsonl", rows)
    manifest = prepare("mbpp", source, overwrite=True)
    assert adds_up(manifest)
    assert manifest["counts"]["rows_in"] == len(rows)
    assert "unexpected_error" not in manifest["counts"]["dropped"]
    assert len(dropped(tmp_path / "out")) == manifest["counts"]["rows_dropped"]


def test_every_data_set_with_every_trap_adds_up(prepare: Prepare, tmp_path: Path) -> None:
    """All sources in one go, each with good and bad rows, and nothing that nothing foresaw."""
    traps = [*(row for rows in REJECTED.values() for row in rows), *FAILING]
    bad_tests = ["!!", packed([1]), "[", None]
    files = {
        "codecontests": write_parquet(tmp_path / "cc" / "train.parquet", mixed_contests(20), CODECONTESTS),
        "codeforces": write_parquet(
            tmp_path / "cf" / "test.parquet",
            [*(forces(i) for i in range(4)), forces(5, input_mode="file"), forces(6, official_tests_complete=False)],
            CODEFORCES,
        ).parent,
        "livebench": write_parquet(
            tmp_path / "lb" / "test.parquet", [live_bench(1), completion(2), live_bench(3, task="x")], LIVEBENCH
        ),
        "livecodebench": write_json_lines(
            tmp_path / "test.jsonl",
            [
                live_code(1),
                leetcode(2),
                *(live_code(i, private_test_cases=bad) for i, bad in enumerate(bad_tests, 3)),
                7,
            ],
        ),
        "mbpp": write_json_lines(tmp_path / "mbpp.jsonl", numbered([*CONVERTIBLE, *traps])),
    }
    write_generated_tests(tmp_path / "cf", 106, [("106/A", "1 1", "2")])
    for data_set, source in files.items():
        release = {"release": "v1"} if data_set == "livecodebench" else {}
        manifest = prepare(data_set, source, tmp_path / "out" / data_set, **release)
        assert adds_up(manifest)
        assert manifest["counts"]["rows_dropped"] > 0
        assert "unexpected_error" not in manifest["counts"]["dropped"]
