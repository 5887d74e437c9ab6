"""What plain Python prints, the sandbox prints: everything that an interpreter gives a script, and how it ends.

Programs stand in ``plain.txt``, each under a line ``=== name``. Each is run by a plain interpreter and in the sandbox.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrlhf_maxk.problems.record import Comparison, Judge, Limits, Problem, Test
from openrlhf_maxk.problems.verdict import Verdict
from openrlhf_maxk.rewards.execution.executor import Executor

INPUT = "1 2\n"
_PARTS = re.split(
    r"^=== (\w+)\n", (Path(__file__).parents[1] / "plain.txt").read_text(encoding="utf-8"), flags=re.MULTILINE
)
PROGRAMS = dict(zip(_PARTS[1::2], _PARTS[2::2], strict=True))


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with Executor(cores=1) as executor:
        yield executor


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_sandbox_does_what_plain_python_does(name: str, executor: Executor, tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text(PROGRAMS[name], encoding="utf-8")
    plain = subprocess.run(
        [sys.executable, "-X", "utf8", file], input=INPUT.encode(), capture_output=True, timeout=60, check=False
    )
    problem = Problem(
        "plain",
        "",
        (Test(INPUT, plain.stdout.decode()),),
        limits=Limits(cpu_seconds=10.0),
        judge=Judge(Comparison.EXACT),
    )
    (test,) = executor.run(PROGRAMS[name], problem).tests
    assert test.output == plain.stdout, test.detail
    assert test.verdict is (Verdict.CRASHED if plain.returncode else Verdict.PASSED), test.detail


def test_a_server_writes_no_bytecode_where_python_is_told_not_to(tmp_path: Path) -> None:
    from ..places import copy_package

    copy_package(tmp_path)
    for folder in tmp_path.rglob("__pycache__"):
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    source = "from openrlhf_maxk.rewards.execution.executor import Executor\nExecutor(cores=1).close()\n"
    environment = {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", source], env=environment, cwd="/", check=True, timeout=120)
    assert not list(tmp_path.rglob("*.pyc"))
