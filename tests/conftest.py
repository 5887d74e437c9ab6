"""What every test may rely on: OpenRLHF behind this package's seams, signals that end a child, a time to end in."""

from __future__ import annotations

import importlib.util
import signal

import pytest
from hypothesis import HealthCheck, settings

import openrlhf_maxk

SECONDS, SLOW_SECONDS = 300, 1800  # far more than any test takes on two cores slowed down to a third
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_sessionstart() -> None:
    """Before collection, which imports OpenRLHF; with the mathematics alone installed there is nothing to extend."""
    _default_signals_for_children()
    if importlib.util.find_spec("openrlhf") is None:
        return
    from openrlhf_maxk.upstream.seams import SeamError

    try:
        openrlhf_maxk.install()
    except SeamError as error:
        pytest.exit(str(error), returncode=3)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that hangs fails, with the stack of every thread."""
    for item in items:
        item.add_marker(pytest.mark.timeout(SLOW_SECONDS if item.get_closest_marker("slow") else SECONDS))


def _default_signals_for_children() -> None:
    """In a background job (``nohup … &``) these are ignored, which children inherit; what is handled, they do not."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
