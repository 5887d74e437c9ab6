"""News from the controller of a run to the process that started it, wherever in the cluster each of them is."""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import Any

CONSOLE = "console"  # name of the handle in args.maxk


class Console:
    """The controller's end: sends, and never fails or waits because of it."""

    def __init__(self, queue: Any = None) -> None:
        self._queue = queue

    @classmethod
    def of(cls, args: Any) -> Console:
        """The console of a run, or one that nobody reads."""
        return cls(getattr(getattr(args, "maxk", None), CONSOLE, None))

    def send(self, event: str, **content: Any) -> None:
        """Send an event."""
        if self._queue is not None:
            with contextlib.suppress(Exception):  # news must not end a run
                self._queue.put_nowait((event, content))


class Follower(threading.Thread):
    """The other end: shows a progress bar and a line of metrics for every step."""

    def __init__(self, queue: Any, shown: tuple[str, ...]) -> None:
        super().__init__(daemon=True)
        self._queue = queue
        self._shown = shown
        self._closing = threading.Event()

    def run(self) -> None:
        """Show events until :meth:`close`."""
        from ray.util.queue import Empty
        from tqdm import tqdm

        def say(text: str) -> None:
            tqdm.write(text, file=sys.stderr)

        bar = None
        while not self._closing.is_set():
            try:
                event, content = self._queue.get(timeout=1.0)
            except Empty:
                continue
            except Exception:  # the run is over
                break
            if event == "start":
                bar = tqdm(total=content["total"], desc="training", unit="step", file=sys.stderr, dynamic_ncols=True)
            elif bar is None:
                continue
            elif event == "resume" and content["step"]:
                bar.update(content["step"])
                say(f"resumed after step {content['step']}")
            elif event == "step":
                bar.update(content["step"] - bar.n)
                say(line(content["step"], content["metrics"], self._shown))
            elif event == "evaluation":
                say(f"step {content['step']} evaluation: {pairs(content['metrics'])}")
            elif event == "warning":
                say(f"warning: {content['text']}")
            elif event == "checkpoint":
                say(f"step {content['step']}: checkpoint saved")
        if bar is not None:
            bar.close()

    def close(self) -> None:
        """Show what is left, then stop."""
        self._closing.set()
        self.join(timeout=5)


def line(step: int, metrics: dict[str, float], shown: tuple[str, ...]) -> str:
    """One step as one line."""
    return f"step {step}  " + pairs({name: metrics[name] for name in shown if name in metrics})


def pairs(metrics: dict[str, float]) -> str:
    """Numbers with the last part of their names."""
    return "  ".join(f"{name.rpartition('/')[2]} {value:.3g}" for name, value in metrics.items())
