"""The one table of everything in other packages that this one replaces or extends, by what, and why.

``openrlhf_maxk.install()`` applies the table. Nothing is imported early for it: a seam is applied in the moment its
module is imported, in whichever process that happens, so a Ray worker that never touches a module never pays for it.

Every seam that this package builds on carries a fingerprint of the upstream source it was written against.
:func:`check` compares them with what is installed and names the seam that changed.
``python -m openrlhf_maxk.upstream.seams`` prints the table with the state of every line.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.util
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import wrapt

from openrlhf_maxk.machine import has_flash_attn, no_compiling

if TYPE_CHECKING:
    Upstream = Any
else:
    Upstream = object
"""The base of a mixin that extends an upstream class: to type checkers, whatever upstream's class is."""

EXTEND = "extend"  # a new class: our mixin in front of the upstream class
WRAP = "wrap"  # what our function makes of the upstream object
REPLACE = "replace"  # our object instead
FLASH_ATTN, NVCC = "flash-attn", "nvcc"  # what may be missing
MODULE = "module"  # our module instead of the upstream module, which cannot even be imported


@dataclass(frozen=True, slots=True)
class Seam:
    """One replacement.

    ``target`` and ``by`` read "module:attribute" (a module alone for ``MODULE``). ``sources`` are the upstream
    definitions that ``by`` relies on, each with its fingerprint. ``cpu`` seams exist only on the CPU platform
    and, if they say what they do without (``missing``), on GPUs where that is missing.
    """

    target: str
    how: str
    by: str
    why: str
    sources: tuple[tuple[str, str], ...] = ()
    cpu: bool = False
    missing: str = ""


