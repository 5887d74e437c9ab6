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
        results += _run_together(list(group), bench, deadline, seconds)
    return results


def _run_together(parts: list[Part], bench: Bench, deadline: float, seconds: float) -> list[Result]:
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
        ended = False
        while not ended and not result.error:
            if not receive.poll(max(0.0, deadline - time.monotonic())):
                process.kill()
                result.error = f"not through when the {seconds:.0f} s of the whole run were over"
                continue
            try:
                said: Record | str | None = receive.recv()
            except EOFError:
                process.join()
                result.error = _how_it_ended(process.exitcode, log)
                continue
            if isinstance(said, Record):
                result.records.append(said)
            else:
                ended, result.error = True, said or ""
        result.seconds = time.monotonic() - started
    process.join()
    if any(result.failed for result in results):
        print(*log.read_text(errors="replace").splitlines()[-LOG_LINES:], sep="\n", file=sys.stderr)
    return results


def _work(parts: Sequence[Part], bench: Bench, log: str, send: Connection) -> None:
    """Send the records of each part as they come, then None or the last line of its error."""
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    for part in parts:
        try:
            if part is parts[0]:
                stack.prepare(bench.device)
            if part.zero is not None and bench.learners is None:
                stack.start_engine(bench, part.zero)
            for record in part.run(bench):
                send.send(record)
            send.send(None)
        except (Exception, SystemExit) as error:  # the command line's own errors are SystemExit
            traceback.print_exc()
            send.send(last_line(error))
    send.close()


def _how_it_ended(status: int | None, log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    how = f"its process ended with {signal.Signals(-status).name if status and status < 0 else f'status {status}'}"
    return f"{how}: {lines[-1]}" if lines else how
