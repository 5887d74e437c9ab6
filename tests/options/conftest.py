"""Options of a small run, checked."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest
from openrlhf.utils.config import hierarchize

from openrlhf_maxk.cli.train import CPU_DEFAULTS, DEFAULTS
from openrlhf_maxk.options import validation
from openrlhf_maxk.options.maxk import add_arguments
from openrlhf_maxk.options.validation import BadOptions, validate
from openrlhf_maxk.upstream.command_line import upstream_parser

from ..e2e import pipeline

ONE_GPU_EACH = {"ref__num_gpus_per_node": 1, "reward__num_gpus_per_node": 1, "actor__num_gpus_per_node": 1}


@pytest.fixture(scope="session")
def parsers():
    """The parser of each platform, by whether it is the CPU's."""
    made = {}
    for cpu in (True, False):
        made[cpu] = upstream_parser()
        made[cpu].set_defaults(**DEFAULTS, **(CPU_DEFAULTS if cpu else {}))
        add_arguments(made[cpu])
    return made


@pytest.fixture
def check(parsers, tmp_path, monkeypatch):
    """Validate the options of a small run with changes (names with ``__`` for the dot; None: left out)."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    pipeline.make_data(tmp_path / "data.jsonl", 8)
    pipeline.make_reward(tmp_path / "reward.py")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**40))

    def run(cpu: bool = True, **changes: object):
        monkeypatch.setattr(validation, "is_cpu", lambda: cpu)
        given = changes if cpu else {**ONE_GPU_EACH, **changes}
        return validate(hierarchize(parsers[cpu].parse_args(pipeline.arguments(tmp_path, **given))))

    return run


@pytest.fixture
def refused(check):
    """The lines that ``check`` refuses a run with; none if it passes."""

    def lines(**changes: object) -> list[str]:
        try:
            check(**changes)
        except BadOptions as error:
            return str(error).splitlines()
        return []

    return lines