SEAMS: tuple[Seam, ...] = (
    Seam(
        "openrlhf.trainer.ray.vllm_engine:RolloutRayActor",
        EXTEND,
        "openrlhf_maxk.rollout.engine:GroupRollout",
        "one vLLM request a prompt (n samples, prompt tokenized and prefilled once); rewards leave the rollout actor",
        (("openrlhf.trainer.ray.vllm_engine:RolloutRayActor", "eb61743a7634"),),
    ),
    Seam(
        "openrlhf.trainer.ppo_trainer:SamplesGenerator",
        EXTEND,
        "openrlhf_maxk.rollout.sampler:GroupSampling",
        "rollouts are groups: rewards of a group together, lost completions shrink a group and never shift another",
        (("openrlhf.trainer.ppo_utils.samples_generator:SamplesGenerator", "11458b2545a7"),),
    ),
    Seam(
        "openrlhf.trainer.ppo_trainer:RemoteExperienceMaker",
        EXTEND,
        "openrlhf_maxk.experience.maker:GroupExperience",
        "groups are sharded whole over the learner ranks; advantages come from a max@k objective",
        (
            ("openrlhf.trainer.ppo_utils.experience_maker:RemoteExperienceMaker", "351a52599ac6"),
            ("openrlhf.trainer.ppo_utils.experience:Experience", "91f90b8a8cca"),
        ),
    ),
    Seam(
        "openrlhf.trainer.ppo_trainer:balance_experiences",
        REPLACE,
        "openrlhf_maxk.experience.sharding:as_dealt",
        "with dynamic batches upstream deals single samples to the ranks anew, which cuts groups",
        (("openrlhf.trainer.ppo_utils.experience:balance_experiences", "5eb57a1163e6"),),
    ),
    Seam(
        "openrlhf.trainer.ray.ppo_actor:NaiveReplayBuffer",
        REPLACE,
        "openrlhf_maxk.learner.buffer:GroupReplayBuffer",
        "upstream's buffer holds single samples and shuffles them one by one",
        (
            ("openrlhf.trainer.ppo_utils.replay_buffer:NaiveReplayBuffer", "f1e8190d186c"),
            ("openrlhf.trainer.ppo_utils.experience:split_experience_batch", "0e52b8f96cf5"),
            ("openrlhf.trainer.ppo_utils.experience:make_experience_batch", "d3d0ac962ee8"),
            ("openrlhf.trainer.ppo_utils.experience:remove_padding_in_sequences", "604dcdfd7764"),
        ),
    ),
    Seam(
        "openrlhf.trainer.ray.ppo_actor:ActorPPOTrainer",
        EXTEND,
        "openrlhf_maxk.learner.trainer:GroupLearner",
        "optimizer steps are made of whole groups, and their advantages are computed at the current policy",
        (
            ("openrlhf.trainer.ray.ppo_actor:ActorPPOTrainer", "afd1137caf53"),
            ("openrlhf.models.loss:PolicyLoss", "dbd9ec869829"),
            ("openrlhf.models.loss:aggregate_loss", "540362359745"),
            ("openrlhf.utils.loss_utils:iter_grad_accum_global_norm", "bc8918ee0bd1"),
        ),
    ),
    Seam(
        "openrlhf.models.actor:Actor",
        EXTEND,
        "openrlhf_maxk.rows.forward:GroupRows",
        "the prompt of a group is computed once, not once a completion",
        (
            ("openrlhf.models.actor:Actor", "7d30c742f71c"),
            ("openrlhf.models.utils:log_probs_from_logits", "25bc663769cb"),
        ),
    ),
    Seam(
        "openrlhf.trainer.ray.launcher:ReferenceModelActor",
        EXTEND,
        "openrlhf_maxk.learner.reference:GroupReference",
        "it computes groups as the learner does",
        (("openrlhf.trainer.ray.launcher:ReferenceModelActor", "56afd4d6b121"),),
    ),
    Seam(
        "openrlhf.trainer.ppo_trainer:PPOTrainer",
        EXTEND,
        "openrlhf_maxk.learner.controller:GroupController",
        "metrics of the groups in every log, progress, unbiased max@k in the evaluation during training",
        (
            ("openrlhf.trainer.ppo_trainer:PPOTrainer", "5d13ed090ca7"),
            ("openrlhf.trainer.ppo_trainer:BasePPOTrainer", "3da01a8fd299"),
        ),
    ),
    Seam(
        "openrlhf.trainer.ppo_trainer:compute_eval_metrics",
        REPLACE,
        "openrlhf_maxk.evaluation.during_training:compute_eval_metrics",
        "upstream reports the plain maximum of the n samples as pass@n, also for fractional rewards",
        (("openrlhf.trainer.ppo_trainer:compute_eval_metrics", "6bacef13e26a"),),
    ),
    Seam(
        "openrlhf.models.actor:get_peft_model",
        WRAP,
        "openrlhf_maxk.learner.lora:lora_of_the_models_dtype",
        "peft makes adapters in float32, which DeepSpeed casts to the model's dtype below ZeRO-3 only",
        (("openrlhf.models.actor:Actor.__init__", "845a0988ec0c"),),
    ),
    Seam(
        "openrlhf.utils.deepspeed.deepspeed:DeepspeedStrategy.save_model",
        WRAP,
        "openrlhf_maxk.learner.saving:as_users_load_it",
        "LoRA is saved merged as well, and what was trained in float32 in the dtype of the base model",
        (("openrlhf.utils.deepspeed.deepspeed:DeepspeedStrategy.save_model", "576c88c2f7e0"),),
    ),
    Seam(
        "openrlhf.models.ring_attn_utils",
        MODULE,
        "openrlhf_maxk.cpu.ring_attention",
        "imports flash_attn, which is used for ring attention and packing only",
        cpu=True,
        missing=FLASH_ATTN,
    ),
    Seam(
        "torch:cuda",
        WRAP,
        "openrlhf_maxk.cpu.torch_cuda:without_cuda",
        "OpenRLHF asks torch.cuda for the current device, to synchronize and to empty caches, everywhere",
        cpu=True,
    ),
    Seam(
        "openrlhf.utils.deepspeed.deepspeed:init_device_mesh",
        WRAP,
        "openrlhf_maxk.cpu.deepspeed:cpu_device_mesh",
        'the device mesh is made for "cuda"',
        (("openrlhf.utils.deepspeed.deepspeed:DeepspeedStrategy.setup_distributed", "5d18f192f8ea"),),
        cpu=True,
    ),
    Seam(
        "openrlhf.utils.deepspeed.deepspeed:get_train_ds_config",
        WRAP,
        "openrlhf_maxk.cpu.deepspeed:with_torch_adam",
        "torch's AdamW: DeepSpeed would compile one of its own",
        (("openrlhf.utils.deepspeed.deepspeed_utils:get_train_ds_config", "2e79fbb11ad6"),),
        cpu=True,
        missing=NVCC,
    ),
    Seam(
        "openrlhf.utils.utils:convert_to_torch_dtype",
        WRAP,
        "openrlhf_maxk.cpu.precision:with_float32",
        "--ds.param_dtype knows bf16 and fp16 only, whose arithmetic most CPUs do not have",
        (("openrlhf.utils.utils:convert_to_torch_dtype", "9c59d2aa5133"),),
        cpu=True,
    ),
    Seam(
        "deepspeed.comm.torch:build_shm_op",
        REPLACE,
        "openrlhf_maxk.cpu.deepspeed:no_shm_op",
        "two ranks on one machine: DeepSpeed would compile a C++ op for a minute; gloo does the same",
        (("deepspeed.comm.torch:build_shm_op", "5ee7daeb8dd5"),),
        cpu=True,
    ),
    Seam(
        "deepspeed.runtime.zero.partition_parameters:Init._allgather_params_coalesced",
        REPLACE,
        "openrlhf_maxk.cpu.deepspeed:gather_one_by_one",
        "ZeRO-3 waits for the last of its all-gathers; NCCL's end in order, gloo's do not: wrong weights, silently",
        (
            ("deepspeed.runtime.zero.partition_parameters:Init._allgather_params_coalesced", "7302585dfbcd"),
            ("deepspeed.runtime.zero.partition_parameters:Init._allgather_params_sequential", "951309749626"),
        ),
        cpu=True,
    ),
    Seam(
        "openrlhf.trainer.ray.ppo_actor:stateless_init_process_group",
        REPLACE,
        "openrlhf_maxk.cpu.weight_sync:gloo_process_group",
        "weights travel from the learner to vLLM over NCCL; on CPU over gloo, in the same broadcast loop",
        (
            ("openrlhf.utils.distributed_util:stateless_init_process_group", "0f4de7e6719a"),
            ("openrlhf.trainer.ray.vllm_worker_wrap:WorkerWrap", "9a8ddcde2fa6"),
        ),
        cpu=True,
    ),
)


