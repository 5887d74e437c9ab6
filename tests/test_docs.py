"""What the guides say of options, metrics and seams is what the code says; the files they name exist; examples run."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from openrlhf_maxk.cli import train
from openrlhf_maxk.experience.metrics import powers_of_two
from openrlhf_maxk.objectives import get_objective, objective_names
from openrlhf_maxk.objectives.strategy import Kind
from openrlhf_maxk.options import table, validation
from openrlhf_maxk.options.maxk import MaxKOptions, add_arguments
from openrlhf_maxk.problems.record import Problem, Test
from openrlhf_maxk.problems.store import write_problems
from openrlhf_maxk.rewards.request import RewardRequest
from openrlhf_maxk.rewards.scoring.scorers import FunctionScorer
from openrlhf_maxk.upstream.command_line import upstream_parser
from openrlhf_maxk.upstream.seams import SEAMS, Seam

from .e2e import pipeline

ROOT = Path(__file__).parents[1]
GUIDES = ("architecture.md", "strategies.md", "training.md", "cluster.md", "gpu.md", "reuse.md", "best_of.md")


def guide(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table after a heading, without its head."""
    table = re.search(r"(?:^\|.*\|\n)+", text[text.index(heading) :], re.MULTILINE)
    assert table
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in table[0].splitlines()[2:]]


def examples(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def run(source: str, **names: object) -> dict[str, object]:
    exec(compile(source, "example", "exec"), names)
    return names


def where(seam: Seam) -> str:
    return f" *cpu{f', no {seam.missing}' * bool(seam.missing)}*" * seam.cpu


def test_the_table_of_seams_is_the_table():
    assert rows(guide("architecture.md"), "## Seams") == [
        [f"`{seam.target}`" + where(seam), f"`{seam.by.removeprefix('openrlhf_maxk.')}`", seam.why] for seam in SEAMS
    ]


def test_the_table_of_options_has_all_of_them_with_their_defaults():
    said = {row[0]: row[1] for row in rows(guide("training.md"), "## Options")}
    made = {}
    for option in fields(MaxKOptions):
        shown = "" if option.default is None or option.default is False else f"`{option.default}`"
        made[f"`--maxk.{option.name}`"] = "n/2" if option.name == "k" else shown
    assert said == made


def test_what_becomes_of_upstreams_options_is_said():
    text = guide("options.md")
    assert rows(text, "## Passed through") == table.passed_rows()
    assert rows(text, "## Refused") == table.refused_rows()


def test_every_objective_has_its_place():
    named = re.findall(r"`(\w+)`", " ".join(row[0] for row in rows(guide("training.md"), "**Objective.**")))
    assert sorted(named) == list(objective_names())


@pytest.mark.parametrize("name", GUIDES)
def test_options_that_are_named_exist(name):
    parser = upstream_parser()
    add_arguments(parser)
    known = {option for action in parser._actions for option in action.option_strings}
    named = set(
        re.findall(
            r"--(?:maxk|actor|ref|critic|reward|train|rollout|vllm|ds|algo|data|eval|ckpt|logger)\.[\w.]+", guide(name)
        )
    )
    assert {option.rstrip(".") for option in named if not option.endswith("_")} <= known


def test_every_metric_of_this_package_is_explained():
    logged = {"maxk/ratio_max"}
    for file in (ROOT / "openrlhf_maxk").rglob("*.py"):
        logged |= set(re.findall(r'"((?:rollout|maxk)/[a-z_]+)"', file.read_text(encoding="utf-8")))
    from openrlhf_maxk.experience.advantages import group_advantages
    from openrlhf_maxk.learner.controller import RENAMED

    sums = group_advantages(torch.zeros(2).long(), torch.ones(2), None, torch.ones(2).long(), MaxKOptions()).sums
    logged |= {f"maxk/{name}" for name in sums}
    logged -= set(RENAMED)  # logged under another name
    said = set(
        re.findall(r"`((?:rollout|maxk)/[a-z_]+)`", " ".join(r[0] for r in rows(guide("training.md"), "## Metrics")))
    )
    assert logged - said == set()
    assert powers_of_two(8) == [1, 2, 4, 8]  # "for k = 1, 2, 4 … n"


@pytest.mark.parametrize("name", GUIDES)
def test_files_that_are_named_exist(name):
    text = guide(name)
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (ROOT / "docs" / link).resolve().exists(), link
    places = (ROOT, ROOT / "openrlhf_maxk", ROOT / "tests")
    for file in re.findall(r"`((?:[a-z0-9_]+/)+|(?:[a-z0-9_]+/)+[a-z0-9_]+\.(?:py|sh|md))`", text):
        assert any((place / file).exists() for place in places), file


def test_links_within_the_guides_lead_somewhere():
    for name in GUIDES:
        for file, anchor in re.findall(r"\]\(([^)#:]*)#([^)]*)\)", guide(name)):
            headings = re.findall(r"^#+ (.*)$", guide(file or name), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, (name, file, anchor)


def test_the_reward_of_the_guide_scores(tmp_path):
    (source,) = examples(guide("training.md"), "python")
    (tmp_path / "my_reward.py").write_text(source)
    programs = ["print(1)\n", "print(1))\n", "print(1 + 1 + 1)\n"]
    request = RewardRequest("do it\n", "7", tuple(f"do it\n{program}<eos>" for program in programs), tuple(programs))
    short, wrong, long = FunctionScorer(str(tmp_path / "my_reward.py"))(request)
    assert short.reward == pytest.approx(1 / 1.09)
    assert wrong.reward == 0
    assert 0 < long.reward < short.reward
    assert [reward.logs for reward in (short, wrong)] == [{"valid_python": 1.0}, {"valid_python": 0.0}]


def test_the_example_trainer_learns_what_each_objective_is_for(capsys):
    trainer = run(next(e for e in examples(guide("reuse.md"), "python") if "def rollout" in e))
    printed = capsys.readouterr().out.splitlines()
    said = next(e for e in examples(guide("reuse.md"), "text") if e.startswith("rloo")).splitlines()
    assert (
        [line.partition(":")[0] for line in printed]
        == [line.partition(":")[0] for line in said]
        == ["rloo", "offpolicy_bon"]
    )
    for line, other in zip(printed, said, strict=True):
        assert numbers(line) == pytest.approx(numbers(other), abs=0.05)
    assert trainer["K"] == 4


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"[\d.]+\d", text.partition(":")[2])]


