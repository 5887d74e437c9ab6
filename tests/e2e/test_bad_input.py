"""Whatever is wrong is said at once and clearly, and the exit status says so too."""

from __future__ import annotations

import pytest

from . import pipeline

BAD = {
    "missing model": ({"actor__model_name_or_path": "/nowhere/model"}, "--actor.model_name_or_path"),
    "k too large": ({"maxk__k": 5}, "--maxk.k 5"),
    "unknown objective": ({"maxk__objective": "best"}, "offpolicy_bon"),
    "batch without whole groups": ({"train__batch_size": 30}, "does not hold whole groups of 4"),
    "async": ({"train__async_enable": True}, "--train.async_enable"),
    "no rewards": ({"reward__remote_url": None}, "--maxk.problems"),
    "missing reward file": ({"reward__remote_url": "nowhere.py"}, "nowhere.py"),
    "no such data": ({"data__prompt_dataset": "/nowhere/data.jsonl"}, "/nowhere/data.jsonl"),
    "no such field": ({"data__input_key": "question"}, "'question'"),
    "unwritable output": ({"ckpt__output_dir": "/proc/out"}, "--ckpt.output_dir"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    pipeline.make_model(folder / "model")
    pipeline.make_data(folder / "data.jsonl", 16)
    pipeline.make_reward(folder / "reward.py")
    return folder


@pytest.mark.parametrize("name", BAD)
def test_refused_before_anything_starts(folder, name, monkeypatch, capsys):
    from openrlhf_maxk.cli import train

    changes, message = BAD[name]
    with pytest.raises(SystemExit) as stopped:
        train.parse(pipeline.arguments(folder, **changes))
    assert stopped.value.code not in (0, None)
    assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def reward_func(queries, prompts, labels):\n    raise KeyError('no such test')\n", "no such test"),
        ("import time\ndef reward_func(queries, prompts, labels):\n    time.sleep(10**6)\n", "--maxk.reward_timeout"),
        ("def reward_func(queries, prompts, labels):\n    return {'rewards': [1.0]}\n", "1 rewards for 4 completions"),
        (
            "def reward_func(queries, prompts, labels):\n    return {'rewards': [None] * len(queries)}\n",
            "--maxk.max_lost",
        ),
    ],
    ids=["raises", "hangs", "wrong-length", "all-lost"],
)
def test_a_bad_reward_function_ends_the_run_with_its_reason(folder, tmp_path, source, message):
    reward = pipeline.make_reward(tmp_path / "reward.py", source)
    done = pipeline.train(
        folder, reward__remote_url=reward, maxk__reward_timeout=15, ckpt__output_dir=tmp_path / "out", timeout=400
    )
    assert done.returncode != 0
    assert message in done.stdout, done.stdout[-4000:]
    assert not (tmp_path / "out").exists()
