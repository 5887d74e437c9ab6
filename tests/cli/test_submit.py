"""Submission of a job: options arrive as they were given, the log is written once, the exit status is the job's."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from ray.job_submission import JobStatus

from openrlhf_maxk.cli import submit

LOG = ["step 1\n", "step 2\nstep 3\n", "done\n"]
SHOW = "import json, os, sys; print(json.dumps([os.getcwd(), sys.argv[1:]]))"


class Cluster:
    """A job whose log breaks off after so many pieces at each reading, and has ended when it was read to its end."""

    def __init__(self, breaks: list[int], status: JobStatus, code: int | None = None) -> None:
        self.breaks, self.ended = breaks, SimpleNamespace(status=status, driver_exit_code=code)
        self.finished = False

    async def tail_job_logs(self, job: str):
        if self.breaks:
            for text in LOG[: self.breaks.pop(0)]:
                yield text
            raise RuntimeError("WebSocket connection closed")
        for text in ("".join(LOG[:2]), *LOG[2:]):  # in other pieces than before
            yield text
        self.finished = True

    def get_job_info(self, job: str):
        return self.ended if self.finished else SimpleNamespace(status=JobStatus.RUNNING)


def follow(cluster: Cluster) -> tuple[str, int]:
    written: list[str] = []
    info = asyncio.run(submit.follow(cluster, "job", written.append))
    return "".join(written), submit.exit_status(info)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(submit, "RETRY_SECONDS", 0.0)


@pytest.mark.parametrize("breaks", [[], [0], [1], [2, 1], [3, 0, 2]])
def test_a_log_is_written_once_however_often_the_connection_breaks(breaks):
    assert follow(Cluster(breaks, JobStatus.SUCCEEDED)) == ("".join(LOG), 0)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (JobStatus.SUCCEEDED, 0, 0),
        (JobStatus.FAILED, 2, 2),
        (JobStatus.FAILED, None, 1),
        (JobStatus.STOPPED, None, submit.STOPPED),
    ],
)
def test_the_exit_status_is_the_jobs(status, code, expected):
    assert follow(Cluster([], status, code))[1] == expected


def test_a_cluster_that_is_gone_is_an_error():
    with pytest.raises(submit.ClusterLost, match="WebSocket"):
        follow(Cluster([0] * submit.MAX_RETRIES, JobStatus.SUCCEEDED))


@pytest.mark.parametrize(
    ("tries", "patience", "message"), [(3, 60.0, None), (3, -1.0, "No available agent"), (0, 60.0, "other")]
)
def test_a_cluster_that_has_just_started_is_waited_for(monkeypatch, tries, patience, message):
    answers = ["No available agent to submit job"] * tries + ["other"] * (message == "other")
    submitted = []

    def submit_job(**job: str) -> None:
        if answers:
            raise RuntimeError(answers.pop(0))
        submitted.append(job["submission_id"])

    monkeypatch.setattr(submit, "AGENT_SECONDS", patience)
    if message is None:
        submit.submit(SimpleNamespace(submit_job=submit_job), "true", "job", {})
        assert submitted == ["job"]
    else:
        with pytest.raises(RuntimeError, match=message):
            submit.submit(SimpleNamespace(submit_job=submit_job), "true", "job", {})
        assert not submitted


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="ascii"), max_size=8), max_size=4))
@example(["$HOME", "`id`", 'a "b"', "it's", "c;d", "e\\f", "", "g\nh\t", "Q: {}", "*"])
def test_options_reach_the_job_as_they_were_given(options):
    line = submit.entrypoint("/", sys.executable, options)
    # The shell and the quoting are real; only the module is another.
    shown = line.replace("-m openrlhf_maxk.cli.train", f"-c '{SHOW}'")
    done = subprocess.run(shown, shell=True, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["/", options]


def test_own_options_are_taken_and_the_rest_is_the_trainings(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://head:8265")
    args, rest = submit.parse(["--job.id", "mine", "--maxk.k", "4", "--job.stop_on_exit", "--eval.steps", "-1"])
    assert vars(args)["job.address"] == "http://head:8265"
    assert vars(args)["job.id"] == "mine"
    assert vars(args)["job.stop_on_exit"]
    assert rest == ["--maxk.k", "4", "--eval.steps", "-1"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "no options for the training"),
        (["--job.runtime_env", "{", "--maxk.k", "4"], "--job.runtime_env is not JSON"),
        (["--job.address", "http://127.0.0.1:9", "--maxk.k", "4"], "not submitted to http://127.0.0.1:9"),
    ],
)
def test_what_cannot_be_submitted_is_said(argv, message, capsys, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(SystemExit) as stopped:
        submit.main(argv)
    assert stopped.value.code not in (0, None)
    assert message in f"{stopped.value.code}{capsys.readouterr().err}"
