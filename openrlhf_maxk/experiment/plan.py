"""The plan of an experiment: a YAML file that names models, runs and seeds.

::

    models: {mini: outputs/mini/base_model}
    problems: outputs/mini/problems                       # or, as models, one for each of them
    seeds: [1, 2, 3]
    options: {maxk.objective: offpolicy_bon, maxk.k: 4}   # of openrlhf_maxk.cli.train, for every run
    evaluation: {samples: 256, max-new-tokens: 40}        # of openrlhf_maxk.cli.evaluate
    runs:
      max@4: {}
      GRPO: {maxk.k: 1}
    baseline: GRPO                                        # what others are compared with; without it, the models
    metrics: [max, selected]                              # in tables and figures; without it, all that are known
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from openrlhf_maxk.evaluation.statistics.metrics import METRICS

BASE = "base"  # the models as they are
_FIELDS = ("models", "problems", "seeds", "options", "evaluation", "runs", "baseline", "metrics")
_OURS = ("train.seed", "actor.model_name_or_path", "ckpt.output_dir", "ckpt.path", "logger.tensorboard_dir")
_NAME = re.compile(r"[\w.@+-][\w.@+ :-]*")  # of a folder, too

Options = Mapping[str, Any]


class PlanError(ValueError):
    """A plan that cannot be carried out, with the field and what to do about it."""


@dataclass(frozen=True)
class Plan:
    """What is to be run. Option names are without their dashes."""

    models: Mapping[str, str]  # folders or names of the hub, by what tables call them
    problems: Mapping[str, str]  # folders, by the model that is trained on them
    seeds: tuple[int, ...]
    options: Options  # of every training run
    evaluation: Options  # of every evaluation
    runs: Mapping[str, Options]  # what each run has besides, by what tables call it
    baseline: str = BASE
    metrics: tuple[str, ...] = ()  # in tables and figures, in this order; none: all that are known

    def jobs(self) -> list[Job]:
        """Everything to do, in order: the models as they are, then seed by seed all runs of all models."""
        found = [Job(model, BASE, None) for model in self.models]
        return found + [Job(model, run, seed) for seed in self.seeds for model in self.models for run in self.runs]


@dataclass(frozen=True, slots=True)
class Job:
    """One training run with its evaluation; of a model as it is, only the evaluation."""

    model: str
    run: str
    seed: int | None

    @property
    def folder(self) -> Path:
        """Where it is kept, below the experiment's folder."""
        return Path(self.model, self.run, "" if self.seed is None else f"seed-{self.seed}")

    @property
    def name(self) -> str:
        return " ".join([self.model, self.run, *([] if self.seed is None else [f"seed {self.seed}"])])


def read_plan(path: Path) -> Plan:
    """The plan in a file.

    Raises:
        PlanError: it is not one.
        OSError: it cannot be read.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PlanError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise PlanError(f"{path} must be a mapping with the fields {', '.join(_FIELDS)}")
    if unknown := [str(name) for name in found if name not in _FIELDS]:
        raise PlanError(f"{path}: unknown field {unknown[0]!r}; a plan has {', '.join(_FIELDS)}")
    for name in ("models", "problems", "seeds", "runs"):
        if not found.get(name):
            raise PlanError(f"{path}: {name} is missing")
    plan = Plan(
        models=(models := _texts("models", found["models"])),
        problems=_problems(found["problems"], models),
        seeds=_seeds(found["seeds"]),
        options=_options("options", found.get("options")),
        evaluation=_options("evaluation", found.get("evaluation")),
        runs={name: _options(f"runs.{name}", value) for name, value in _named("runs", found["runs"]).items()},
        baseline=_text("baseline", found.get("baseline", BASE)),
        metrics=_metrics(found.get("metrics", [])),
    )
    if BASE in plan.runs:
        raise PlanError(f"runs.{BASE}: this is what the models as they are are called; choose another name")
    if plan.baseline not in (BASE, *plan.runs):
        raise PlanError(f"baseline: {plan.baseline!r} is none of {', '.join([BASE, *plan.runs])}")
    return plan


def train_arguments(plan: Plan, job: Job, folder: Path) -> list[str]:
    """The command line of a job's training."""
    given = {
        "data.prompt_dataset": str(Path(plan.problems[job.model], "train.jsonl")),
        "data.input_key": "input",
        "data.label_key": "label",
        "maxk.problems": plan.problems[job.model],
        "ckpt.load_enable": True,
        **plan.options,
        **plan.runs[job.run],
        "actor.model_name_or_path": plan.models[job.model],
        "train.seed": job.seed,
        "ckpt.output_dir": str(folder / "model"),
        "ckpt.path": str(folder / "checkpoints"),
        "logger.tensorboard_dir": str(folder / "tensorboard"),
    }
    return _arguments(given)


def evaluate_arguments(plan: Plan, job: Job, folder: Path) -> list[str]:
    """The command line of a job's evaluation."""
    model = plan.models[job.model] if job.run == BASE else str(folder / "model")
    given = {
        "split": "test",
        **plan.evaluation,
        "model": model,
        "problems": plan.problems[job.model],
        "name": job.name,
        "out": str(folder / "evaluation"),
    }
    return _arguments(given)


def identity(plan: Plan, job: Job) -> str:
    """The same for two plans under which a job does the same."""
    folder = Path()
    lines = [evaluate_arguments(plan, job, folder)]
    if job.run != BASE:
        lines.append(train_arguments(plan, job, folder))
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()[:16]


def _arguments(options: Options) -> list[str]:
    """True is the option alone; False and None leave it out; a list is several values."""
    words: list[str] = []
    for name, value in options.items():
        if value is None or value is False:
            continue
        words.append(f"--{name}")
        if value is not True:
            words += map(str, value if isinstance(value, list) else [value])
    return words


def _named(field: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise PlanError(f"{field} must be a mapping from names")
    for name in value:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise PlanError(f"{field}: {name!r} cannot be the name of a folder: use letters, digits and . @ + - : _")
    return value


def _options(field: str, value: Any) -> Options:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise PlanError(f"{field} must be a mapping from options to values, such as {{maxk.k: 4}}")
    found = {name.removeprefix("--"): option for name, option in value.items()}
    for name, option in found.items():
        if isinstance(option, dict) or (isinstance(option, list) and any(isinstance(v, dict | list) for v in option)):
            raise PlanError(f"{field}.{name} must be a value or a list of values, not {option!r}")
        if name in _OURS:
            raise PlanError(f"{field}.{name} is set for each run: name models and seeds in the fields of that name")
    return found


def _texts(field: str, value: Any) -> dict[str, str]:
    return {name: _text(f"{field}.{name}", text) for name, text in _named(field, value).items()}


def _problems(value: Any, models: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(value, dict):
        return dict.fromkeys(models, _text("problems", value))
    found = _texts("problems", value)
    if found.keys() != models.keys():
        raise PlanError(f"problems must be one folder, or one for each of the models {', '.join(models)}")
    return found


def _text(field: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise PlanError(f"{field} must be a text, not {value!r}")
    return value


def _metrics(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or any(name not in METRICS for name in value):
        raise PlanError(f"metrics must be a list of some of {', '.join(METRICS)}, not {value!r}")
    return tuple(value)


def _seeds(value: Any) -> tuple[int, ...]:
    if not isinstance(value, Sequence) or not all(type(seed) is int for seed in value):
        raise PlanError(f"seeds must be a list of whole numbers, not {value!r}")
    if len(set(value)) != len(value):
        raise PlanError("seeds: one occurs twice")
    return tuple(value)
