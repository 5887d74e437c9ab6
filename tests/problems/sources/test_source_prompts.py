"""Prompts: what a model reads in every style and mode, how many tokens that is, and that OpenRLHF loads it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from openrlhf_maxk.problems.record import Mode, Problem, Test
from openrlhf_maxk.problems.sources.options import PrepareOptions
from openrlhf_maxk.problems.sources.preparation.prompts import EXAMPLES, Prompter, body, few_shot, load_tokenizer
from openrlhf_maxk.problems.sources.source import SourceError

from .accounts import adds_up, contents, dropped
from .conftest import Prepare
from .mbpp_problems import CONVERTIBLE, numbered
from .originals import (
    BEGUN,
    CODECONTESTS,
    LIVEBENCH,
    STARTER,
    completion,
    contest,
    live_bench,
    write_json_lines,
    write_parquet,
)

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
STDIN = Problem("s", "Add <image> two numbers.", (Test("1 2", "3"),))
FUNCTION = Problem("f", "Add.", (Test("[1]", "1"),), Mode.FUNCTION, starter_code=STARTER)
ASSERTS = Problem(
    "a", "Add.", (Test("assert add(1, 2) == 3"), Test("assert add(0, 0) == 0")), Mode.ASSERTS, public_tests=1
)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer that has a token for every word and sign."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({"[UNK]": 0, "two": 1}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = tmp_path_factory.mktemp("tokenizer") / "words"
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    return folder


def prompted(problem: Problem, words: Any = None, **options: Any) -> Any:
    return Prompter(PrepareOptions(out="unused", **options), words)(problem)


def test_chat_prompts_are_messages() -> None:
    found = prompted(STDIN, system_prompt="Be brief.")
    system, user = found.prompt
    assert system == {"role": "system", "content": "Be brief."}
    assert user["role"] == "user"
    assert "reads standard input" in user["content"]
    assert user["content"].endswith("Add [image] two numbers.")  # OpenRLHF reads "<image>" as a picture
    assert (found.statement_tokens, found.prompt_tokens) == (None, None)
    assert len(prompted(STDIN).prompt) == 1


def test_what_every_mode_shows() -> None:
    assert f"```python\n{STARTER}\n```" in body(FUNCTION)
    assert body(ASSERTS).endswith("Your code should pass:\n```python\nassert add(1, 2) == 3\n```")
    begun = replace(FUNCTION, program_prefix=BEGUN)
    assert BEGUN in body(begun)
    assert "repeat that code" in prompted(begun, prompt="plain").prompt


@pytest.mark.parametrize("problem", [STDIN, FUNCTION, ASSERTS])
def test_few_shot_prompts_end_where_the_program_begins(problem: Problem) -> None:
    prompt = few_shot(problem)
    assert prompt.count("Solution\n```python\n") == len(EXAMPLES[problem.mode]) + 1
    assert prompt.endswith(f"{body(problem)}\n\nSolution\n```python\n")
    assert prompt.count("```") % 2 == 1


def test_rendered_chats_and_counts(tokenizer: Path) -> None:
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(tokenizer)
    chat, text = prompted(STDIN, words), prompted(STDIN, words, prompt="chat_text")
    assert text.prompt == words.apply_chat_template(chat.prompt, tokenize=False, add_generation_prompt=True)
    assert text.prompt.endswith("</user><assistant>")
    assert chat.prompt_tokens == text.prompt_tokens == len(words(text.prompt)["input_ids"])
    assert chat.statement_tokens == 7  # Add < image > two numbers .
    plain = prompted(STDIN, words, prompt="plain")
    assert plain.prompt_tokens == len(words(plain.prompt)["input_ids"])


def test_a_chat_without_a_template_is_refused() -> None:
    with pytest.raises(SourceError, match="has no chat template; use plain"):
        prompted(STDIN, SimpleNamespace(chat_template=None), prompt="chat_text", tokenizer="x/y")


def test_the_token_limit(prepare: Prepare, tokenizer: Path, tmp_path: Path) -> None:
    long, short = " ".join(["word"] * 513), " ".join(["text"] * 512)
    rows = [contest(1, description=long), contest(2, description=short), contest(3)]
    source = write_parquet(tmp_path / "train.parquet", rows, CODECONTESTS)
    options = {"tokenizer": str(tokenizer), "token_limit": 512, "validate": False}
    manifest = prepare("codecontests", source, **options)
    assert adds_up(manifest)
    assert dropped(tmp_path / "out") == {0: ("too_many_tokens", "513 tokens")}
    statement, prompt = (manifest["counts"]["tokens"]["train"][k] for k in ("statement", "prompt"))
    assert (statement["least"], statement["greatest"]) == (50, 512)
    assert prompt["greatest"] > 512
    manifest = prepare("codecontests", source, tmp_path / "prompts", token_limit_on="prompt", **options)
    assert set(dropped(tmp_path / "prompts")) == {0, 1}
    assert manifest["tokenizer"]["name"] == "words"


def test_the_tokenizer_counts_not_where_it_is(prepare: Prepare, tokenizer: Path, tmp_path: Path) -> None:
    source = write_json_lines(tmp_path / "mbpp.jsonl", numbered(CONVERTIBLE[:4]))
    prepare("mbpp", source, tmp_path / "a", tokenizer=str(tokenizer))
    copy = tmp_path / "elsewhere" / "words"
    copy.mkdir(parents=True)
    for file in tokenizer.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    prepare("mbpp", source, tmp_path / "b", tokenizer=str(copy))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_tokenizer_that_is_not_there_is_named(prepare: Prepare, tmp_path: Path) -> None:
    source = write_json_lines(tmp_path / "mbpp.jsonl", numbered(CONVERTIBLE[:4]))
    with pytest.raises(SourceError, match=r"--tokenizer .*nowhere: there is no such folder"):
        prepare("mbpp", source, tokenizer=str(tmp_path / "nowhere"))
    with pytest.raises(SourceError, match=r"--tokenizer .* cannot be loaded .*--tokenizer none --token_limit 0"):
        prepare("mbpp", source, tokenizer=str(tmp_path))
    with pytest.raises(ValueError, match="--token_limit needs a --tokenizer"):
        PrepareOptions(out="x", token_limit=5, tokenizer="none")


def test_without_the_hub_a_tokenizer_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No retries: what the hub says to the first question is the reason, and what is in the cache is taken."""
    asked: list[str] = []

    def refuse(self: object, name: str, **options: object) -> None:
        asked.append(name)
        raise ConnectionError("no network here")

    def load(name: str, local_files_only: bool = False) -> str:
        assert local_files_only, "transformers would try again and again"
        if name == "in/cache":
            return "a tokenizer"
        raise OSError("not in the cache")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", refuse)
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", load)
    assert load_tokenizer(PrepareOptions(out="x", tokenizer="in/cache")) == "a tokenizer"
    with pytest.raises(SourceError, match=r"no/where cannot be loaded \(ConnectionError: no network here\)"):
        load_tokenizer(PrepareOptions(out="x", tokenizer="no/where"))
    assert asked == ["in/cache", "no/where"]


