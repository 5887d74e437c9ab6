"""How far a run is, and how many optimizer steps it takes: from counts of prompts alone."""

from __future__ import annotations

from openrlhf_maxk.learner.buffer import count_steps


def progress(consumed: int, steps: int, prompts: int, batch: int) -> float:
    """The share of a run that is done before its next step, in [0, 1]: 0 before the first step, 1 before the last.

    It follows the prompts, not the steps: with dynamic filtering a step uses more of them than it trains on. How many
    the last step will use is not known before; the mean of the steps so far stands for it.

    Args:
        consumed: prompts used so far.
        steps: the steps that used them.
        prompts: those of the whole run, all episodes.
        batch: what a step uses at least.
    """
    a_step = consumed / steps if steps else batch
    return min(1.0, consumed / max(prompts - a_step, 1))


def optimizer_steps_of_run(
    prompts: int, batch: int, group_size: int, samples_per_step: int, ranks: int, epochs: int, episodes: int
) -> int:
    """The optimizer steps of a run without dynamic filtering, those of each episode's last, smaller batch included.

    Args:
        prompts: of an episode, ``batch`` of them a step, each with ``group_size`` completions.
        samples_per_step: completions in an optimizer step over all ``ranks``.
        epochs: PPO epochs over the completions of a step.
    """
    full, rest = divmod(prompts, batch)
    counts = [full * count_steps(-(-batch // ranks), samples_per_step // ranks, group_size)] if full else []
    if rest:
        counts.append(count_steps(-(-rest // ranks), samples_per_step // ranks, group_size))
    return episodes * epochs * sum(counts)
