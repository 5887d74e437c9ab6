"""Plans: what is read, what is refused, and the command lines that follow."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from openrlhf_maxk.experiment.plan import Job, PlanError, evaluate_arguments, identity, read_plan, train_arguments

GOOD = {
    "models": {"a": "models/a", "b": "models/b"},
    "problems": "problems",
    "seeds": [3, 1],
    "options": {"maxk.k": 4, "algo.kl.use_loss": True, "maxk.objective": "offpolicy_bon"},
    "evaluation": {"samples": 8, "k": [1, 8]},
    "runs": {"max@4": None, "GRPO": {"maxk.k": 1, "algo.kl.use_loss": False}},
    "baseline": "GRPO",
}


def write(tmp_path: Path, **changes: object) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump({n: v for n, v in {**GOOD, **changes}.items() if v is not ...}, sort_keys=False))
    return path


def test_jobs_are_the_models_and_then_seed_by_seed_every_run_of_every_model(tmp_path):
    jobs = read_plan(write(tmp_path)).jobs()
    assert jobs[:2] == [Job("a", "base", None), Job("b", "base", None)]
    assert [(job.seed, job.model, job.run) for job in jobs[2:]] == [
        (seed, model, run) for seed in (3, 1) for model in "ab" for run in ("max@4", "GRPO")
    ]
    assert len({job.folder for job in jobs}) == len(jobs)


def test_a_run_has_the_options_of_all_runs_and_its_own(tmp_path):
    plan = read_plan(write(tmp_path))
    words = train_arguments(plan, Job("b", "GRPO", 3), Path("out"))
    given = dict(zip(words, [*words[1:], ""], strict=True))
    assert given["--maxk.k"] == "1"
    assert given["--maxk.objective"] == "offpolicy_bon"
    assert given["--train.seed"] == "3"
    assert given["--actor.model_name_or_path"] == "models/b"
    assert given["--maxk.problems"] == "problems"
    assert given["--ckpt.output_dir"] == "out/model"
    assert "--ckpt.load_enable" in words
    assert "--algo.kl.use_loss" not in words
    assert "--algo.kl.use_loss" in train_arguments(plan, Job("b", "max@4", 3), Path("out"))
    words = evaluate_arguments(plan, Job("a", "GRPO", 1), Path("out"))
    assert words[words.index("--k") + 1 : words.index("--k") + 3] == ["1", "8"]
    assert words[words.index("--model") + 1] == "out/model"
    assert evaluate_arguments(plan, Job("a", "base", None), Path("out"))[-7] == "models/a"


def test_models_may_have_problems_of_their_own(tmp_path):
    plan = read_plan(write(tmp_path, problems={"b": "problems/b", "a": "problems/a"}))
    for model in "ab":
        words = train_arguments(plan, Job(model, "GRPO", 3), Path("out"))
        assert words[words.index("--maxk.problems") + 1] == f"problems/{model}"
        assert words[words.index("--data.prompt_dataset") + 1] == f"problems/{model}/train.jsonl"
        words = evaluate_arguments(plan, Job(model, "base", None), Path("out"))
        assert words[words.index("--problems") + 1] == f"problems/{model}"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seeds": ...}, "seeds is missing"),
        ({"runs": {}}, "runs is missing"),
        ({"seed": 1}, "unknown field 'seed'; a plan has models, problems, seeds"),
        ({"problems": {"a": "x"}}, "problems must be one folder, or one for each of the models a, b"),
        ({"problems": {"a": "x", "b": 3}}, "problems.b must be a text"),
        ({"problems": 3}, "problems must be a text"),
        ({"seeds": [1, 1]}, "seeds: one occurs twice"),
        ({"seeds": [True]}, "seeds must be a list of whole numbers"),
        ({"seeds": "12"}, "seeds must be a list of whole numbers"),
        ({"models": "models/a"}, "models must be a mapping"),
        ({"models": {"a": 3}}, "models.a must be a text"),
        ({"runs": {"../x": None}}, "runs: '../x' cannot be the name of a folder"),
        ({"runs": {"base": None}, "baseline": "base"}, "runs.base: this is what the models as they are are called"),
        ({"runs": {"x": 4}}, "runs.x must be a mapping from options to values"),
        ({"runs": {"x": {"maxk.k": {"a": 1}}}}, "runs.x.maxk.k must be a value or a list of values"),
        ({"runs": {"x": {"--train.seed": 1}}}, "runs.x.train.seed is set for each run"),
        ({"options": {"ckpt.path": "x"}}, "options.ckpt.path is set for each run"),
        ({"metrics": ["max", "best"]}, "metrics must be a list of some of max, pass, selected"),
        ({"metrics": "max"}, "metrics must be a list of some of max, pass, selected"),
        ({"baseline": "grpo"}, "baseline: 'grpo' is none of base, max@4, GRPO"),
    ],
)
def test_what_is_wrong_with_a_plan_is_said_by_field(tmp_path, changes, said):
    with pytest.raises(PlanError) as error:
        read_plan(write(tmp_path, **changes))
    assert said in str(error.value)


@pytest.mark.parametrize("text", ["a: [", "- 1", "\x00", ""])
def test_what_is_no_plan_is_refused(tmp_path, text):
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(PlanError, match=r"plan.yaml (is not YAML|must be a mapping)"):
        read_plan(tmp_path / "plan.yaml")


def test_a_job_is_the_same_until_something_it_does_changes(tmp_path):
    def of(run: str, **changes: object) -> str:
        return identity(read_plan(write(tmp_path, **changes)), Job("a", run, None if run == "base" else 1))

    assert of("GRPO") == of("GRPO", runs={**GOOD["runs"], "other": None}, seeds=[1], baseline="base")
    assert of("GRPO") != of("GRPO", options={"maxk.k": 4})
    assert of("GRPO") != of("GRPO", evaluation={"samples": 9})
    assert of("base") == of("base", options={"maxk.k": 4})
    assert of("base") != of("base", models={"a": "models/c"})


@pytest.mark.parametrize("file", sorted(Path(__file__).parents[2].glob("examples/plans/*.yaml")), ids=lambda f: f.stem)
def test_the_plans_of_the_examples_give_all_runs_the_same_samples(file):
    plan = read_plan(file)
    wanted = 16 * 96 if file.stem == "pretrained" else 8 * 960
    for job in plan.jobs():
        if job.run != "base":
            words = train_arguments(plan, job, Path("out"))
            n, prompts = (
                words[words.index(f"--{x}") + 1] for x in ("rollout.n_samples_per_prompt", "data.max_samples")
            )
            assert int(n) * int(prompts) == wanted, job.name