@pytest.mark.parametrize("prompt", ["chat", "chat_text"])
def test_openrlhf_loads_the_prompts(prepare: Prepare, tokenizer: Path, tmp_path: Path, prompt: str) -> None:
    pytest.importorskip("openrlhf")
    from openrlhf.datasets import PromptDataset
    from openrlhf.datasets.utils import blending_datasets
    from transformers import AutoTokenizer

    rows = [live_bench(1), completion(2)]
    source = write_parquet(tmp_path / "test.parquet", rows, LIVEBENCH)
    prepare("livebench", source, tokenizer=str(tokenizer), prompt=prompt)
    data = SimpleNamespace(
        input_key="input", label_key="label", apply_chat_template=prompt == "chat", image_key="images"
    )
    strategy = SimpleNamespace(
        print=lambda *_: None, is_rank_0=lambda: False, args=SimpleNamespace(data=data, use_ms=False)
    )
    found = blending_datasets(str(tmp_path / "out" / "test.jsonl"), None, strategy, 42, 100)
    dataset = PromptDataset(found, AutoTokenizer.from_pretrained(tokenizer), strategy)
    lines = [json.loads(line) for line in (tmp_path / "out" / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(dataset) == len(lines) == 2
    for (source_name, text, label, _), line in zip(dataset, lines, strict=True):
        assert (source_name, label) == ("livebench", line["label"])
        assert isinstance(text, str)
        assert text.startswith("<user>Complete the Python 3 code")
        assert text.endswith("</user><assistant>")
