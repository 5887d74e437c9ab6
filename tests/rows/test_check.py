"""Models that do not agree are found by the first batch, and computed upstream's way."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from openrlhf_maxk.rows import attention, forward
from openrlhf_maxk.rows.check import OFF, few, verdict

from .batches import batch_of, make_actor, random_sequences

BATCH = batch_of(random_sequences([4, 3]))


def padded(actor):
    verdict, actor.rows = actor.rows, OFF
    expected = actor(*BATCH)
    actor.rows = verdict
    return expected


def assert_falls_back(actor, reason):
    found = actor(*BATCH)
    assert not actor.rows.agree
    assert reason in actor.rows.reason
    assert torch.equal(found, padded(actor))


def test_attention_without_a_row():
    assert_falls_back(make_actor(attn_implementation="eager"), "--ds.attn_implementation eager has no row")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"layer_types": ["full_attention", "linear_attention"]}, "it has layers of linear_attention"),
        ({"layer_types": ["chunked_attention"]}, "it has layers of chunked_attention"),
        ({"attention_chunk_size": 8192}, "its attention is cut into chunks"),
        ({"_attn_implementation": "paged|sdpa"}, "paged|sdpa has no row"),
    ],
)
def test_what_a_first_batch_need_not_show(config, reason):
    """Both passes agree on it, and would not on a longer one."""
    config = SimpleNamespace(**{"_attn_implementation": "sdpa", **config})
    found = verdict(lambda *batch: batch[1], lambda *batch: batch[1], BATCH, config, torch.float32)
    assert not found.agree
    assert reason in found.reason


@pytest.mark.parametrize(
    ("dtype", "noise", "error", "agree"),
    [
        (torch.float32, 0.0, 5e-5, True),
        (torch.float32, 0.0, 2e-4, False),
        (torch.float32, 1e-4, 5e-4, True),
        (torch.bfloat16, 0.01, 0.1, True),
        (torch.bfloat16, 0.01, 0.15, False),
        (torch.bfloat16, 0.5, 0.3, False),
        (torch.float32, 0.0, float("nan"), False),
    ],
)
def test_the_rounding_that_is_allowed_is_what_was_seen(dtype, noise, error, agree):
    """The padded pass differs from itself, in another shape, by ``noise``, and the row by ``error``."""
    width = BATCH[0].shape[1]

    def padded(sequences, actions, present):
        return torch.full_like(actions, noise if sequences.shape[1] > width else 0.0)

    config = SimpleNamespace(_attn_implementation="sdpa")
    found = verdict(padded, lambda *batch: torch.full_like(batch[1], error), BATCH, config, dtype)
    assert found.agree == agree


def test_layers_that_do_not_tell_their_window():
    """A first batch shorter than the window would not show it."""
    actor = make_actor("Llama")
    actor.model.config.sliding_window = 1000
    for layer in actor.model.model.layers:
        layer.self_attn.config = actor.model.config
    assert_falls_back(actor, "do not say whether they have a sliding window")


def test_attention_with_a_bias_of_its_own(monkeypatch):
    actor = make_actor()
    own = attention.row_attention
    monkeypatch.setattr(
        attention, "row_attention", lambda *tensors, **options: own(*tensors, **options, s_aux=torch.ones(4))
    )
    assert_falls_back(actor, "its attention has s_aux")


def test_layers_that_mix_the_tokens_of_a_row():
    """As state-space layers do: the next token in the row is not the next one of the sequence."""
    actor = make_actor()
    mix = torch.nn.Conv1d(32, 32, 2, padding=1, groups=32)

    def mixed(module, arguments, output):
        return output + mix(output.transpose(1, 2))[..., :-1].transpose(1, 2)

    actor.model.model.layers[0].mlp.register_forward_hook(mixed)
    assert_falls_back(actor, "its log-probs differ by")


def test_layers_that_keep_the_layout_to_themselves():
    actor = make_actor()
    layer = actor.model.model.layers[0].self_attn
    own = layer.forward
    layer.forward = lambda **options: own(**{k: v for k, v in options.items() if k != attention.LAYOUT})
    assert_falls_back(actor, "do not hand keyword arguments to attention")


def test_a_small_error_is_not_rounding(monkeypatch):
    """A thousandth of a nat a token is a hundred times float32's rounding."""
    actor = make_actor()
    own = forward.token_scores
    monkeypatch.setattr(forward, "token_scores", lambda *given: own(*given) + 1e-3)
    assert_falls_back(actor, "its log-probs differ by 0.001")


def test_of_short_sequences_all_is_compared():
    ids, actions, present = few(BATCH)
    for found, given in zip((ids, actions, present), BATCH, strict=True):
        assert torch.equal(found, given[:6])
    actions = BATCH[1].clone()
    actions[:3] = 0
    assert torch.equal(few((BATCH[0], actions, BATCH[2]))[0], BATCH[0][3:])
    ids, actions, _ = few((BATCH[0], torch.zeros_like(actions), BATCH[2]))
    assert len(ids) == 1
    assert not actions.any()


@pytest.mark.parametrize("padding", [{}, {"left": 7, "right": 3}])
def test_of_long_sequences_little_is_compared(padding):
    """The padded pass makes logits of every position that it is given."""
    long, other = list(range(1, 61)) * 20, list(range(60, 0, -1)) * 40
    batch = batch_of([(long, [5, 6] * 500), (long, [7]), (other, [8, 9])], **padding)
    ids, actions, present = few(batch)
    assert ids.shape == (2, 256 + 64), "the third begins elsewhere"
    assert ids[0].tolist() == long[-256:] + [5, 6] * 32
    assert ids[1][present[1].bool()].tolist() == [*long[-256:], 7]
    assert actions.sum(1).tolist() == [64, 1]
    actor = make_actor()
    actor(*batch)
    assert actor.rows.agree, actor.rows.reason


def test_another_rank_that_does_not_agree(monkeypatch):
    monkeypatch.setattr("openrlhf_maxk.rows.check._everywhere", lambda holds: False)
    assert_falls_back(make_actor(), "another rank's model does not agree")


@pytest.mark.parametrize("training", [True, False])
def test_the_model_stays_in_its_mode(training):
    actor = make_actor()
    actor.train(training)
    actor(*BATCH)
    assert actor.training == training
    assert actor.rows.agree
