"""Running a job in a lane: its fork server is started anew when it dies, and refused where it protects too little."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Mapping

from openrlhf_maxk.rewards.execution.runner import SandboxUnavailableError
from openrlhf_maxk.rewards.sandbox.lane import Job, Lane, LaneError, Outcome
from openrlhf_maxk.rewards.sandbox.messages import KilledBy

NULL = os.devnull
_EVERYBODY = stat.S_IROTH | stat.S_IWOTH
_ATTEMPTS = 3  # at one run, each with a new fork server


def start_lane(lane: Lane, unsafe: bool) -> Mapping[str, str]:
    """Start a lane's server and make sure that it protects enough; returns the layers that are missing, and why.

    Raises:
        SandboxUnavailableError: it does not, and ``unsafe`` is false; or right programs would fail on this machine.
        LaneError: it cannot be started.
    """
    mode = stat.S_IMODE(os.stat(NULL).st_mode)
    if mode & _EVERYBODY != _EVERYBODY:  # programs run as another user
        raise SandboxUnavailableError(
            f"programs that print to {NULL} would fail here: its mode is {mode:o}. `chmod 666 {NULL}` mends it."
        )
    missing = lane.start()
    enough = "namespaces" not in missing or not {"landlock", "seccomp"} & missing.keys()
    if not (enough or unsafe):
        lane.stop()
        reasons = "; ".join(f"{name}: {reason}" for name, reason in missing.items())
        raise SandboxUnavailableError(
            f"programs cannot be locked down here ({reasons}). Needed are namespaces, or Landlock and seccomp. "
            "`python -m openrlhf_maxk.rewards.check` says more; unsafe=True runs them all the same."
        )
    return missing


def run_job(lane: Lane, job: Job, unsafe: bool) -> Outcome:
    """Run a job, again with a new server if the server dies. Raises LaneError if they keep dying."""
    for attempt in range(_ATTEMPTS):
        try:
            if lane.pid is None:
                start_lane(lane, unsafe)
            return lane.run(job)
        except LaneError:
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("not reached")


def doubtful(outcome: Outcome, job: Job) -> bool:
    """Whether a busy machine, or somebody else's SIGKILL (the kernel's, short of memory), may have ended the run."""
    if outcome.reply.killed_by in (KilledBy.IDLE_LIMIT, KilledBy.WALL_LIMIT):
        return not outcome.reply.certain
    unasked = outcome.reply.killed_by is KilledBy.NOBODY and outcome.reply.status == signal.SIGKILL
    return unasked and outcome.reply.cpu_ns < job.request.cpu_ns
