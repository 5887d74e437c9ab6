"""OpenRLHF can be imported on CPU only behind this package's seams, and test modules import it at their top."""

from __future__ import annotations

import importlib.util

import openrlhf_maxk


def pytest_sessionstart() -> None:
    """Before collection; without OpenRLHF (the mathematics alone is installed) there is nothing to extend."""
    if importlib.util.find_spec("openrlhf") is not None:
        openrlhf_maxk.install()
