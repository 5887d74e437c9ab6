"""Where the hostile programs are run: as root and as an ordinary user, with and without some of the layers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from openrlhf_maxk.problems.record import Comparison, Judge, Limits, Mode, Problem, Test
from openrlhf_maxk.problems.verdict import ProgramResult, TestResult, Verdict
from openrlhf_maxk.rewards.execution.executor import Executor
from openrlhf_maxk.rewards.sandbox.protocol import LAYERS

NOBODY = 65534
REPOSITORY = Path(__file__).parents[2]


class Runner(Protocol):
    """An executor, in this process or in another user's."""

    missing: Any

    def run(self, program: str, problem: Problem) -> ProgramResult: ...

    def server_pids(self) -> list[int]: ...


@dataclass(frozen=True)
class Place:
    """Who runs the executor, and with which layers."""

    ordinary: bool
    without: tuple[str, ...] = ()

    def __str__(self) -> str:
        return ("ordinary" if self.ordinary else "root") + "".join(f"-no_{layer}" for layer in self.without)

    @property
    def layers(self) -> list[str]:
        return [layer for layer in LAYERS if layer not in self.without]

    @property
    def possible(self) -> bool:
        return self.ordinary or os.geteuid() == 0

    @contextmanager
    def open(self, cores: int = 1) -> Iterator[Runner]:
        """An executor in this place."""
        if self.ordinary and os.geteuid() == 0:
            with _Elsewhere(self.layers, cores) as runner:
                yield runner
        else:
            with _Here(cores, layers=self.layers) as executor:
                yield executor


PLACES = [
    Place(ordinary=False),
    Place(ordinary=False, without=("namespaces",)),
    Place(ordinary=False, without=("landlock",)),
    Place(ordinary=False, without=("namespaces", "uid_drop")),
    Place(ordinary=True),
    Place(ordinary=True, without=("namespaces",)),
    Place(ordinary=True, without=("landlock",)),
]
NO_SECCOMP = [Place(ordinary=False, without=("seccomp",)), Place(ordinary=True, without=("seccomp",))]


class _Here(Executor):
    def server_pids(self) -> list[int]:
        return [lane.pid for lane in self._lanes if lane.pid is not None]


class _Elsewhere:
    """An executor in a process of an ordinary user, with an interpreter that this user can reach."""

    def __init__(self, layers: list[str], cores: int) -> None:
        self._stack = ExitStack()
        package, script = REPOSITORY, Path(__file__)
        if not _works_for_nobody(
            [reachable_python(), "-c", "import openrlhf_maxk.rewards.execution.executor"], REPOSITORY
        ):
            package = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
            package.chmod(0o755)
            copy_package(package)
            script = Path(shutil.copy(script, package))
        self._process = subprocess.Popen(
            [reachable_python(), str(script), json.dumps(layers), str(cores)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1", "SECRET": "environment-secret"},
            cwd="/",
            **as_nobody(),
        )
        self.missing = self._ask({"start": True})["missing"]

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def __enter__(self) -> _Elsewhere:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()
        self._stack.close()

    def run(self, program: str, problem: Problem) -> ProgramResult:
        answer = self._ask({"program": program, "problem": asdict(problem)})
        return ProgramResult(
            tuple(
                TestResult(Verdict(test["verdict"]), detail=test["detail"], output=bytes.fromhex(test["output"]))
                for test in answer["tests"]
            )
        )

    def server_pids(self) -> list[int]:
        return self._ask({"pids": True})["pids"]


def as_nobody() -> dict[str, Any]:
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []}


def _works_for_nobody(command: list[str], package: Path | None = None) -> bool:
    environment = {"PYTHONPATH": str(package)} if package else {}
    try:
        done = subprocess.run(command, cwd="/", env=environment, capture_output=True, **as_nobody())
    except OSError:
        return False
    return done.returncode == 0


@lru_cache
def reachable_python() -> str:
    """An interpreter that an ordinary user can run, new enough for the package."""
    wanted = "import sys; sys.exit(sys.version_info < (3, 11))"
    names = [sys.executable, *(path for name in ("python3", "python3.11") for path in _all_paths(name))]
    for name in names:
        if _works_for_nobody([name, "-S", "-c", wanted]):
            return name
    raise RuntimeError("no Python interpreter here can be run by an ordinary user")


def _all_paths(name: str) -> list[str]:
    directories = [*os.environ.get("PATH", "").split(":"), "/usr/local/bin", "/usr/bin"]
    return [path for path in (shutil.which(name, path=directory) for directory in directories) if path]


def copy_package(target: Path) -> None:
    """The package's source, readable by everybody."""
    shutil.copytree(REPOSITORY / "openrlhf_maxk", target / "openrlhf_maxk")
    for path in (target / "openrlhf_maxk").rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def problem_from(record: dict[str, Any]) -> Problem:
    judge = record.pop("judge")
    return Problem(
        **{
            **record,
            "tests": tuple(Test(**test) for test in record["tests"]),
            "mode": Mode(record["mode"]),
            "limits": Limits(**record["limits"]),
            "judge": Judge(**{**judge, "comparison": Comparison(judge["comparison"])}),
        }
    )


def serve() -> None:
    """The other user's process: answer requests, one a line."""
    with _Here(int(sys.argv[2]), layers=json.loads(sys.argv[1])) as executor:
        for line in sys.stdin:
            request = json.loads(line)
            answer: dict[str, Any] = {"missing": dict(executor.missing)}
            if "pids" in request:
                answer["pids"] = executor.server_pids()
            if "program" in request:
                result = executor.run(request["program"], problem_from(request["problem"]))
                answer["tests"] = [
                    {"verdict": test.verdict, "detail": test.detail, "output": test.output.hex()}
                    for test in result.tests
                ]
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
