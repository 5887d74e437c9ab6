"""Hostile programs, one by one, in every place: the verdict is right, and nothing is left of them."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import replace

import pytest

from openrlhf_maxk.problems.record import Limits, Problem, Test
from openrlhf_maxk.problems.verdict import Verdict

from ..hostile import ALL, Hostile
from ..places import NO_SECCOMP, NOBODY, PLACES, Place, Runner
from ..traces import files_named, sandbox_processes, settles_at

SECRET = "environment-secret"
PLAIN = Problem(id="plain", statement="", tests=(Test("1 2\n", "3\n"),), limits=Limits(cpu_seconds=10.0))
SHORT = replace(PLAIN, limits=Limits(cpu_seconds=0.3))
TIMEOUTS = {Verdict.CPU_TIMEOUT, Verdict.WALL_TIMEOUT}
RIGHT = "print(sum(map(int, input().split())))\n"


def _places() -> list[object]:
    """All places; those beyond root's and an ordinary user's own take long to go through."""
    usual = [Place(ordinary=False), Place(ordinary=True, without=("namespaces",))]
    return [place if place in usual else pytest.param(place, marks=pytest.mark.slow) for place in PLACES + NO_SECCOMP]


@pytest.fixture(scope="module", params=_places(), ids=str)
def place(request: pytest.FixtureRequest) -> Place:
    if not request.param.possible:
        pytest.skip("only root can be root")
    return request.param


@pytest.fixture(scope="module")
def runner(place: Place) -> Iterator[Runner]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECRET", SECRET)
        with place.open() as runner:
            unexpected = {name: why for name, why in runner.missing.items() if why != "switched off"}
            if place.ordinary:
                unexpected.pop("uid_drop", None)
            if unexpected:
                pytest.skip(f"this machine does not offer {unexpected}")
            assert runner.run(RIGHT, PLAIN).all_passed == 1.0
            yield runner


@pytest.mark.parametrize("hostile", ALL, ids=str)
def test_verdict_is_right_and_nothing_is_left(hostile: Hostile, runner: Runner, place: Place) -> None:
    if hostile.needs_seccomp and "seccomp" in place.without:
        pytest.skip("what it tries is harmless only with seccomp, or in its own namespaces")
    marker = f"escaped-{secrets.token_hex(8)}"
    servers = runner.server_pids()
    before = sandbox_processes(servers)
    source = hostile.source.replace("{marker}", marker).replace("{secret}", SECRET)

    # One that ends by itself is far from its limit on a slow machine too; one that does not need not wait for it.
    (result,) = runner.run(source, SHORT if hostile.verdicts & TIMEOUTS else PLAIN).tests

    assert result.verdict in hostile.verdicts, result.detail
    assert SECRET.encode() not in result.output
    assert not settles_at(servers, before), "a process survives"
    assert not files_named(marker)
    assert runner.server_pids() == servers, "the server had to be replaced"
    assert runner.run(RIGHT, PLAIN).all_passed == 1.0


def test_next_program_finds_an_empty_directory(runner: Runner) -> None:
    runner.run("open('left', 'w').write('x')", PLAIN)
    look = "import os\ntry:\n    print(len(os.listdir('/tmp')) + 3)\nexcept PermissionError:\n    print(3)\n"
    assert runner.run(look, PLAIN).tests[0].verdict is Verdict.PASSED


@pytest.mark.parametrize(
    "change", ["os.chmod('/tmp', 0)", "os.utime('/tmp', (3, 3))", "os.mkdir('/tmp/x')\nos.rmdir('/tmp/x')"]
)
def test_next_program_finds_the_directory_as_it_was(change: str, runner: Runner) -> None:
    """Also where the program owns the directory: without a second user id."""
    look = "import os\ns = os.stat('/tmp')\nprint(oct(s.st_mode), s.st_mtime == 3, s.st_atime == 3, s.st_nlink)\n"
    (before,) = runner.run(look, PLAIN).tests
    runner.run(f"import os\n{change}", PLAIN)
    (after,) = runner.run(look, PLAIN).tests
    assert after.output == before.output
    assert runner.run(RIGHT, PLAIN).all_passed == 1.0


def test_files_of_the_same_user_stay_as_they_are(runner: Runner, place: Place) -> None:
    """Also those that the program's user owns: where no user id is spare, and no private root hides them."""
    with tempfile.NamedTemporaryFile(dir="/tmp") as file:
        file.write(b"mine")
        file.flush()
        os.chmod(file.name, 0o644)
        if place.ordinary and os.geteuid() == 0:
            os.chown(file.name, NOBODY, NOBODY)
        before = os.stat(file.name)
        for change in (
            "chmod(f, 0)",
            "utime(f, (3, 3))",
            "truncate(f, 0)",
            "open(f, 2)",
            "chown(f, -1, 0)",
            "unlink(f)",
        ):
            runner.run(f"import os\nf = {file.name!r}\nos.{change}", PLAIN)
        assert os.stat(file.name) == before


def test_private_directory_can_be_used(runner: Runner, place: Place) -> None:
    if "namespaces" in place.without:
        pytest.skip("without a mount namespace a program may write nowhere")
    source = "import tempfile\nf = tempfile.TemporaryFile()\nf.write(b'3')\nf.seek(0)\nprint(int(f.read()))\n"
    assert runner.run(source, PLAIN).tests[0].verdict is Verdict.PASSED


@pytest.mark.parametrize(
    "source",
    [
        RIGHT,
        "import sys\nprint(sum(int(x) for line in sys.stdin for x in line.split()))",
        "import sys\nprint(sum(map(int, sys.stdin.buffer.read().split())))",
        "import sys\nprint(sum(map(int, sys.stdin.readline().split())))",
        "print(sum(map(int, open(0).read().split())))",
        "import os\nprint(sum(map(int, os.read(0, 1000).split())))",
        "print(sum(map(int, open('/dev/stdin').read().split())))",
        "import fileinput\nprint(sum(map(int, fileinput.input().readline().split())))",
        "import io, os, sys\nsys.stdin = io.BytesIO(os.read(0, 99))\nprint(sum(map(int, input().split())))",
    ],
)  # fmt: skip
def test_every_way_to_read_input_works(source: str, runner: Runner) -> None:
    (result,) = runner.run(source, PLAIN).tests
    assert result.verdict is Verdict.PASSED, result.detail


@pytest.mark.parametrize(
    "source",
    [
        "import zlib, hashlib, sqlite3, bz2, lzma, ssl, xml.dom.minidom, unittest.mock, pickle, csv, uuid, zoneinfo",
        "import collections.abc, json.tool, email.mime.text, concurrent.futures, ctypes, asyncio, logging.handlers",
        "import random, secrets\nrandom.random()\nsecrets.token_hex()",
    ],
)  # fmt: skip
def test_standard_library_can_be_imported(source: str, runner: Runner) -> None:
    (result,) = runner.run(source + "\nprint(3)", PLAIN).tests
    assert result.verdict is Verdict.PASSED, result.detail
