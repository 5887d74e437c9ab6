"""A run leaves a record of its options beside its result, so that a finished run is not run again by mistake."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

FILE = "maxk_run.json"
# Options (or how they start) that change nothing that is learnt: what is shown, where it stands, what fits into memory.
# Numbers of learner ranks are not among them: each loads its own part of a checkpoint.
IGNORED = (
    *("logger.", "ckpt.", "eval.", "vllm.", "ref.", "local_rank", "train.colocate_", "data.dataloader_num_workers"),
    *("maxk.verbose", "maxk.reward_", "maxk.runner"),
    *("reward.remote_url", "reward.num_", "reward.offload"),
    *("rollout.micro_batch_size", "train.micro_batch_size", "actor.gradient_checkpointing_", "ds.enable_sleep"),
)


class OtherRun(ValueError):
    """The folder belongs to a run with other options."""


def options_record(flat: argparse.Namespace) -> dict[str, Any]:
    """What identifies a run, as plain JSON values."""
    return json.loads(json.dumps(_learnt(vars(flat)), default=str, sort_keys=True))


def _learnt(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if not name.startswith(IGNORED)}


def read(folder: str) -> dict[str, Any] | None:
    """The record in ``folder``; None if there is none."""
    try:
        return json.loads((Path(folder) / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise OtherRun(f"{Path(folder) / FILE} is damaged ({error}); remove the folder to start again") from None


def write(folder: str, record: dict[str, Any]) -> None:
    """Leave ``record`` in ``folder``, at once or not at all."""
    path = Path(folder) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(draft, path)


def is_done(flat: argparse.Namespace) -> bool:
    """Whether the output folder holds the result of a finished run with the same options.

    Raises:
        OtherRun: it holds that of a run with other options, or the checkpoints to go on from are of one.
    """
    record = options_record(flat)
    output, checkpoints = getattr(flat, "ckpt.output_dir"), getattr(flat, "ckpt.path")
    finished = read(output)
    if finished is not None:
        _same(finished, record, output, "choose another --ckpt.output_dir, or remove it")
        return True
    if getattr(flat, "ckpt.load_enable"):
        started = read(checkpoints)
        if started is not None:
            insist = f"choose another --ckpt.path, or remove {FILE} there to go on with the options as they are now"
            _same(started, record, checkpoints, insist)
    return False


def _same(found: dict[str, Any], wanted: dict[str, Any], folder: str, instead: str) -> None:
    found = _learnt(found)  # it may have been left by a release that ignored less
    names = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    if names:
        changes = "; ".join(f"--{name} was {found.get(name)}, is {wanted.get(name)}" for name in names[:4])
        raise OtherRun(f"{folder} holds a run with other options ({changes}): {instead}")
