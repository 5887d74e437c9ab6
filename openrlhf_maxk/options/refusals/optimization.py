"""Refused because of how it is learnt: KL, the optimizer, and what is made of rewards."""

from __future__ import annotations

from openrlhf_maxk.options.refusals.rule import ADD_IT, LEAVE_OUT, Rule, Run, kl_in_rewards

MIN_LR_SCHEDULERS = ("cosine_with_min_lr", "cosine_warmup_with_min_lr")
# Those that transformers makes of a warm-up and a number of steps; others need a metric or further arguments.
SCHEDULERS = (
    *("linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt"),
    *MIN_LR_SCHEDULERS,
)


def _kl_loss_of(run: Run, estimator: str) -> bool:
    kl = run.args.algo.kl
    return kl.init_coef > 0 and not kl.unbiased_gradient and kl.estimator == estimator


KL = (
    Rule(
        "algo.kl.use_loss",
        "the gradient of that estimator is 0 in expectation",
        "use --algo.kl.estimator k2 or k3, or --algo.kl.unbiased_gradient",
        when="with --algo.kl.estimator k1",
        holds=lambda run: _kl_loss_of(run, "k1"),
    ),
    Rule(
        "algo.kl.estimator",
        "in the reward, only k1 has the gradient of the KL",
        "leave it out, or add --algo.kl.use_loss",
        when="without --algo.kl.use_loss",
        holds=kl_in_rewards,
    ),
    Rule(
        "algo.kl.unbiased_gradient",
        "it is about the KL in the loss, and there it is not",
        "add --algo.kl.use_loss",
        when="without --algo.kl.use_loss",
        holds=lambda run: not run.args.algo.kl.use_loss,
    ),
    Rule(
        "algo.kl.init_coef",
        "it would be taken for 0",
        "use 0, or a number above it",
        values="below 0",
        bad=lambda coefficient: coefficient < 0,
    ),
    Rule(
        "algo.kl.target",
        "0 stays 0, whatever it is multiplied by",
        "use an --algo.kl.init_coef above 0",
        when="with --algo.kl.init_coef 0",
        holds=lambda run: run.args.algo.kl.init_coef == 0,
    ),
    Rule(
        "algo.kl.target",
        "no checkpoint has the adapted coefficient: a resumed run would go on with --algo.kl.init_coef",
        "leave one of them out",
        when="with --ckpt.load_enable",
        holds=lambda run: run.args.ckpt.load_enable,
    ),
    Rule(
        "algo.kl.target",
        "nothing is adapted to it",
        "use a number above 0",
        values="0 and below",
        bad=lambda target: target is not None and target <= 0,
    ),
    Rule(
        "algo.kl.horizon",
        "the coefficient stays as it is",
        ADD_IT,
        when="without --algo.kl.target",
        holds=lambda run: run.args.algo.kl.target is None,
    ),
)

OPTIMIZER = (
    Rule(
        "train.enable_ema train.ema_beta",
        "the average is kept in bfloat16, where most of its small steps round to nothing, and in no checkpoint: "
        "what is saved would be near the base model",
        LEAVE_OUT,
    ),
    Rule("actor.muon.ns_steps actor.muon.nesterov", "DeepSpeed does not look at it", LEAVE_OUT),
    Rule(
        "actor.muon.lr actor.muon.momentum",
        "the optimizer is Adam",
        ADD_IT,
        when="without --actor.optim muon",
        holds=lambda run: run.args.actor.optim != "muon",
    ),
    Rule(
        "actor.optim",
        "DeepSpeed clips after orthogonalizing, and scales each update of the whole model down to that norm",
        "use --actor.max_norm 0",
        when="with an --actor.max_norm above 0",
        holds=lambda run: run.args.actor.max_norm > 0,
        values="`muon`",
        bad=lambda optimizer: optimizer == "muon",
    ),
    Rule(
        "actor.optim",
        "only ZeRO's optimizers orthogonalize: without them it is plain gradient descent",
        "use --ds.zero_stage 2",
        when="with --ds.zero_stage 0",
        holds=lambda run: run.args.ds.zero_stage == 0,
        values="`muon`",
        bad=lambda optimizer: optimizer == "muon",
    ),
    Rule(
        "actor.lr_scheduler",
        "transformers makes no schedule of it with a warm-up and a number of steps",
        f"use one of {', '.join(SCHEDULERS)}",
        values="that is not known, or needs more arguments",
        bad=lambda name: name not in SCHEDULERS,
    ),
    Rule(
        "actor.min_lr_ratio",
        "other schedules have no smallest rate",
        "leave it out, or use one of these",
        when=f"without --actor.lr_scheduler {' or '.join(MIN_LR_SCHEDULERS)}",
        holds=lambda run: run.args.actor.lr_scheduler not in MIN_LR_SCHEDULERS,
    ),
    Rule(
        "actor.lr_warmup_ratio",
        "that schedule has no warm-up",
        "leave it out, or use --actor.lr_scheduler constant_with_warmup",
        when="with --actor.lr_scheduler constant",
        holds=lambda run: run.args.actor.lr_scheduler == "constant" and run.is_set("actor.lr_warmup_ratio"),
        values="above 0",
        bad=lambda ratio: ratio > 0,
    ),
    Rule(
        "actor.lr_warmup_ratio",
        "it is a share of the run",
        "use a number from 0 to 1",
        values="not from 0 to 1",
        bad=lambda ratio: not 0 <= ratio <= 1,
    ),
)

REWARDS = (
    Rule(
        "reward.normalize_enable reward.offload ds.value_head_prefix",
        "there is no reward model that it could be about",
        LEAVE_OUT,
        when="without --reward.model_name_or_path",
        holds=lambda run: not run.args.reward.model_name_or_path,
    ),
    Rule(
        "reward.clip_range",
        "every reward would be the same",
        "give the lower bound first",
        values="whose first number is not the smaller",
        bad=lambda bounds: bounds[0] >= bounds[1],
    ),
    Rule(
        "reward.overlong_buffer_len",
        "no completion is that long",
        "use a number of tokens above 0",
        values="0 and below",
        bad=lambda tokens: tokens is not None and tokens <= 0,
    ),
    Rule(
        "reward.overlong_penalty_factor",
        "no completion counts as too long",
        ADD_IT,
        when="without --reward.overlong_buffer_len",
        holds=lambda run: run.args.reward.overlong_buffer_len is None,
    ),
    Rule(
        "reward.stop_properly_penalty_coef",
        "it scales the rewards of cut-off completions down",
        "use a share from 0 to 1, or a reward below 0",
        values="above 1",
        bad=lambda share: share is not None and share > 1,
    ),
)

RULES = (*KL, *OPTIMIZER, *REWARDS)
