"""Jobs carried out one after the other. What is done stays done: a killed experiment goes on where it was."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from openrlhf_maxk.experiment.plan import BASE, Job, Plan, PlanError, evaluate_arguments, identity, train_arguments
from openrlhf_maxk.problems.atomic import write_text

DONE = "done.json"
RESULTS = "results.md"
_SHOWN_LINES = 15  # of the log of what failed


class JobFailed(Exception):
    """A job ended with an error; the message has the end of its log."""


def seconds_of(plan: Plan, job: Job, out: Path) -> float | None:
    """How long a finished job took; None for one that is not finished.

    Raises:
        PlanError: it was done by another plan.
    """
    done = out / job.folder / DONE
    if not done.is_file():
        return None
    record = json.loads(done.read_text(encoding="utf-8"))
    if record["identity"] != identity(plan, job):
        raise PlanError(
            f"{out / job.folder} was made with other options than the plan has now: give the run another name, "
            "choose another --out, or remove that folder"
        )
    return record["seconds"]


def carry_out(plan: Plan, out: Path, say: Callable[[str], None]) -> None:
    """Do all that is not done.

    Raises:
        JobFailed: a job failed; those before it stay done.
        PlanError: see :func:`seconds_of`; looked for before anything runs.
    """
    jobs = plan.jobs()
    known = {job: seconds_of(plan, job, out) for job in jobs}
    waiting = [job for job in jobs if known[job] is None]
    elsewhere = _Elsewhere.beside(out) if waiting else _Elsewhere()
    say(f"{len(jobs) - len(waiting)} of {len(jobs)} jobs are done{_estimate(known, elsewhere)}")
    for number, job in enumerate(waiting, len(jobs) - len(waiting) + 1):
        seconds = known[job] = _do(plan, job, out, say)
        say(f"{number} of {len(jobs)}: {job.name}, {_minutes(seconds)}{_estimate(known, elsewhere)}")


@dataclass(frozen=True, slots=True)
class _Elsewhere:
    """How long jobs took in another experiment, in seconds: those that train, and those that do not."""

    folder: Path | None = None
    seconds: Mapping[bool, Sequence[float]] = field(default_factory=dict)

    @classmethod
    def beside(cls, out: Path) -> _Elsewhere:
        """The experiment in the same folder as ``out`` in which a run was done last; none if there is none."""
        try:
            found = [cls._of(made.parent) for made in out.resolve().parent.glob(f"*/{RESULTS}")]
        except (OSError, ValueError, KeyError):
            return cls()  # no estimate is worth an error
        last = [(at, other) for at, other in found if other.seconds[True] and other.folder != out.resolve()]
        return max(last, key=lambda dated: dated[0])[1] if last else cls()

    @classmethod
    def _of(cls, folder: Path) -> tuple[float, _Elsewhere]:
        """What an experiment's jobs say, and when the last of them was done."""
        jobs = {True: [*folder.glob(f"*/*/seed-*/{DONE}")], False: [*folder.glob(f"*/{BASE}/{DONE}")]}
        seconds = {
            trains: [json.loads(done.read_text(encoding="utf-8"))["seconds"] for done in found]
            for trains, found in jobs.items()
        }
        return max((done.stat().st_mtime for done in jobs[True]), default=0.0), cls(folder, seconds)


def _estimate(known: Mapping[Job, float | None], elsewhere: _Elsewhere) -> str:
    """How long the jobs left will take if they take as long as those of their kind, here or else elsewhere."""
    left = [job for job, seconds in known.items() if seconds is None]
    if not left:
        return ""
    total, guessed = 0.0, False
    for job in left:
        trains = job.run != BASE
        alike = [s for other, s in known.items() if s is not None and (other.run != BASE) == trains]
        if not alike:
            alike, guessed = list(elsewhere.seconds.get(trains, ())), True
        if not alike:
            return f"; {len(left)} to go, for how long is known when one of each kind is done"
        total += sum(alike) / len(alike)
    like = f" if they take as long as those of {elsewhere.folder.name}" if guessed and elsewhere.folder else ""
    return f"; {len(left)} to go, about {_minutes(total)}{like}"


def _minutes(seconds: float) -> str:
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} s"


def _do(plan: Plan, job: Job, out: Path, say: Callable[[str], None]) -> float:
    """Returns how long it took, in seconds."""
    folder = out / job.folder
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{job.name}: another experiment, or what one that was killed has left, is at work on it; waiting")
            fcntl.flock(lock, fcntl.LOCK_EX)
        if (seconds := seconds_of(plan, job, out)) is not None:
            return seconds  # another experiment was quicker
        start = time.monotonic()
        if job.run != BASE:
            _command("train", train_arguments(plan, job, folder), folder, lock)
        _command("evaluate", evaluate_arguments(plan, job, folder), folder, lock)
        seconds = round(time.monotonic() - start, 1)
        write_text(folder / DONE, json.dumps({"identity": identity(plan, job), "seconds": seconds}) + "\n")
        return seconds


def _command(name: str, arguments: Sequence[str], folder: Path, lock: IO[str]) -> None:
    """Run one of the package's commands, which holds the lock as well: it may outlive this process."""
    log = folder / f"{name}.log"
    with log.open("ab") as file:
        command = [sys.executable, "-m", f"openrlhf_maxk.cli.{name}", *arguments]
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": file, "stderr": subprocess.STDOUT}
        status = subprocess.run(command, pass_fds=[lock.fileno()], **streams).returncode
    if status:
        lines = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()
        shown = "\n".join(f"  {line}" for line in [line for line in lines if line.strip()][-_SHOWN_LINES:])
        raise JobFailed(f"{name} of {folder} ended with status {status}; the end of {log}:\n{shown}")
