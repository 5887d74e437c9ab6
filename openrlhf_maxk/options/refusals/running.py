"""Refused because of what surrounds the training: data, evaluation, checkpoints, logs."""

from __future__ import annotations

from pathlib import Path

from openrlhf_maxk.options.refusals.rule import ADD_IT, LEAVE_OUT, Rule, Run

NO_EVALUATION = "without --eval.dataset and --eval.steps"
READ_AS_FILES = (".json", ".jsonl", ".csv", ".parquet", ".arrow")


def _evaluates(run: Run) -> bool:
    return bool(run.args.eval.dataset) and run.args.eval.steps > 0


def _saves_checkpoints(run: Run) -> bool:
    return run.args.ckpt.save_steps > 0 or (_evaluates(run) and run.args.ckpt.best_metric_key != "none")


def _shares_do_not_fit(run: Run) -> bool:
    if not run.is_set("data.prompt_probs"):
        return False
    try:
        shares = [float(share) for share in run.args.data.prompt_probs.split(",")]
    except ValueError:
        return True
    return len(shares) != len((run.args.data.prompt_dataset or "").split(",")) or abs(sum(shares) - 1) > 1e-6


def _loses_the_prompt(template: str | None) -> bool:
    if not template:
        return False
    try:
        return "{}" not in template or "a prompt" not in template.format("a prompt")
    except (IndexError, KeyError, ValueError):
        return True


def _are_files(datasets: str | None) -> bool:
    return any(Path(name.strip()).suffix in READ_AS_FILES for name in (datasets or "").split(","))


DATA = (
    Rule("data.disable_fast_tokenizer", "transformers no longer looks at it", LEAVE_OUT),
    Rule(
        "data.prompt_probs",
        "every data set of --data.prompt_dataset has a share, and they add up to 1",
        "give one number for each, with commas",
        when="that does not fit the data sets",
        holds=_shares_do_not_fit,
    ),
    Rule(
        "data.prompt_split",
        "a file has only the split train",
        LEAVE_OUT,
        when="with a file as --data.prompt_dataset",
        holds=lambda run: _are_files(run.args.data.prompt_dataset),
    ),
    Rule(
        "eval.split",
        "a file has only the split train",
        LEAVE_OUT,
        when="with a file as --eval.dataset",
        holds=lambda run: _are_files(run.args.eval.dataset),
    ),
    Rule(
        "data.input_template",
        "the prompt has no place in it",
        "write {} once where it belongs, and other braces twice",
        values="without a `{}`, or with other braces",
        bad=_loses_the_prompt,
    ),
    Rule(
        "data.input_template",
        "\\n in it stays two characters",
        "write $'…\\n…' in Bash",
        values="with a `\\n` that is two characters",
        bad=lambda template: template is not None and "\\n" in template,
    ),
    Rule(
        "data.input_template",
        "the chat template takes its place",
        "choose one",
        when="with --data.apply_chat_template",
        holds=lambda run: run.args.data.apply_chat_template,
    ),
)

EVALUATION = (
    Rule(
        "eval.dataset",
        "nothing is ever evaluated",
        "say after how many steps",
        when="without --eval.steps",
        holds=lambda run: run.args.eval.steps == -1,
    ),
    Rule(
        "eval.steps eval.split eval.temperature eval.n_samples_per_prompt",
        "there is nothing to evaluate",
        ADD_IT,
        when="without --eval.dataset",
        holds=lambda run: not run.args.eval.dataset,
    ),
    Rule(
        "eval.dataset",
        "the evaluation during training has no reward model",
        "use a reward function, or evaluate afterwards",
        when="with --reward.model_name_or_path",
        holds=lambda run: run.args.reward.model_name_or_path,
    ),
    Rule(
        "eval.temperature",
        "vLLM makes one greedy completion of a prompt",
        "use --eval.n_samples_per_prompt 1",
        when="with --eval.n_samples_per_prompt above 1",
        holds=lambda run: run.args.eval.n_samples_per_prompt > 1,
        values="0",
        bad=lambda temperature: temperature == 0,
    ),
    Rule(
        "eval.temperature",
        "there is no such temperature",
        "use a number from 0 on",
        values="below 0",
        bad=lambda temperature: temperature < 0,
    ),
    Rule(
        "ckpt.best_metric_key",
        "there is no metric that could be the best",
        "add them, or leave this one out",
        when=NO_EVALUATION,
        holds=lambda run: not _evaluates(run),
        values="other than `none`",
        bad=lambda key: key not in ("", "none"),
    ),
)

CHECKPOINTS = (
    Rule(
        "eval.steps ckpt.save_steps",
        "it is a number of steps",
        "use 1 or more, or -1 for never",
        values="0 and below −1",
        bad=lambda steps: steps == 0 or steps < -1,
    ),
    Rule(
        "ckpt.save_hf",
        "there is no checkpoint that it could be added to",
        "add --ckpt.save_steps, or leave it out",
        when="without checkpoints",
        holds=lambda run: not _saves_checkpoints(run),
    ),
    Rule(
        "ckpt.disable_ds",
        "there would be nothing to go on from",
        "leave one of them out",
        when="with --ckpt.load_enable",
        holds=lambda run: run.args.ckpt.load_enable,
    ),
    Rule(
        "ckpt.disable_ds",
        "checkpoints would be empty",
        "add that option",
        when="without --ckpt.save_hf",
        holds=lambda run: not run.args.ckpt.save_hf,
    ),
    Rule(
        "ds.use_universal_ckpt",
        "it says how checkpoints are loaded",
        ADD_IT,
        when="without --ckpt.load_enable",
        holds=lambda run: not run.args.ckpt.load_enable,
    ),
)

LOGS = (
    Rule(
        "logger.wandb.org logger.wandb.group logger.wandb.project",
        "OpenRLHF does not start W&B",
        ADD_IT,
        when="without --logger.wandb.key",
        holds=lambda run: not run.args.logger.wandb.key,
    ),
)

RULES = (*DATA, *EVALUATION, *CHECKPOINTS, *LOGS)
