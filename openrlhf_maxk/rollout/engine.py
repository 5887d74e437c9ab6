"""The rollout actor: one vLLM request a prompt, answered by a whole group of completions."""

from __future__ import annotations

from copy import copy
from typing import Any

from openrlhf.utils.logging_utils import init_logger
from vllm.inputs import TokensPrompt
from vllm.sampling_params import RequestOutputKind
from vllm.utils import random_uuid

from openrlhf_maxk.platform import engine_dtype, is_cpu, prefix_sharing
from openrlhf_maxk.upstream.seams import Upstream

logger = init_logger(__name__)


class GroupRollout(Upstream):
    """In front of OpenRLHF's ``RolloutRayActor``: generates groups, and leaves rewards to the reward pool."""

    async def __init__(  # type: ignore[misc]  # Ray awaits it
        self, *args: Any, remote_rm_url: Any = None, agent_func_path: str | None = None, **kwargs: Any
    ) -> None:
        kwargs |= prefix_sharing()
        if is_cpu():
            kwargs["worker_extension_cls"] = "openrlhf_maxk.cpu.weight_sync.CPUWorkerWrap"
            kwargs["dtype"] = engine_dtype()
        # Log-probs, where they are asked for, are those of the policy that samples: after temperature and top-p.
        kwargs.setdefault("logprobs_mode", "processed_logprobs")
        self._has_agent = agent_func_path is not None
        await super().__init__(*args, agent_func_path=agent_func_path, **kwargs)

    async def generate_responses(
        self,
        prompt: str,
        label: str,
        sampling_params: Any,
        max_length: int,
        hf_tokenizer: Any,
        num_samples: int = 1,
        images: Any = None,
    ) -> list[dict[str, Any]]:
        """Sample ``num_samples`` completions of ``prompt``, as upstream's response records without rewards.

        The prompt is tokenized once, and prefilled once by vLLM. Completions that vLLM aborted are left out. A custom
        agent (``--train.agent_func_path``) interacts once a sample, as upstream, and brings its own rewards.
        """
        if self._has_agent:
            return await super().generate_responses(
                prompt, label, sampling_params, max_length, hf_tokenizer, num_samples, images
            )
        prompt_ids = hf_tokenizer(text=prompt, add_special_tokens=False)["input_ids"]
        params = copy(sampling_params)
        params.n = num_samples
        params.output_kind = RequestOutputKind.FINAL_ONLY
        params.detokenize = bool(params.stop)  # texts are decoded below, once; vLLM needs them for stop strings only
        if params.max_tokens is None:
            params.max_tokens = max(1, max_length - len(prompt_ids))
        room = max_length - params.max_tokens
        if len(prompt_ids) > room:
            logger.warning(f"a prompt of {len(prompt_ids)} tokens is cut to the last {room}, to fit --data.max_len")
            prompt_ids = prompt_ids[-room:]

        request = self.llm.generate(TokensPrompt(prompt_token_ids=prompt_ids), params, request_id=random_uuid())
        outputs = [output async for output in request]
        return [
            {
                "prompt": prompt,
                "label": label,
                "images": None,
                "mm_train_inputs": None,
                "observation_tokens": prompt_ids + list(sample.token_ids),
                "action_ranges": [(len(prompt_ids), len(prompt_ids) + len(sample.token_ids))],
                "rollout_log_probs": _log_probs(len(prompt_ids), sample),
                "truncated": sample.finish_reason == "length",
                "query": prompt + hf_tokenizer.decode(sample.token_ids, skip_special_tokens=False),
                "completion": hf_tokenizer.decode(sample.token_ids, skip_special_tokens=True),
                "reward": None,
                "scores": None,
                "extra_logs": {},
            }
            for sample in outputs[-1].outputs
            if sample.finish_reason in ("stop", "length") and sample.token_ids
        ]


def _log_probs(prompt_length: int, sample: Any) -> list[float] | None:
    """The sampling policy's log-probability of every token, 0 for the prompt; None if vLLM was not asked."""
    if sample.logprobs is None:
        return None
    chosen = (at[token].logprob for token, at in zip(sample.token_ids, sample.logprobs, strict=True))
    return [0.0] * prompt_length + list(chosen)