class SeamError(RuntimeError):
    """An upstream definition is not the one this package was written against."""


_originals: dict[str, Any] = {}


def active(cpu: bool) -> list[Seam]:
    """The seams of a platform, and of what is missing on this machine."""
    missing = {name for name, absent in ((FLASH_ATTN, not has_flash_attn()), (NVCC, no_compiling())) if absent}
    return [seam for seam in SEAMS if cpu or not seam.cpu or seam.missing in missing]


def apply(seams: Iterable[Seam]) -> None:
    """Apply ``seams``: at once where the module is imported already, else when it is. Twice does nothing more."""
    for seam in seams:
        if seam.target in _originals:
            continue
        _originals[seam.target] = None
        if seam.how == MODULE:
            _replace_module(seam)
        else:
            module = seam.target.partition(":")[0]
            wrapt.register_post_import_hook(_applier(seam), module)


def original(target: str) -> Any:
    """What stood at ``target`` before its seam was applied."""
    importlib.import_module(target.partition(":")[0])
    return _originals[target]


def check(seams: Iterable[Seam]) -> None:
    """Compare the installed sources with those the seams were written against.

    Raises:
        SeamError: naming the packages that are not installed, or the seams whose upstream source is missing or changed.
    """
    seams = list(seams)
    packages = dict.fromkeys(source.partition(".")[0] for seam in seams for source, _ in seam.sources)
    absent = [package for package in packages if importlib.util.find_spec(package) is None]
    if absent:
        raise SeamError(
            f"not installed, and needed to train: {', '.join(absent)}. requirements/ has the versions; "
            "`bash examples/scripts/setup.sh` makes the whole environment, where there is no .venv"
        )
    changed = [
        f"  {source} ({'missing' if found is None else 'changed'}): needed by {seam.by}, because {seam.why}"
        for seam in seams
        for source, expected in seam.sources
        if (found := fingerprint(source)) != expected
    ]
    if changed:
        raise SeamError(
            "the installed openrlhf is not the one this package extends (openrlhf==0.11.2):\n"
            + "\n".join(changed)
            + "\nInstall openrlhf==0.11.2, or a release of openrlhf-maxk made for your version."
        )


