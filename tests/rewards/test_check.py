"""The report on a machine's protection."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from openrlhf_maxk.rewards import check
from openrlhf_maxk.rewards.sandbox import lane as lanes
from openrlhf_maxk.rewards.sandbox.protocol import LAYERS

from .places import REPOSITORY, as_nobody, reachable_python


@pytest.mark.parametrize("without", [[], ["namespaces"], ["landlock"]], ids=str)
def test_every_attempt_fails(without: list[str]) -> None:
    report = check.check([layer for layer in LAYERS if layer not in without])
    assert report.safe, [probe for probe in report.probes if not probe.held]
    assert len(report.probes) > 10
    assert {layer.name for layer in report.layers} == set(LAYERS)
    assert all(not layer.on and layer.why == "switched off" for layer in report.layers if layer.name in without)
    assert report.milliseconds_per_test is not None


def test_an_open_sandbox_is_found_out() -> None:
    report = check.check([], unsafe=True)
    assert not report.safe
    failed = {probe.name for probe in report.probes if not probe.held}
    assert {"read a file of this machine", "write a file on this machine", "start a process"} <= failed
    held = {probe.name for probe in report.probes if probe.held}
    assert {"take ten gigabytes", "print without end"} <= held


def test_text_and_json_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main([]) == 0
    text = capsys.readouterr().out
    assert "Safe: programs are locked down." in text
    assert check.main(["--json", "--without", "namespaces"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["safe"] is True
    assert {layer["name"]: layer["on"] for layer in report["layers"]}["namespaces"] is False


def test_refusal_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    without = [word for layer in LAYERS for word in ("--without", layer)]
    assert check.main(without) == 1
    text = capsys.readouterr().out
    assert "NOT SAFE" in text
    assert "Landlock and seccomp" in text
    assert check.main([*without, "--unsafe", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["safe"] is False


def test_server_that_cannot_start(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(lanes.sys, "executable", "/bin/false")
    assert check.main([]) == 1
    assert "did not start" in capsys.readouterr().out


def test_as_a_command_of_an_ordinary_user() -> None:
    user = as_nobody() if os.geteuid() == 0 else {}
    python = reachable_python() if os.geteuid() == 0 else sys.executable
    done = subprocess.run(
        [python, "-m", "openrlhf_maxk.rewards.check"],
        capture_output=True,
        text=True,
        cwd="/",
        env={"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"},
        **user,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not root" in done.stdout
