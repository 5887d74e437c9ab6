"""Evaluation during training (``--eval.*``), with the estimators of the final one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from openrlhf_maxk.experience.group import Group
from openrlhf_maxk.experience.metrics import Outcomes, mean_at_k, names_at_k
from openrlhf_maxk.objectives import Strategy

NO_BEST = "none"  # --ckpt.best_metric_key: no best checkpoint


def compute_eval_metrics(eval_dataloader: Iterable[Any], groups: Sequence[Group], n_samples_per_prompt: int) -> dict:
    """Unbiased max@k and pass@k for every data source, k = 1, 2, 4, … n, with response lengths and truncation.

    What k samples are worth by the groups' strategy, if another than ``max``, is told beside them by its name. In place
    of OpenRLHF's function of the same name; any of the names can be ``--ckpt.best_metric_key``. Its
    ``eval_<source>_pass1`` (the mean score, which picks the best checkpoint by default) is kept.
    """
    if not groups:
        return {}
    sources = {
        prompt: source
        for batch_sources, prompts, *_ in eval_dataloader
        for source, prompt in zip(batch_sources, prompts, strict=True)
    }
    found: dict[str, list[Outcomes]] = defaultdict(list)
    for group in groups:
        assert group.rewards is not None
        assert group.scores is not None
        outcomes = Outcomes(group.rewards.float(), group.scores.float(), group.chosen_by)
        found[sources.get(group.prompt, "unknown")].append(outcomes)
    members = [member for group in groups for member in group.members]
    logs = {
        "eval_response_length_mean": sum(m.response_length.item() for m in members) / len(members),
        "eval_truncated_rate": sum(m.truncated.item() for m in members) / len(members),
        "eval_num_samples": float(len(members)),
        "eval_lost_completions": float(sum(group.lost for group in groups)),
    }
    for source, of_source in found.items():
        logs |= mean_at_k(of_source, f"eval_{source}_", groups[0].strategy)
        logs[f"eval_{source}_pass1"] = torch.stack([group.scores.mean() for group in of_source]).mean().item()
    return logs


def check_best_metric(
    key: str, eval_dataloader: Iterable[Any] | None, n_samples_per_prompt: int, strategy: str = "max"
) -> None:
    """``--ckpt.best_metric_key`` must be one of the metrics that an evaluation will have: OpenRLHF passes over an
    unknown one in silence, and never saves a best checkpoint.

    Raises:
        ValueError: it is not; the message lists those that are.
    """
    if not key or key == NO_BEST:
        return
    if not eval_dataloader:
        raise ValueError(f"--ckpt.best_metric_key {key} needs an evaluation: set --eval.dataset and --eval.steps")
    sources = sorted({source for sources, *_ in eval_dataloader for source in sources})
    of_source = ["pass1", *names_at_k(n_samples_per_prompt, Strategy.parse(strategy))]
    known = [f"eval_{source}_{name}" for source in sources for name in of_source]
    if key not in known:
        raise ValueError(
            f"--ckpt.best_metric_key {key} is no metric of the evaluation (--eval.n_samples_per_prompt is "
            f"{n_samples_per_prompt}): choose one of {', '.join(known)}, or {NO_BEST}"
        )