def fingerprint(source: str) -> str | None:
    """The first 12 hex digits of the SHA-256 of a definition's source text; None if it does not exist.

    Reads the file; imports nothing but the top-level package's location.
    """
    module, _, qualname = source.partition(":")
    file = source_file(module)
    if file is None:
        return None
    text = file.read_text(encoding="utf-8")
    body: list[ast.stmt] = ast.parse(text).body
    node: ast.stmt | None = None
    for name in qualname.split("."):
        node = next((n for n in body if getattr(n, "name", None) == name), None)
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            return None
        body = node.body
    assert node is not None
    segment = ast.get_source_segment(text, node) or ""
    return hashlib.sha256(segment.encode()).hexdigest()[:12]


def source_file(module: str) -> Path | None:
    """The file of an upstream module, found without importing it; None if there is none."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        return None
    base = Path(next(iter(spec.submodule_search_locations)), *rest)
    return next((f for f in (base.with_suffix(".py"), base / "__init__.py") if f.is_file()), None)


def _replace_module(seam: Seam) -> None:
    sys.modules[seam.target] = importlib.import_module(seam.by)


def _applier(seam: Seam) -> Callable[[Any], None]:
    def apply_to(module: Any) -> None:
        *classes, name = seam.target.partition(":")[2].split(".")
        owner = functools.reduce(getattr, classes, module)
        by_module, _, by_name = seam.by.partition(":")
        replacement = getattr(importlib.import_module(by_module), by_name)
        upstream = getattr(owner, name)
        _originals[seam.target] = upstream
        if seam.how == EXTEND:
            replacement = _extend(upstream, replacement)
        elif seam.how == WRAP:
            replacement = replacement(upstream)
        setattr(owner, name, replacement)

    return apply_to


def _extend(upstream: Any, mixin: type) -> Any:
    """A subclass of ``mixin`` and ``upstream`` with upstream's name, and a Ray actor class again if it was one."""
    metadata = getattr(upstream, "__ray_metadata__", None)
    base = upstream if metadata is None else metadata.modified_class
    names = {"__module__": base.__module__, "__qualname__": base.__qualname__, "__doc__": mixin.__doc__}
    extended = type(base.__name__, (mixin, base), names)
    if metadata is None:
        return extended
    import ray

    return ray.remote(extended)


def main() -> None:
    """Print the table and the state of every seam."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` is no error
    for seam in SEAMS:
        state = {source: fingerprint(source) == expected for source, expected in seam.sources}
        print(f"{seam.target}{'  [cpu]' if seam.cpu else ''}\n    {seam.how} by {seam.by}\n    {seam.why}")
        for source, expected in seam.sources:
            print(
                f"    {'ok     ' if state[source] else 'CHANGED'} {source} {fingerprint(source)} (expected {expected})"
            )


if __name__ == "__main__":
    main()
