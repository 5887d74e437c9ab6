"""The ``--maxk.*`` options, the k schedule and the record that a run leaves."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import fields
from types import SimpleNamespace

import pytest

from openrlhf_maxk.objectives import objective_names
from openrlhf_maxk.options import run_record
from openrlhf_maxk.options.maxk import ENVIRONMENT, KSchedule, MaxKOptions, add_arguments, options_of
from openrlhf_maxk.options.run_record import OtherRun


@pytest.mark.parametrize(
    ("text", "schedule", "shown"),
    [
        (None, KSchedule(), "n/2"),
        ("", KSchedule(), "n/2"),
        ("8", KSchedule(8, 8), "8"),
        (8, KSchedule(8, 8), "8"),
        ("8:1", KSchedule(8, 1), "8:1"),
        ("1:8", KSchedule(1, 8), "1:8"),
    ],
)
def test_a_schedule_is_read_and_shown(text, schedule, shown):
    assert KSchedule.parse(text) == schedule
    assert str(schedule) == shown


@pytest.mark.parametrize("text", ["0", "-1", "8:0", "a", "8:", ":8", "8:4:2", "2.5", "8,4"])
def test_a_malformed_schedule_is_refused_with_the_form(text):
    with pytest.raises(ValueError, match=rf"--maxk\.k {text} must be a whole number from 1 on, or two with a colon"):
        KSchedule.parse(text)


def test_a_schedule_goes_from_first_to_last():
    schedule = KSchedule(8, 1)
    assert [schedule.at(progress, 16) for progress in (-1.0, 0.0, 2 / 7, 1.0, 2.0)] == [8, 8, 6, 1, 1]
    assert [KSchedule(3, 3).at(progress, 16) for progress in (0.0, 0.4, 1.0)] == [3, 3, 3]
    assert [KSchedule().at(0.5, n) for n in (1, 2, 3, 8)] == [1, 1, 1, 4]


def test_the_largest_k_is_at_an_end():
    assert KSchedule(8, 1).largest(16) == KSchedule(1, 8).largest(16) == 8
    assert KSchedule().largest(16) == 8


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"objectiv": "grpo"}, r"unknown option maxk\.objectiv; known: objective, strategy, selector, k"),
        ({"objective": "best"}, r"no objective named 'best'; known: .*offpolicy_bon"),
        ({"correction": "second"}, r"--maxk\.correction second is not one of none, first, exact"),
        ({"baseline": "mean"}, r"--maxk\.baseline mean is not one of marginal, leave_one_out, none"),
        ({"behaviour": "vllm"}, r"--maxk\.behaviour vllm is not one of learner, rollout"),
        ({"loss": "gspo"}, r"--maxk\.loss gspo is not one of ppo, sequence_clip, score"),
        ({"k": "x"}, r"--maxk\.k x must be"),
        ({"delta_clip": 0.0}, r"--maxk\.delta_clip 0\.0 must be above 0"),
        ({"delta_clip": "wide"}, r"--maxk\.delta_clip 'wide' is not a number"),
        ({"delta_clip": float("nan")}, r"--maxk\.delta_clip nan must be above 0"),
        ({"max_lost": 1.5}, r"--maxk\.max_lost 1\.5 must be a share between 0 and 1"),
        ({"max_lost": -0.1}, r"--maxk\.max_lost -0\.1 must be a share"),
        ({"reward_workers": 0}, r"--maxk\.reward_workers 0 must be at least 1"),
        ({"reward_timeout": 0.0}, r"--maxk\.reward_timeout 0\.0 must be above 0"),
    ],
)
def test_a_bad_option_is_refused_by_name(values, message):
    with pytest.raises(ValueError, match=message):
        MaxKOptions.make(**values)


def parsed(*argv: str) -> SimpleNamespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    flat = vars(parser.parse_args(argv))
    return SimpleNamespace(maxk=SimpleNamespace(**{name.removeprefix("maxk."): value for name, value in flat.items()}))


def test_the_parsers_defaults_are_the_options_defaults():
    assert options_of(parsed()) == MaxKOptions()


def test_parsed_options_have_their_types():
    options = options_of(
        parsed("--maxk.k", "4:2", "--maxk.delta_clip", "inf", "--maxk.reward_workers", "3", "--maxk.verbose")
    )
    assert options == MaxKOptions(k=KSchedule(4, 2), delta_clip=float("inf"), reward_workers=3, verbose=True)


@pytest.mark.parametrize("schedule", [KSchedule(), KSchedule(3, 3), KSchedule(4, 1)])
def test_options_reach_a_worker_through_its_environment(monkeypatch, schedule):
    options = MaxKOptions.make(k=schedule, objective="bon_mean", delta_clip=float("inf"), problems="p", verbose=True)
    monkeypatch.setenv(ENVIRONMENT, options.to_json())
    assert options_of(SimpleNamespace()) == options
    assert options_of(parsed("--maxk.k", "2")) == MaxKOptions(k=KSchedule(2, 2)), "the command line wins"


def test_without_any_options_the_defaults_hold(monkeypatch):
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    assert options_of(SimpleNamespace()) == MaxKOptions()


def test_every_option_has_a_help_text(capsys):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    text = parser.format_help()
    assert all(f"--maxk.{field.name}" in text and field.metadata["help"] for field in fields(MaxKOptions))


# The record of a run


def flat(folder, **changes) -> argparse.Namespace:
    values = {
        "ckpt.output_dir": str(folder / "out"),
        "ckpt.path": str(folder / "checkpoints"),
        "ckpt.load_enable": False,
        "train.seed": 1,
        "maxk.k": "4",
        "maxk.verbose": False,
        "reward.remote_url": "a.py",
        "logger.wandb.key": None,
        **changes,
    }
    return argparse.Namespace(**values)


def test_a_folder_without_a_record_is_not_done(tmp_path):
    assert run_record.read(str(tmp_path)) is None
    assert not run_record.is_done(flat(tmp_path))


def test_a_finished_run_with_the_same_options_is_done(tmp_path):
    run_record.write(str(tmp_path / "out"), run_record.options_record(flat(tmp_path)))
    assert run_record.is_done(flat(tmp_path))
    shown_elsewhere = {"maxk.verbose": True, "logger.wandb.key": "x", "ckpt.load_enable": True}
    assert run_record.is_done(flat(tmp_path, **shown_elsewhere))


def test_a_run_with_other_options_is_named(tmp_path):
    run_record.write(str(tmp_path / "out"), run_record.options_record(flat(tmp_path)))
    with pytest.raises(OtherRun, match=r"out holds a run with other options \(--maxk.k was 4, is 8; --train.seed was "):
        run_record.is_done(flat(tmp_path, **{"maxk.k": "8", "train.seed": 2}))


def test_an_option_that_only_one_of_the_runs_has_is_named(tmp_path):
    run_record.write(str(tmp_path / "out"), run_record.options_record(flat(tmp_path)))
    with pytest.raises(OtherRun, match=r"--data.max_len was None, is 64.*choose another --ckpt.output_dir"):
        run_record.is_done(flat(tmp_path, **{"data.max_len": 64}))


def test_checkpoints_of_another_run_are_not_gone_on_from(tmp_path):
    run_record.write(str(tmp_path / "checkpoints"), run_record.options_record(flat(tmp_path, **{"maxk.k": "2"})))
    assert not run_record.is_done(flat(tmp_path)), "they are not loaded"
    with pytest.raises(OtherRun, match=r"--maxk.k was 2, is 4\): choose another --ckpt.path"):
        run_record.is_done(flat(tmp_path, **{"ckpt.load_enable": True}))
    assert not run_record.is_done(flat(tmp_path, **{"ckpt.load_enable": True, "maxk.k": "2"}))


def test_what_changes_nothing_learnt_may_differ(tmp_path):
    """After running out of memory, a run goes on with what the guide says then; an older record has more options."""
    before = {
        "train.micro_batch_size": 16,
        "vllm.gpu_memory_utilization": 0.9,
        "actor.gradient_checkpointing_enable": False,
        "eval.steps": -1,
        "ckpt.load_enable": True,
    }
    after = {**before, **dict.fromkeys(list(before)[:4], True)}
    record = {**run_record.options_record(flat(tmp_path)), **before}
    run_record.write(str(tmp_path / "checkpoints"), record)
    assert not run_record.is_done(flat(tmp_path, **after))
    with pytest.raises(OtherRun, match=r"--train.seed was 1, is 2\): .*or remove maxk_run.json there to go on"):
        run_record.is_done(flat(tmp_path, **after, **{"train.seed": 2}))


def test_a_damaged_record_is_an_error_with_its_fix(tmp_path):
    run_record.write(str(tmp_path / "out"), {"a": 1})
    file = tmp_path / "out" / run_record.FILE
    file.write_text(file.read_text()[:5])
    with pytest.raises(OtherRun, match=r"maxk_run\.json is damaged .*; remove the folder to start again"):
        run_record.is_done(flat(tmp_path))


def test_values_that_are_not_json_are_recorded_as_text(tmp_path):
    record = run_record.options_record(flat(tmp_path, **{"data.path": tmp_path, "b.list": (1, 2)}))
    run_record.write(str(tmp_path / "out"), record)
    assert run_record.read(str(tmp_path / "out")) == record
    assert (record["data.path"], record["b.list"]) == (str(tmp_path), [1, 2])


def test_a_write_that_is_cut_off_leaves_the_old_record(tmp_path, monkeypatch):
    run_record.write(str(tmp_path), {"a": 1})

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        run_record.write(str(tmp_path), {"a": 2})
    assert run_record.read(str(tmp_path)) == {"a": 1} == json.loads((tmp_path / run_record.FILE).read_text())


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("best", r"--maxk\.strategy: strategy must be one of max, min, .* got 'best'"),
        ("vote:3", r"--maxk\.strategy: strategy vote has no parameter"),
        ("quantile:2", r"--maxk\.strategy: strategy quantile:p needs p between 0"),
    ],
)
def test_strategies_that_cannot_be_trained(strategy, message):
    with pytest.raises(ValueError, match=message):
        MaxKOptions.make(strategy=strategy)


@pytest.mark.parametrize(
    ("options", "chosen_by"),
    [
        ({}, ""),
        ({"strategy": "min", "problems": "p"}, ""),
        ({"strategy": "vote"}, "keys"),
        ({"strategy": "selected"}, "scores"),
        ({"strategy": "selected", "problems": "p"}, "public_tests"),
        ({"strategy": "selected", "problems": "p", "selector": "length"}, "length"),
    ],
)
def test_what_samples_are_chosen_by(options, chosen_by):
    made = MaxKOptions.make(**options)
    assert made.chosen_by == made.reward_spec(["problems"]).chosen_by == chosen_by


def test_beyond_the_group_the_nearest_k_is_taken_where_that_is_asked_for():
    refusing, nearest = MaxKOptions.make(k=64), MaxKOptions.make(k=64, k_beyond_n="nearest")
    assert [refusing.k_of(64, size) for size in (16, 64, 70)] == [64, 64, 64]
    assert [nearest.k_of(64, size) for size in (16, 64, 70)] == [16, 64, 64]
    with pytest.raises(ValueError, match=r"--maxk\.k_beyond_n tail is not one of refuse, nearest"):
        MaxKOptions.make(k_beyond_n="tail")


def test_the_help_lists_the_objectives():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    text = " ".join(parser.format_help().split())
    assert "maxrl: MaxRL (Tajwar et al. 2026, arXiv:2602.02710)" in text
    for name in objective_names():
        assert f" {name}: " in text
