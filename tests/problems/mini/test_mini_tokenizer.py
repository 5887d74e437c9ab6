"""The tokenizer: stable ids, exact round trips, and the same through AutoTokenizer as OpenRLHF and vLLM load it."""

import hashlib
import random
from itertools import islice

import pytest

from openrlhf_maxk.problems.mini.demonstrations import demonstrations
from openrlhf_maxk.problems.mini.generator import ProblemSettings, generate
from openrlhf_maxk.problems.mini.tokenizer import BOS, EOS, PAD, UNK, build_tokenizer, vocabulary

LONGEST_PROMPT = 28
LONGEST_PROGRAM = 24


@pytest.fixture(scope="module")
def built():
    return build_tokenizer()


@pytest.fixture(scope="module")
def loaded(built, tmp_path_factory):
    """As from a model folder: transformers picks the class by the model's type."""
    from transformers import AutoTokenizer, Qwen2Config

    folder = tmp_path_factory.mktemp("tokenizer")
    built.save_pretrained(folder)
    Qwen2Config().save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def texts():
    """All statements and reference programs, and demonstrations with their faults."""
    pairs = list(generate(ProblemSettings()))
    shown = list(islice(demonstrations(seed=0), 2000))
    prompts = [p.statement for p, _ in pairs] + [d.prompt for d in shown]
    programs = [s.program for _, s in pairs] + [d.completion for d in shown]
    return prompts, programs


def test_ids_are_stable():
    """A base model is bound to its ids; the digest changes only together with the benchmark."""
    assert vocabulary()[:4] == (PAD, BOS, EOS, UNK)
    assert len(set(vocabulary())) == len(vocabulary()) == 202
    assert hashlib.sha256("\n\n".join(vocabulary()).encode()).hexdigest()[:16] == "91d987e10cf095fa"


@pytest.mark.parametrize("which", ["built", "loaded"])
def test_text_comes_back_exactly(which, texts, request):
    tokenizer = request.getfixturevalue(which)
    for kind, longest in zip(texts, (LONGEST_PROMPT, LONGEST_PROGRAM), strict=True):
        encoded = tokenizer(kind)["input_ids"]
        assert max(map(len, encoded)) <= longest
        assert tokenizer.unk_token_id not in {i for ids in encoded for i in ids}
        assert tokenizer.batch_decode(encoded) == kind
        assert tokenizer.batch_decode(encoded, skip_special_tokens=False) == kind


def test_loading_changes_nothing(built, loaded, texts):
    assert loaded.get_vocab() == built.get_vocab() == {token: i for i, token in enumerate(vocabulary())}
    assert loaded(texts[0])["input_ids"] == built(texts[0])["input_ids"]
    special = [(t.pad_token_id, t.bos_token_id, t.eos_token_id, t.padding_side) for t in (built, loaded)]
    assert special == [(0, 1, 2, "left")] * 2


def test_prompts_get_no_special_tokens(loaded, texts):
    for prompt in texts[0][:50]:
        assert loaded(prompt)["input_ids"] == loaded(prompt, add_special_tokens=False)["input_ids"]


def test_a_prompt_and_its_completion_meet_at_a_token_boundary(loaded, texts):
    for prompt, program in list(zip(*texts, strict=True))[:500]:
        both = loaded(prompt + program + EOS)["input_ids"]
        assert both == loaded(prompt)["input_ids"] + loaded(program)["input_ids"] + [loaded.eos_token_id]


def test_whatever_is_sampled_decodes_to_its_tokens(loaded):
    rng = random.Random(0)
    tokens = vocabulary()
    for _ in range(200):
        ids = [rng.randrange(len(tokens)) for _ in range(30)]
        assert loaded.decode(ids, skip_special_tokens=False) == "".join(tokens[i] for i in ids)


def test_decoding_step_by_step_is_decoding_at_once(loaded, texts):
    """As vLLM does it while it generates."""
    from tokenizers.decoders import DecodeStream

    for program in texts[1][:200]:
        ids = [*loaded(program)["input_ids"], loaded.eos_token_id]
        stream = DecodeStream(skip_special_tokens=False)
        pieces = [stream.step(loaded.backend_tokenizer, i) or "" for i in ids]
        assert "".join(pieces) == program + EOS


def test_unknown_text_is_left_out(loaded):
    assert loaded("Здравствуй")["input_ids"] == []
    assert loaded.decode(loaded("print(sum(a)) # ok")["input_ids"]) == "print(sum(a))"
