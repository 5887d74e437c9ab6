"""The command line: what the screen shows, and how it ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from openrlhf_maxk.cli.prepare import build_parser, main
from openrlhf_maxk.problems.sources import SOURCES
from openrlhf_maxk.rewards.execution import executor

from .mbpp_problems import CONVERTIBLE, numbered
from .originals import CODECONTESTS, contest, write_json_lines, write_parquet


@pytest.fixture
def mbpp(tmp_path: Path) -> Path:
    return write_json_lines(tmp_path / "mbpp.jsonl", numbered(CONVERTIBLE[:5]))


def command(data_set: str, source: Path, tmp_path: Path, *more: str) -> list[str]:
    return [data_set, "--source", str(source), "--out", str(tmp_path / "out"), "--tokenizer", "none", *more]


def test_a_run_ends_with_its_account(mbpp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command("mbpp", mbpp, tmp_path, "--no-validate")) == 0
    shown = capsys.readouterr().out
    assert "        5 rows read\n        5 problems kept: 5 test\n" in shown
    assert "warning: reference solutions were not run (--no-validate)\n" in shown
    assert shown.endswith(f"written to {tmp_path / 'out'}\n")
    assert shown.startswith((tmp_path / "out" / "summary.txt").read_text(encoding="utf-8"))


def test_the_projects_executor_validates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [contest(i) for i in range(6)]
    rows.append(contest(7, solutions={"language": [3], "solution": ["print(0)"]}))
    source = write_parquet(tmp_path / "train-00000-of-00001.parquet", rows, CODECONTESTS)
    assert main(command("codecontests", source, tmp_path, "--token_limit", "0")) == 0
    shown = capsys.readouterr().out
    assert "       -1 reference_fails\n" in shown
    assert "validation: 6 passed\n" in shown


def test_programs_that_cannot_be_locked_down_are_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    class Unavailable:
        def __init__(self, cores: int, unsafe: bool, **options: Any) -> None:
            started.append(unsafe)
            raise executor.SandboxUnavailableError("nothing can be locked down.")

    monkeypatch.setattr(executor, "Executor", Unavailable)
    source = write_parquet(tmp_path / "train-00000-of-00001.parquet", [contest(1)], CODECONTESTS)
    assert main(command("codecontests", source, tmp_path, "--token_limit", "0")) == 1
    assert "nothing can be locked down. Here that is --unsafe; --no-validate runs none" in capsys.readouterr().err
    main(command("codecontests", source, tmp_path, "--token_limit", "0", "--unsafe"))
    assert started == [False, True]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--config", "half"], "invalid choice: 'half'"),
        (["--examples", "many"], "invalid int value: 'many'"),
        (["--examples", "-1"], "error: --examples -1 must be at least 0"),
        (["--splits", "test,best"], "error: --splits best: known are prompt, test, validation, train"),
        (["--token_limit", "100"], "error: --token_limit needs a --tokenizer"),
        (["--prompt", "chat_text"], "error: --prompt chat_text needs a --tokenizer"),
        (["--overlap", "2"], "error: --overlap 2.0 is a share: between 0 and 1"),
        (["--ngram", "0"], "error: --ngram must be above 0"),
        (["--difficulty", "3"], "unrecognized arguments"),
    ],
)
def test_wrong_options_stop_at_once(
    mbpp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(command("mbpp", mbpp, tmp_path, *more))
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["mbpp.jsonl"]


def test_errors_are_one_line_without_a_trace(mbpp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mbpp.write_text('{"task_id": 11, "te', encoding="utf-8")
    assert main(command("mbpp", mbpp, tmp_path)) == 1
    error = capsys.readouterr().err
    assert "error: mbpp.jsonl ends in the middle of row 0: fetch it again" in error
    assert "Traceback" not in error


def test_a_place_that_cannot_be_written_is_named(
    mbpp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    arguments = command("mbpp", mbpp, tmp_path)
    arguments[4] = str(tmp_path / "file" / "out")
    assert main(arguments) == 1
    assert f"error: Not a directory ({tmp_path / 'file'}/" in capsys.readouterr().err


@pytest.mark.parametrize("name", list(SOURCES))
def test_every_option_is_explained(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args([name, "--help"])
    shown = capsys.readouterr().out
    for option in SOURCES[name].options_type.__dataclass_fields__.values():
        assert f"--{option.name}" in shown
        assert option.metadata["help"]


def test_importing_is_light() -> None:
    heavy = "('torch', 'transformers', 'ray', 'vllm', 'openrlhf', 'deepspeed', 'matplotlib', 'datasets')"
    code = f"import sys, openrlhf_maxk.cli.prepare; print([m for m in {heavy} if m in sys.modules])"
    where = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=where)
    assert done.stdout == "[]\n"
