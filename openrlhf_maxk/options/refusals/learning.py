"""Refused because of what is learnt: the objective and the loss."""

from __future__ import annotations

from openrlhf_maxk.objectives import get_objective
from openrlhf_maxk.options.refusals.rule import ADD_IT, LEAVE_OUT, Rule, Run, is_offpolicy_bon, kl_in_rewards


def _several_steps(run: Run) -> bool:
    args = run.args
    completions = args.rollout.batch_size * args.rollout.n_samples_per_prompt
    return args.train.max_epochs > 1 or completions > args.train.batch_size


def _never_negative(run: Run) -> bool:
    """No token has a negative advantage, in a loss that would treat it differently."""
    marginal = is_offpolicy_bon(run) and run.maxk.baseline == "marginal" and run.maxk.strategy == "max"
    return marginal and run.maxk.loss != "score" and not kl_in_rewards(run)


def _is_correction(run: Run) -> bool:
    return run.args.algo.advantage.is_correction_level != "off"


OBJECTIVE = (
    Rule(
        "algo.advantage.estimator",
        "the objective takes its place, and trains no critic",
        "leave it out, and choose --maxk.objective",
        values="other than `group_norm`",
        bad=lambda estimator: estimator != "group_norm",
    ),
    Rule("algo.advantage.gamma", "every token of a completion has the same advantage", "use 1"),
    Rule("algo.advantage.lambd", "it weighs the estimates of a critic, and there is none", LEAVE_OUT),
    Rule("algo.advantage.no_std_norm", "the objective decides how advantages are scaled", "choose --maxk.objective"),
    Rule(
        "critic.freezing_steps",
        "it holds the policy still while a critic learns, and there is none; rollouts would pile up untrained on",
        LEAVE_OUT,
    ),
    Rule(
        "critic.model_name_or_path critic.num_nodes critic.num_gpus_per_node critic.save_value_network "
        "critic.value_clip critic.optim critic.muon.lr critic.muon.momentum critic.muon.ns_steps critic.muon.nesterov "
        "critic.adam.lr critic.adam.betas critic.adam.eps critic.adam.weight_decay critic.lr_scheduler "
        "critic.lr_warmup_ratio critic.min_lr_ratio critic.max_norm train.colocate_critic_reward",
        "max@k objectives use no critic",
        LEAVE_OUT,
    ),
    Rule(
        "maxk.baseline",
        "where ratios are clipped, the expected gradient can turn round",
        "use --maxk.baseline marginal, --maxk.loss score, or one step: --train.max_epochs 1 and a --train.batch_size "
        "of the whole rollout",
        when="with a --maxk.loss other than score and several optimizer steps a rollout",
        holds=lambda run: is_offpolicy_bon(run) and run.maxk.loss != "score" and _several_steps(run),
        values="`none`",
        bad=lambda baseline: baseline == "none",
    ),
    Rule(
        "maxk.baseline",
        "without a baseline, groups of equal rewards have a part in the gradient: left out, it changes its sign",
        "use --maxk.baseline marginal or leave_one_out",
        when="with --algo.dynamic_filtering_enable",
        holds=lambda run: is_offpolicy_bon(run) and run.args.algo.dynamic_filtering_enable,
        values="`none`",
        bad=lambda baseline: baseline == "none",
    ),
    Rule(
        "maxk.objective",
        "it is about right and wrong, and rewards would be fractions",
        "use --maxk.reward binary and no terms, or another objective",
        when="with --maxk.problems and --maxk.reward continuous, --maxk.format_reward or --maxk.length_penalty",
        holds=lambda run: (
            (run.maxk.problems is not None and run.maxk.reward == "continuous")
            or run.maxk.format_reward > 0
            or run.maxk.length_penalty > 0
        ),
        values="`nsr`, `passk_training` or `w_reinforce`",
        bad=lambda objective: not objective.endswith(".py") and get_objective(objective).binary,
    ),
    Rule(
        "algo.dynamic_filtering_enable",
        "a reward model scores after the rollout, when nothing can be replaced any more",
        "use a reward function",
        when="with --reward.model_name_or_path",
        holds=lambda run: run.args.reward.model_name_or_path,
    ),
    Rule(
        "algo.dynamic_filtering_range",
        "nothing is filtered",
        ADD_IT,
        when="without --algo.dynamic_filtering_enable",
        holds=lambda run: not run.args.algo.dynamic_filtering_enable,
    ),
    Rule(
        "algo.dynamic_filtering_range",
        "no mean lies in it",
        "give the lower bound first",
        values="whose first number is not the smaller",
        bad=lambda bounds: bounds[0] >= bounds[1],
    ),
)

