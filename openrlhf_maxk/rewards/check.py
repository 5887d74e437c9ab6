"""What protects this machine from the programs it runs: ``python -m openrlhf_maxk.rewards.check``.

Every layer is asked for, then programs try what a hostile one would try. The exit code is 0 if programs can be run
safely here, else 1. ``--without LAYER`` leaves a layer out; ``--unsafe`` checks even where the executor would refuse.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from openrlhf_maxk.problems.record import Limits, Problem, Test
from openrlhf_maxk.problems.verdict import Verdict
from openrlhf_maxk.rewards.execution.executor import Executor
from openrlhf_maxk.rewards.execution.runner import SandboxUnavailableError
from openrlhf_maxk.rewards.sandbox.protocol import LAYERS

MEANING = {
    "namespaces": "no network, no other processes, a file system of its own",
    "landlock": "files: the interpreter and its libraries, nothing else",
    "seccomp": "system calls: a list; no new process, socket or trace",
    "uid_drop": "a user id that owns nothing",
}
_TIMED_TESTS = 200
_OWNER = "import fcntl, os\nfcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, {})"
_PIPE = "import fcntl, os\nfcntl.fcntl(os.pipe()[0], 1031, 2**20)"  # F_SETPIPE_SZ
_HARMLESS_INSIDE = (
    "take memory in pipes",
    "start a process",
    "open a unix socket",
)  # only seccomp refuses them; namespaces contain them


@dataclass(frozen=True)
class Layer:
    """One layer of protection, on or off, and why."""

    name: str
    on: bool
    why: str = ""


@dataclass(frozen=True)
class Probe:
    """Something a program tried. ``held`` if it did not succeed."""

    name: str
    held: bool
    detail: str


@dataclass
class Report:
    """What was found."""

    safe: bool = False
    error: str = ""
    system: str = field(default_factory=lambda: f"{os.uname().sysname} {os.uname().release} {os.uname().machine}")
    user: int = field(default_factory=os.geteuid)
    layers: list[Layer] = field(default_factory=list)
    probes: list[Probe] = field(default_factory=list)
    milliseconds_per_test: float | None = None


def check(layers: Sequence[str] = LAYERS, unsafe: bool = False) -> Report:
    """Start an executor, attack it from inside, and measure what a test costs."""
    report = Report()
    try:
        executor = Executor(cores=1, layers=layers, unsafe=unsafe)
    except SandboxUnavailableError as error:
        report.error = str(error)
        return report
    with executor, tempfile.TemporaryDirectory() as directory:
        report.layers = [Layer(name, name not in executor.missing, executor.missing.get(name, "")) for name in LAYERS]
        processes_end_with_their_namespace = "seccomp" in executor.missing and "namespaces" not in executor.missing
        for name, source, allowed in _attacks(Path(directory)):
            if processes_end_with_their_namespace and name in _HARMLESS_INSIDE:
                continue
            (test,) = executor.run(source, _problem("")).tests
            report.probes.append(Probe(name, test.verdict in allowed, f"{test.verdict} {test.detail}".strip()))
        report.milliseconds_per_test = _cost(executor)
    report.safe = all(probe.held for probe in report.probes)
    return report


def _problem(expected: str, tests: int = 1) -> Problem:
    return Problem("check", "", (Test("1 2\n", expected),) * tests, limits=Limits(cpu_seconds=1.0))


def _attacks(directory: Path) -> list[tuple[str, str, tuple[Verdict, ...]]]:
    """What is tried, the program, and the verdicts that say it failed. Success prints nothing and exits with 0."""
    secret = directory / "secret"
    secret.write_text("secret")
    for path in (directory, secret):
        path.chmod(0o777)  # so that it is the sandbox that refuses, not the file's mode
    refused = (Verdict.CRASHED,)
    return [
        ("read a file of this machine", f"open({str(secret)!r}).read()", refused),
        ("write a file on this machine", f"open({str(directory / 'new')!r}, 'w').write('x')", refused),
        ("read an environment", f"import os\nopen('/proc/{os.getpid()}/environ').read()", refused),
        ("signal another process", f"import os\nos.kill({os.getpid()}, 0)", refused),
        ("have another process signalled", _OWNER.format(os.getpid()), refused),
        ("take memory in pipes", _PIPE, refused),
        ("start a process", "import os\nif os.fork() == 0: os._exit(0)", refused),
        ("run a command", "import os\nos.execv('/bin/sh', ['sh', '-c', 'exit'])", refused),
        ("open a network connection", "import socket\nsocket.create_connection(('127.0.0.1', 9), 1)", refused),
        ("open a unix socket", "import socket\nsocket.socket(socket.AF_UNIX).bind('\\0check')", refused),
        ("become root", "import os\nos.setuid(0)\nos.listdir('/root')", refused),
        ("take ten gigabytes", "bytearray(10 * 2**30)", (Verdict.OUT_OF_MEMORY,)),
        ("take more time than allowed", "while True: pass", (Verdict.CPU_TIMEOUT,)),
        ("sleep for ever", "import time\ntime.sleep(10**6)", (Verdict.WALL_TIMEOUT,)),
        ("print without end", "while True: print('x' * 1000)", (Verdict.TOO_MUCH_OUTPUT,)),
    ]


def _cost(executor: Executor) -> float:
    """Milliseconds that one test of a small program takes, one after the other on one core."""
    problem = _problem("3", _TIMED_TESTS)
    start = time.perf_counter()
    result = executor.run("print(sum(map(int, input().split())))", problem)
    seconds = time.perf_counter() - start
    if result.all_passed != 1.0:
        raise RuntimeError(f"a right program does not pass: {result.tests[0].verdict} {result.tests[0].detail}")
    return 1000 * seconds / _TIMED_TESTS


def text_of(report: Report) -> str:
    """The report for people."""
    lines = [f"{report.system}, user id {report.user}", ""]
    if report.error:
        return "\n".join([*lines, report.error, "", "NOT SAFE: programs will not be run here."])
    lines.append("Layers")
    for layer in report.layers:
        state = "on" if layer.on else f"off ({layer.why})"
        lines.append(f"  {layer.name:11} {state:4} {MEANING[layer.name]}")
    lines += [f"  {'limits':11} on   CPU time, memory, output, files, threads; no new privileges", "", "Attempts"]
    for probe in report.probes:
        lines.append(f"  {'held' if probe.held else 'FAILED':6} {probe.name:28} {probe.detail}")
    lines += ["", f"One test costs {report.milliseconds_per_test:.2f} ms.", ""]
    lines.append("Safe: programs are locked down." if report.safe else "NOT SAFE: an attempt succeeded.")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m openrlhf_maxk.rewards.check", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--unsafe", action="store_true", help="check even where the executor would refuse to run")
    parser.add_argument("--without", action="append", default=[], choices=LAYERS, help="leave a layer out")
    options = parser.parse_args(arguments)
    report = check([layer for layer in LAYERS if layer not in options.without], options.unsafe)
    print(json.dumps(asdict(report), indent=2) if options.json else text_of(report))
    return 0 if report.safe else 1


if __name__ == "__main__":
    sys.exit(main())
