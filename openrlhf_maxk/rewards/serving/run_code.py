"""SandboxFusion's ``run_code`` spoken by this machine's sandbox: the other side of :mod:`..execution.remote`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from queue import Queue
from typing import Any

from openrlhf_maxk.problems.record import Limits, Problem, Test
from openrlhf_maxk.rewards.execution.executor import MODULES
from openrlhf_maxk.rewards.execution.lanes import run_job, start_lane
from openrlhf_maxk.rewards.execution.remote import CUT_BYTES
from openrlhf_maxk.rewards.execution.runner import SandboxUnavailableError
from openrlhf_maxk.rewards.judging import jobs
from openrlhf_maxk.rewards.sandbox.lane import Job, Lane, LaneError, Outcome
from openrlhf_maxk.rewards.sandbox.messages import KilledBy
from openrlhf_maxk.rewards.sandbox.protocol import LAYERS, Stage
from openrlhf_maxk.rewards.serving.server import BadRequest

MOST_SECONDS = 600.0
MOST_MEGABYTES = 4096


class RunCode:
    """Answers requests, as many at once as there are lanes.

    Raises:
        SandboxUnavailableError: programs cannot be locked down here, and ``unsafe`` is false.
    """

    def __init__(self, cores: int, unsafe: bool = False) -> None:
        self._unsafe = unsafe
        self._lanes: Queue[Lane] = Queue()
        self._all = [Lane(LAYERS, MODULES.split(), []) for _ in range(cores)]
        try:
            for lane in self._all:
                start_lane(lane, unsafe)
                self._lanes.put(lane)
        except BaseException as error:
            self.close()
            if isinstance(error, LaneError):
                raise SandboxUnavailableError(str(error)) from error
            raise

    def close(self) -> None:
        """End all lanes."""
        for lane in self._all:
            lane.stop()

    def __call__(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a request, as JSON. Raises BadRequest."""
        job = _job(request)
        lane = self._lanes.get()
        try:
            return _answer(run_job(lane, job, self._unsafe))
        except LaneError as error:
            return {"status": "SandboxError", "message": str(error), "compile_result": None, "run_result": None}
        finally:
            self._lanes.put(lane)


def _job(request: Mapping[str, Any]) -> Job:
    code, stdin = request.get("code"), request.get("stdin") or ""
    if not isinstance(code, str) or not isinstance(stdin, str):
        raise BadRequest("code and stdin must be texts")
    if request.get("language") != "python":
        raise BadRequest(f"language must be python, not {request.get('language')!r}")
    for name in ("files", "fetch_files", "args"):
        if request.get(name):
            raise BadRequest(f"{name} is not supported here: leave it out")
    seconds = _number(request, "run_timeout", 10.0, MOST_SECONDS)
    megabytes = _number(request, "memory_limit_MB", -1, MOST_MEGABYTES)
    memory = max(1, int((megabytes if megabytes > 0 else MOST_MEGABYTES) * 2**20))
    limits = Limits(seconds, memory, CUT_BYTES)
    return jobs.job(jobs.prepare(Problem("run_code", "", (Test(stdin),), limits=limits)), 0, code, b"", "")


def _number(request: Mapping[str, Any], name: str, default: float, most: float) -> float:
    value = request.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (value == default or 0 < value <= most):
        raise BadRequest(f"{name} must be a number above 0, up to {most:g}, not {value!r}")
    return value


def _answer(outcome: Outcome) -> dict[str, Any]:
    reply = outcome.reply
    ran: dict[str, Any] = {
        "status": "Finished",
        "execution_time": reply.wall_ns / 1e9,
        "return_code": os.waitstatus_to_exitcode(reply.status),
        "stdout": outcome.stdout.decode("utf-8", "replace"),
        "stderr": outcome.stderr.decode("utf-8", "replace"),
    }
    if reply.killed_by in (KilledBy.CPU_LIMIT, KilledBy.IDLE_LIMIT):
        ran |= {"status": "TimeLimitExceeded", "return_code": None}
    failed = outcome.stage == Stage.NOT_CONFINED or reply.killed_by is KilledBy.WALL_LIMIT
    status = "SandboxError" if failed else "Success" if ran["return_code"] == 0 else "Failed"
    message = (outcome.message or "the machine is too busy to run it") if failed else ""
    return {"status": status, "message": message, "compile_result": None, "run_result": None if failed else ran}
