"""The machine, the one table and the one file of a run."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .parts import Result

PACKAGES = ("torch", "transformers", "deepspeed", "openrlhf", "triton", "nvidia-nccl-cu13", "nvidia-cudnn-cu13")
HEAD = ("part", "case", "figures")


def machine(device: str) -> dict[str, Any]:
    """What the figures depend on: card, driver, versions, date."""
    import torch

    found: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": device,
        "python": platform.python_version(),
        "torch CUDA": torch.version.cuda,
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
    }
    if device == "cuda":
        query = "--query-gpu=name,driver_version,memory.total,power.limit"
        command = ["nvidia-smi", query, "--format=csv,noheader"]
        try:
            said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
            found["cards"] = said.strip().splitlines()
        except (OSError, subprocess.SubprocessError) as error:
            found["cards"] = f"nvidia-smi did not say: {error}"
    return found


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def table(results: Sequence[Result], about: dict[str, Any]) -> str:
    """Markdown: a line for every record, and for every part one with its seconds, or with what it failed of."""
    rows = [HEAD, ("---",) * len(HEAD)]
    for result in results:
        for record in result.records:
            shown = ", ".join(f"{name} {_said(value)}" for name, value in record.figures.items() if _is_single(value))
            failed = f"FAILED: {record.problem}" if record.problem else ""
            rows.append((result.part, record.case, "; ".join(filter(None, (shown, failed)))))
        ended = f"FAILED: {result.error}" if result.error else "through"
        rows.append((result.part, f"*{result.seconds:.1f} s*", ended))
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD) - 1)]
    lines = ["| " + " | ".join([*map(str.ljust, row[:-1], widths), row[-1]]) + " |" for row in rows]
    cards, versions = about.get("cards") or about["device"], about["versions"]
    lines += ["", f"{cards}; {', '.join(f'{name} {version}' for name, version in versions.items())}; {about['date']}"]
    return "\n".join(lines)


def write(file: Path, results: Sequence[Result], about: dict[str, Any]) -> None:
    """Everything, as JSON; what is not finite is a string."""
    file.parent.mkdir(parents=True, exist_ok=True)
    contents = {"machine": about, "parts": [asdict(result) for result in results]}
    file.write_text(json.dumps(_finite(contents), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return str(value)
    return value


def _is_single(value: Any) -> bool:
    return not isinstance(value, dict | list | tuple)


def _said(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
