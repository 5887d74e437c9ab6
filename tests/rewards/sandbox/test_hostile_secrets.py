"""What a program may learn: nothing of the client, of other programs, or of what its own tests expect."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from openrlhf_maxk.problems.record import Comparison, Judge, Limits, Mode, Problem, Test
from openrlhf_maxk.problems.verdict import Verdict
from openrlhf_maxk.rewards.execution.executor import Executor
from openrlhf_maxk.rewards.execution.runner import SandboxUnavailableError

from ..places import PLACES, Place, Runner

PLAIN = Problem(
    id="plain",
    statement="",
    tests=(Test("", ""),),
    limits=Limits(cpu_seconds=20.0, output_bytes=2**22),
)

SCAN = """
import ctypes, re, sys
libc = ctypes.CDLL(None, use_errno=True)
pattern = re.compile(rb"le" rb"ak-([0-9a-f]{32})-([a-z]+)")
import os
read, write = os.pipe()
found = set()
def readable(address):
    # the kernel says EFAULT instead of killing us
    ok = libc.write(write, ctypes.c_void_p(address), ctypes.c_size_t(1)) == 1
    if ok: os.read(read, 1)
    return ok
starts = [id(sys), id(object()), id([]), ctypes.addressof(ctypes.c_char()), id(bytes(10**6)), id("x" * 200)]
starts += [id(o) for o in list(sys.modules.values())[::10]]
pages = set()
for start in starts:
    for page in range((start >> 12) - 1500, (start >> 12) + 1500):
        pages.add(page)
for page in sorted(pages):
    if readable(page << 12):
        for match in pattern.finditer(ctypes.string_at(page << 12, 4096)):
            found.add(match.group(0))
for item in found: os.write(1, item + b"\\n")
os.write(1, b"scanned\\n")
"""


@pytest.fixture(scope="module", params=[PLACES[0], PLACES[-2]], ids=str)
def runner(request: pytest.FixtureRequest) -> Iterator[Runner]:
    place: Place = request.param
    if not place.possible:
        pytest.skip("only root can be root")
    with place.open() as runner:
        yield runner


def token(kind: str) -> str:
    return f"leak-{secrets.token_hex(16)}-{kind}"


def test_memory_holds_nothing_of_earlier_programs(runner: Runner) -> None:
    """Also shows that the scan finds what is there: the program's own input."""
    source, sent, expected = token("source"), token("input"), token("expected")
    earlier = replace(PLAIN, tests=(Test(sent, expected), Test(sent + " 2", expected)))
    called = replace(earlier, mode=Mode.FUNCTION, entry_point="f", tests=(Test(f'["{sent}"]', f'"{expected}"'),))
    for _ in range(5):
        runner.run(f"import sys\nx = sys.stdin.read()\ny = '{source}'\nprint(x, y)", earlier)
        runner.run(f"def f(x): return '{source}'", called)
    (test,) = runner.run(SCAN, replace(PLAIN, tests=(Test("", token("expected")),))).tests
    assert test.output.split(b"\n")[-2:] == [b"scanned", b""], test.detail
    assert test.output == b"scanned\n"


def test_scan_finds_what_is_in_memory(runner: Runner) -> None:
    own = token("input")
    (test,) = runner.run("import sys\nkept = sys.stdin.read()\n" + SCAN, replace(PLAIN, tests=(Test(own, ""),))).tests
    assert own.encode() in test.output, test.detail


def test_environment_is_empty(runner: Runner) -> None:
    source = "import ctypes, os\nprint(len(os.environ), ctypes.c_void_p.in_dll(ctypes.CDLL(None), 'environ').value)"
    (test,) = runner.run(source, PLAIN).tests
    count = test.output.split()[0]
    assert count == b"0"
    look = (
        "import ctypes, os\ne = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), 'environ')\n"
        "print(e[0] if e else None)"
    )
    (test,) = runner.run(look, PLAIN).tests
    assert test.output == b"None\n"


def test_no_descriptor_but_the_streams_is_open(runner: Runner) -> None:
    source = (
        "import os\nfor f in range(1024):\n    try: s = os.fstat(f)\n    except OSError: continue\n"
        "    print(f, 'directory' if s.st_mode & 0o040000 else 'pipe' if s.st_mode & 0o010000 else 'other')\n"
    )
    (test,) = runner.run(source, PLAIN).tests
    lines = test.output.decode().splitlines()
    assert lines[:3] == ["0 pipe", "1 pipe", "2 pipe"]
    assert all(re.fullmatch(r"\d+ directory", line) for line in lines[3:]), lines  # where modules are searched


def test_expected_output_is_not_there_to_be_found(runner: Runner) -> None:
    problem = replace(PLAIN, tests=(Test("1", token("expected")),), judge=Judge(Comparison.TOKENS))
    (test,) = runner.run(SCAN, problem).tests
    assert test.output == b"scanned\n"
    assert test.verdict is Verdict.WRONG


def test_numerical_modules_where_asked() -> None:
    pytest.importorskip("numpy")
    source = "import numpy\nprint(numpy.arange(3).sum())"
    problem = replace(PLAIN, tests=(Test("", "3"),))
    with Executor(cores=1, modules=["numpy"]) as executor:
        (test,) = executor.run(source, problem).tests
        assert test.verdict is Verdict.PASSED, test.detail
        (test,) = executor.run("import numpy\nnumpy.ones(10**9)", problem).tests
        assert test.verdict is Verdict.OUT_OF_MEMORY
    with Executor(cores=1) as executor:
        (test,) = executor.run(source, problem).tests
        assert "ModuleNotFoundError" in test.detail


def test_a_module_that_starts_threads_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "busy_module.py").write_text("import threading\nthreading.Thread(target=input, daemon=True).start()\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SandboxUnavailableError, match="importing busy_module starts a thread"):
        Executor(cores=1, modules=["busy_module"])