def test_advantages_of_a_flat_batch_are_those_of_its_groups(capsys):
    example = run(next(e for e in examples(guide("reuse.md"), "python") if "def maxk_advantages" in e))
    rewards = torch.tensor([0.0, 1.0, 0.5, 0.5, 0.0, 1.0, 9.0])
    on_tokens = torch.nn.functional.pad(rewards[:, None], (4, 0))
    mask = torch.tensor([1, 1, 1, 1, 0]).expand(7, 5)
    index = np.array(["a", "b", "a", "b", "a", "b", "alone"])
    ratios = torch.linspace(0.7, 1.3, 7)
    advantages, returns = example["maxk_advantages"](on_tokens, mask, index, 2, ratios)
    objective = get_objective("offpolicy_bon")
    for rows in ([0, 2, 4], [1, 3, 5]):
        expected = objective(rewards[rows], 2, ratios[rows], delta_clip=1.0).values
        torch.testing.assert_close(advantages[rows], expected[:, None] * mask[rows])
    assert not advantages[6].any()
    assert returns is advantages


@pytest.mark.parametrize(
    "name", ["print(max_at_k", '@register("mine")', pytest.param("class MaxKExperienceMaker", marks=pytest.mark.slow)]
)
def test_examples_run(name):
    (example,) = (e for e in examples(guide("reuse.md"), "python") if name in e and "def rollout" not in e)
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_strategies_of_the_guide_run(capsys):
    (example,) = examples(guide("strategies.md"), "python")
    run(example)
    value, *_ = capsys.readouterr().out.splitlines()
    assert value == "tensor([0.3333, 0.0000])"


def test_the_strategies_of_the_guide_are_those_there_are():
    named = re.findall(r"`([a-z_]+)(?::[pq])?`", " ".join(row[2] for row in rows(guide("strategies.md"), "# How")))
    assert sorted(named) == sorted(Kind)


@pytest.fixture
def data(tmp_path):
    write_problems(tmp_path, [Problem(str(i), "", (Test("", ""),)) for i in range(8)])
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    pipeline.make_data(tmp_path / "train.jsonl", 8)
    return tmp_path


def options_of_the_script(data: Path, **variables: str) -> list[str]:
    """What settings.sh makes of a user's variables."""
    given = {
        "MODEL": f"{data}/model",
        "DATA": str(data),
        "OUT": f"{data}/out",
        "OBJECTIVE": "offpolicy_bon",
        **variables,
    }
    script = "set -eu; source examples/scripts/settings.sh; printf '%s\\0' \"${train_options[@]}\""
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, env=given, capture_output=True, text=True, check=True)
    return done.stdout.split("\0")[:-1]


@pytest.mark.parametrize("row", rows(guide("cluster.md"), "## Sizes"), ids=lambda row: row[0])
def test_the_sizes_of_the_cluster_guide_pass_all_checks(data, monkeypatch, row):
    gpus, variables, shares, options = row
    shared = "shared" in shares
    for module in (train, validation):
        monkeypatch.setattr(module, "is_cpu", lambda: False)
    named = dict(pair.split("=") for pair in variables.strip("`").split())
    _, args = train.parse([*options_of_the_script(data, PLATFORM="gpu", **named), *options.strip("`").split()])
    needed = train.gpus_needed(args)
    assert [needed["learner"], args.vllm.num_engines] == [int(share) for share in re.findall(r"\d+", shares)]
    assert sum(needed.values()) == int(gpus) == int(named.get("GPUS", 8)) * int(named.get("NODES", 1))
    assert (args.train.colocate_all, args.vllm.enable_sleep, args.ds.enable_sleep) == (shared,) * 3


def test_the_head_of_the_cluster_guide_is_large_enough_without_gpus(data):
    (gpus, cpus) = re.findall(r"ray start --head --num-gpus (\d+) --num-cpus (\d+)", guide("cluster.md"))[0]
    _, args = train.parse(options_of_the_script(data, PLATFORM="cpu"))
    assert sum(train.gpus_needed(args).values()) == int(gpus) < int(cpus)