LOSS = (
    Rule(
        "actor.policy_loss_type",
        "its ratio is a mean over tokens: not tested with whole groups, and nothing that the score loss could use",
        LEAVE_OUT,
    ),
    Rule(
        "actor.loss_agg_mode",
        "means over each sequence's own tokens weigh a token by the length of its completion: biased at any batch size",
        "leave it out, and choose --maxk.aggregate",
    ),
    Rule(
        "actor.eps_clip actor.eps_clip_low_high actor.dual_clip",
        "the score loss has no clip; its trust region is --maxk.delta_clip",
        LEAVE_OUT,
        when="with --maxk.loss score",
        holds=lambda run: run.maxk.loss == "score",
    ),
    Rule(
        "algo.advantage.is_correction_level",
        "only OpenRLHF's PPO loss corrects so",
        "leave it out, or use --maxk.behaviour rollout or --maxk.loss ppo",
        when="with a --maxk.loss other than ppo",
        holds=lambda run: run.maxk.loss != "ppo",
    ),
    Rule(
        "actor.dual_clip",
        "it is for negative advantages, and there are none",
        "leave it out, or use --maxk.baseline leave_one_out",
        when="with --maxk.baseline marginal and no KL in the rewards",
        holds=_never_negative,
    ),
    Rule(
        "actor.eps_clip",
        "it is not looked at",
        "give one of them",
        when="with --actor.eps_clip_low_high",
        holds=lambda run: run.args.actor.eps_clip_low_high,
    ),
    Rule(
        "actor.eps_clip actor.eps_clip_low_high",
        "it is how far from 1 a ratio may go",
        "use numbers from 0 on",
        values="below 0",
        bad=lambda eps: eps is not None and min(eps if isinstance(eps, list) else [eps]) < 0,
    ),
    Rule(
        "actor.dual_clip",
        "it bounds ratios from above, and ratios are near 1",
        "use a number such as 3",
        values="1 and below",
        bad=lambda bound: bound is not None and bound <= 1,
    ),
    Rule(
        "algo.advantage.is_correction_level",
        "both correct the same mismatch",
        "choose one",
        when="with --maxk.behaviour rollout",
        holds=lambda run: run.maxk.behaviour == "rollout",
    ),
    Rule(
        "algo.advantage.is_correction_mode algo.advantage.is_correction_gating algo.advantage.is_correction_threshold",
        "nothing is corrected",
        ADD_IT,
        when="without --algo.advantage.is_correction_level",
        holds=lambda run: not _is_correction(run),
    ),
    Rule(
        "algo.advantage.is_correction_mode",
        "only ratios of tokens can be clamped",
        "use --algo.advantage.is_correction_mode mask",
        when="without --algo.advantage.is_correction_level token and --algo.advantage.is_correction_gating ratio",
        holds=lambda run: (
            _is_correction(run)
            and (run.args.algo.advantage.is_correction_level, run.args.algo.advantage.is_correction_gating)
            != ("token", "ratio")
        ),
    ),
    Rule(
        "algo.advantage.is_correction_gating",
        "a divergence is bounded from above only",
        "give one number as --algo.advantage.is_correction_threshold",
        when="with a lower bound",
        holds=lambda run: (
            _is_correction(run)
            and len(run.args.algo.advantage.is_correction_threshold) > 1
            and run.args.algo.advantage.is_correction_threshold[0] > 0
        ),
    ),
    Rule(
        "algo.advantage.is_correction_threshold",
        "it has a lower and an upper bound",
        "give one or two numbers",
        values="of more than two numbers",
        bad=lambda bounds: len(bounds) > 2,
    ),
    Rule(
        "rollout.top_p",
        "vLLM's log-probs are then those of a truncated policy, and the learner's policy is not truncated",
        "use --rollout.top_p 1",
        when="with --maxk.behaviour rollout or --algo.advantage.is_correction_level",
        holds=lambda run: run.maxk.behaviour == "rollout" or _is_correction(run),
        values="below 1",
        bad=lambda top_p: top_p < 1,
    ),
    Rule(
        "rollout.top_p",
        "it is a share of the probability",
        "use 1",
        values="outside of (0, 1]",
        bad=lambda top_p: not 0 < top_p <= 1,
    ),
    Rule(
        "rollout.temperature",
        "log-probs are divided by it, and greedy completions are all the same",
        "use 1",
        values="0 and below",
        bad=lambda temperature: temperature <= 0,
    ),
)

RULES = (*OBJECTIVE, *LOSS)
