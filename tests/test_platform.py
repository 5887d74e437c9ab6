"""What a platform means for Ray: which workers see GPUs, and whose cluster a program is on."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest

from openrlhf_maxk import platform

OVERRIDE = "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"


@pytest.fixture(params=[True, False], ids=["cpu", "gpu"])
def on_cpu(request, monkeypatch):
    monkeypatch.setattr(platform, "is_cpu", lambda: request.param)
    monkeypatch.delenv(OVERRIDE, raising=False)
    return request.param


def test_ray_goes_on_hiding_gpus_from_workers_that_asked_for_none(on_cpu):
    assert platform.environment().get(OVERRIDE) == ("0" if on_cpu else None)


def test_an_evaluation_starts_ray_by_the_same_rules(on_cpu, monkeypatch):
    from openrlhf_maxk.evaluation.samples import vllm_sampler

    asked = {}
    fake = SimpleNamespace(is_initialized=lambda: False, init=lambda **arguments: asked.update(arguments))
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with monkeypatch.context() as before:
        before.setattr(os, "environ", dict(os.environ))
        vllm_sampler._start_ray()
        assert os.environ.get(OVERRIDE) == ("0" if on_cpu else None)
    assert asked["address"] == "local"


def test_a_head_that_runs_on_this_machine_is_not_joined_unasked(monkeypatch, tmp_path):
    """By Ray's own rules: an address file is what tells it of a head."""
    from ray._private.services import canonicalize_bootstrap_address

    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:6399")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert canonicalize_bootstrap_address(None).endswith(":6399")
    assert canonicalize_bootstrap_address(platform.ray_cluster()["address"]) is None
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert platform.ray_cluster() == {}
