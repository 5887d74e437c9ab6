"""The first stage: ask for the samples that a run does not have yet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from tqdm import tqdm

from openrlhf_maxk.evaluation.samples.records import Sampler, missing_requests
from openrlhf_maxk.evaluation.samples.run_folder import RunFolder

SAMPLES_PER_REQUEST = 64  # at most so many are lost with a request that a kill cuts short


class IncompleteError(Exception):
    """Some samples could not be had. What could is saved; running again asks for the rest."""


def generate(
    run: RunFolder,
    sampler: Sampler,
    prompts: Mapping[str, str],
    samples: int,
    seed: int,
    *,
    per_request: int = SAMPLES_PER_REQUEST,
) -> int:
    """Bring every problem (an id in ``prompts``) to ``samples`` samples, or to as many as there are; returns how many
    were new.

    What arrives is written at once. The caller holds the run's lock.

    Raises:
        IncompleteError: the sampler left some out.
    """
    present: dict[str, set[int]] = defaultdict(set)
    for record in run.samples:
        present[record["problem"]].add(record["index"])
    counts = {problem: _at_most(samples, sampler.available(problem)) for problem in prompts}
    requests = missing_requests(prompts, present, counts, seed, per_request)
    wanted, total = sum(request.count for request in requests), sum(counts.values())
    if not wanted:
        return 0
    done = tokens = 0
    with (
        run.samples.writer() as writer,
        tqdm(total=total, initial=total - wanted, desc="generate", unit="sample") as bar,
    ):
        for batch in sampler.sample(requests):
            if not batch:
                bar.unpause()  # the work begins now
            writer.append(sample.record() for sample in batch)
            done += len(batch)
            tokens += sum(max(sample.tokens, 0) for sample in batch)
            elapsed = bar.format_dict["elapsed"]
            if tokens and elapsed:
                bar.set_postfix_str(f"{tokens / elapsed:,.0f} tokens/s", refresh=False)
            bar.update(len(batch))
    if done < wanted:
        raise IncompleteError(
            f"{wanted - done} of {wanted} samples could not be generated; the others are saved in "
            f"{run.samples.folder}. Run the same command again to ask for what is missing"
        )
    return done


def _at_most(samples: int, available: int | None) -> int:
    return samples if available is None else min(samples, available)
