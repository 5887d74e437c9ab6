"""Parts run in processes of their own, one for each engine: what ends one of them does not end the others."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from itertools import groupby
from multiprocessing.connection import Connection
from pathlib import Path

from . import stack
from .objectives import last_line
from .parts import Bench, Part, Record, Result

LOG_LINES = 40  # of a process in which something failed, shown


def run(parts: Sequence[Part], bench: Bench, seconds: float) -> list[Result]:
    """Run ``parts``, which stand in the order of their engines; what is not through after ``seconds`` is ended."""
    deadline = time.monotonic() + seconds
    results = []
    for _, group in groupby(parts, key=lambda part: part.zero):
        waiting = list(group)
        while waiting:
            done = _run_together(waiting, bench, deadline)
            results += done
            del waiting[: len(done)]
    return results


def _run_together(parts: list[Part], bench: Bench, deadline: float) -> list[Result]:
    """Run ``parts`` in one process, as far as it lives: at least the first has a result."""
    log = bench.folder / f"{parts[0].name}.log"
    receive, send = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=_work, args=(parts, bench, str(log), send))
    process.start()
    send.close()
    results: list[Result] = []
    for part in parts:
        print(f"{part.name} ...", file=sys.stderr, flush=True)
        result, started = Result(part.name), time.monotonic()
        results.append(result)
        alive = _receive(receive, result, deadline)
        result.seconds = time.monotonic() - started
        if not alive:
            process.kill() if result.error else process.join()
            result.error = result.error or _how_it_ended(process.exitcode, log)
            break
    process.join()
    if any(result.failed for result in results) and log.exists():
        print(*log.read_text(errors="replace").splitlines()[-LOG_LINES:], sep="\n", file=sys.stderr)
    return results


def _receive(receive: Connection, result: Result, deadline: float) -> bool:
    """Fill ``result`` with what comes for it; whether more can come. If not, an error says that time is over."""
    while receive.poll(max(0.0, deadline - time.monotonic())):
        try:
            said: Record | str = receive.recv()
        except EOFError:
            return False
        if isinstance(said, str):
            result.error = said
            return True
        result.records.append(said)
    result.error = "not through when the time of the whole run was over"
    return False


def _work(parts: Sequence[Part], bench: Bench, log: str, send: Connection) -> None:
    """Send the records of each part as they come, then the last line of its error, which is empty if there is none."""
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    for part in parts:
        error = ""
        try:
            if part is parts[0]:
                stack.prepare(bench.device)
            if part.zero is not None and bench.learners is None:
                stack.start_engine(bench, part.zero)
            for record in part.run(bench):
                send.send(record)
        except (Exception, SystemExit) as raised:  # the command line's own errors are SystemExit
            traceback.print_exc()
            error = last_line(raised)
        send.send(error)


def _how_it_ended(status: int | None, log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    how = f"its process ended with {signal.Signals(-status).name if status and status < 0 else f'status {status}'}"
    return f"{how}: {lines[-1]}" if lines else how
