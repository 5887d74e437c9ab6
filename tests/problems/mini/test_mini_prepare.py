"""The command: a complete folder, nothing done twice, nothing half done."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from openrlhf_maxk.cli.mini import main
from openrlhf_maxk.problems.mini import generator, language
from openrlhf_maxk.problems.mini import prepare as prepare_module
from openrlhf_maxk.problems.store import ProblemStore

SIZES = ["--train-problems", "20", "--validation-problems", "5", "--test-problems", "8"]
TINY = [*SIZES, "--steps", "2", "--batch", "4"]


def make(out: Path, *more: str) -> int:
    return main(["--out", str(out), *TINY, *more])


def snapshot(out: Path) -> dict[str, tuple[int, bytes]]:
    return {str(p.relative_to(out)): (p.stat().st_mtime_ns, p.read_bytes()) for p in out.rglob("*") if p.is_file()}


@pytest.fixture(scope="module", autouse=True)
def _environment_of_its_own():
    """The command sets variables for the libraries it loads; other tests are not to see them."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("mini") / "out"
    assert make(out) == 0
    return out


def test_prompts_and_problems_belong_together(made):
    store = ProblemStore(made / "problems")
    store.verify()
    rows = {
        split: [json.loads(line) for line in (made / "problems" / f"{split}.jsonl").read_text().splitlines()]
        for split in ("train", "validation", "test")
    }
    assert {split: len(r) for split, r in rows.items()} == {"train": 20, "validation": 5, "test": 8}
    assert [row["label"] for r in rows.values() for row in r] == list(store.ids())
    for split, r in rows.items():
        for row in r:
            assert row == {"input": store[row["label"]].statement, "label": row["label"], "datasource": "mini"}
            assert row["label"].startswith(f"mini/{split}/")
    assert {s.problem_id for s in store.solutions()} == set(store)


def test_openrlhf_reads_the_prompts(made):
    datasets = pytest.importorskip("datasets")
    read = datasets.load_dataset("json", data_files=str(made / "problems" / "train.jsonl"), split="train")
    assert read.column_names == ["input", "label", "datasource"]
    assert len(read) == 20


def test_the_manifest_tells_what_was_made(made):
    manifest = json.loads((made / "manifest.json").read_text())
    assert manifest["benchmark"] == "mini"
    assert manifest["problems"]["counts"] == {"train": 20, "validation": 5, "test": 8}
    assert sum(manifest["problems"]["difficulties"].values()) == 33
    assert manifest["base_model"]["settings"]["steps"] == 2
    assert manifest["base_model"]["parameters"] > 400_000
    assert str(made) not in json.dumps(manifest)


def test_the_summary_is_for_people(made, capsys):
    make(made)
    assert "20 training, 5 validation, 8 held-out problems" in (shown := capsys.readouterr().out)
    assert "after 2 steps" in shown


def test_the_second_time_nothing_is_made(made, monkeypatch):
    def never(*_: object) -> None:
        raise AssertionError("made again")

    before = snapshot(made)
    monkeypatch.setattr(prepare_module, "train_base_model", never)
    monkeypatch.setattr(prepare_module, "ProblemWriter", never)
    assert make(made) == 0
    after = snapshot(made)
    assert {name: content for name, (_, content) in after.items()} == {n: content for n, (_, content) in before.items()}
    assert [n for n in after if after[n] != before[n]] == ["manifest.json"]


@pytest.mark.parametrize(
    ("change", "problems_stay", "model_stays"),
    [
        (["--train-problems", "21"], False, True),
        (["--steps", "3"], True, False),
        (["--seed", "1"], False, False),
        (["--threads", "1"], True, True),
    ],
)
def test_only_what_an_option_concerns_is_made_again(tmp_path, change, problems_stay, model_stays):
    assert make(tmp_path) == 0
    before = snapshot(tmp_path)
    assert make(tmp_path, *change) == 0
    after = snapshot(tmp_path)
    assert (after["problems/store.json"] == before["problems/store.json"]) is problems_stay
    assert (after["base_model/model.safetensors"] == before["base_model/model.safetensors"]) is model_stays


def test_changed_code_makes_anew(made, tmp_path, monkeypatch):
    modules = (language, prepare_module.record)
    keys = [prepare_module._key({}, modules)]
    for module in modules:
        file = module.__file__
        changed = tmp_path / Path(file).name
        changed.write_text(Path(file).read_text() + "\n# changed\n")
        with monkeypatch.context() as patch:
            patch.setattr(module, "__file__", str(changed))
            keys.append(prepare_module._key({}, modules))
    assert len(set(keys)) == 3


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"key": "other"}'])
def test_a_folder_that_is_not_ours_is_made_anew(tmp_path, damage):
    (tmp_path / "problems").mkdir()
    (tmp_path / "problems" / "made_from.json").write_text(damage)
    assert make(tmp_path) == 0
    ProblemStore(tmp_path / "problems").verify()


def test_problems_are_the_same_bytes_again(made, tmp_path):
    assert make(tmp_path) == 0
    for path in (made / "problems").iterdir():
        assert (tmp_path / "problems" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_killed_in_the_middle_of_training(tmp_path):
    command = [sys.executable, "-m", "openrlhf_maxk.cli.mini", "--out", str(tmp_path), *SIZES, "--steps", "100000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    read = b""
    while b"3/100000" not in read:  # the third step is done
        read += os.read(process.stderr.fileno(), 4096)
        assert process.poll() is None, read
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()

    assert not (tmp_path / "base_model").exists()
    assert not (tmp_path / "manifest.json").exists()
    assert len(list(tmp_path.glob(".base_model.unfinished-*"))) == 1
    problems = snapshot(tmp_path / "problems")
    assert make(tmp_path) == 0
    assert snapshot(tmp_path / "problems") == problems  # went on from there
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base_model", "manifest.json", "problems"]


@pytest.mark.slow
def test_interrupted_by_the_user(tmp_path):
    command = [sys.executable, "-m", "openrlhf_maxk.cli.mini", "--out", str(tmp_path), *SIZES, "--steps", "100000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    read = b""
    while b"3/100000" not in read:
        read += os.read(process.stderr.fileno(), 4096)
        assert process.poll() is None, read
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate()
    assert process.returncode == 130
    assert b"stopped; what is complete is kept" in rest
    assert b"Traceback" not in rest
    assert [p.name for p in tmp_path.iterdir()] == ["problems"]


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--steps", "0"], 2, "0 is not positive"),
        (["--train-problems", "many"], 2, "invalid"),
        (["--unknown"], 2, "unrecognized arguments"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_made(tmp_path, options, status, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        make(tmp_path / "out", *options)
    assert stopped.value.code == status
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_way(tmp_path, capsys):
    (tmp_path / "out").write_text("precious")
    assert make(tmp_path / "out") == 1
    assert f"error: File exists ({tmp_path / 'out'})" in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "precious"


def test_no_disk_space(tmp_path, capsys, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "base_model"))

    monkeypatch.setattr(prepare_module, "train_base_model", full)
    assert make(tmp_path) == 1
    assert "error: No space left on device" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["problems"]


def test_too_many_problems(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(generator, "_PATIENCE", 3)
    assert make(tmp_path, "--validation-problems", "1000000") == 2
    assert "different problems; 1000000 were asked for" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
