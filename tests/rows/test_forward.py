"""The row pass against OpenRLHF's padded pass: log-probs, entropies, gradients, for models of several families."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch

from openrlhf_maxk.rows import attention, head
from openrlhf_maxk.rows.check import OFF

from .batches import FAMILIES, VOCABULARY, batch_of, make_actor, random_sequences

BATCHES = {
    "ragged": random_sequences([4, 1, 3]),
    "one completion": random_sequences([1]),
    "equal lengths": [([5, 6, 7], [8, 9]), ([5, 6, 7], [1, 2]), ([7, 6, 5], [3, 4]), ([7, 6, 5], [8, 8])],
    "prompts of one token": [([5], [6, 7, 8]), ([5], [9]), ([3], [4, 4])],
    "longer than the window": random_sequences([3, 2], longest=24, seed=2),
}


def passes(actor, batch, entropy_gradient=True):
    """Log-probs, entropies, auxiliary loss and gradients of both passes: the padded one first."""
    ids, actions, present = batch
    actor.entropy_gradient = entropy_gradient
    found = []
    for rows in (OFF, None):
        actor.rows = rows
        actor.model.zero_grad()
        log_probs, output = actor(ids, actions, present, return_output=True, return_entropy=True)
        weights = torch.linspace(-1, 1, actions.numel()).view(actions.shape) * actions
        entropy = output.entropy[:, -actions.shape[1] :]
        extra = getattr(output, "aux_loss", None)
        loss = (log_probs * weights).sum() + (0.3 * (entropy * actions).sum() if entropy_gradient else 0)
        (loss if extra is None else loss + 0.1 * extra).backward()
        gradients = {name: p.grad.clone() for name, p in actor.model.named_parameters()}
        found.append((log_probs.detach(), (entropy * actions).detach(), extra, gradients))
    assert actor.rows.agree, actor.rows.reason
    return found


def assert_same(padded, row):
    torch.testing.assert_close(row[0], padded[0], atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(row[1], padded[1], atol=2e-5, rtol=1e-5)
    if padded[2] is not None:
        torch.testing.assert_close(row[2], padded[2])
    for name, expected in padded[3].items():
        scale = expected.abs().max().clamp(min=1e-3)
        assert ((row[3][name] - expected).abs().max() / scale).item() < 5e-5, name


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("family", FAMILIES)
def test_both_passes_are_the_same(family, batch):
    assert_same(*passes(make_actor(family), batch_of(BATCHES[batch])))


def test_with_gradient_checkpointing_and_padding_on_the_left():
    actor = make_actor()
    actor.gradient_checkpointing_enable()
    actor.train()
    assert_same(*passes(actor, batch_of(BATCHES["ragged"], left=3)))


def test_logits_in_chunks(monkeypatch):
    monkeypatch.setattr(head, "MOST_LOGITS", 5 * VOCABULARY)
    assert_same(*passes(make_actor(), batch_of(BATCHES["ragged"])))


def test_an_entropy_that_is_not_trained_on_has_no_gradient():
    found = passes(make_actor(), batch_of(BATCHES["ragged"]), entropy_gradient=False)
    assert_same(*found)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_no_more_logits_than_a_chunk(monkeypatch, chunk):
    """The output layer never sees prompts or padding, nor more tokens at once than a chunk has."""
    monkeypatch.setattr(head, "MOST_LOGITS", chunk * VOCABULARY)
    actor = make_actor()
    ids, actions, present = batch_of(BATCHES["ragged"])
    actor(ids, actions, present)  # the comparison
    seen = []
    layer = actor.model.get_output_embeddings()
    own = layer.forward
    layer.forward = lambda x: seen.append(x.shape[0]) or own(x)
    with torch.no_grad():
        actor(ids, actions, present)
    assert layer.forward is not own, "the layer keeps what was put in its place before"
    assert sum(seen) == int(actions.sum())
    assert max(seen) <= chunk


def test_a_batch_of_fillers_has_no_log_probs_and_a_gradient_of_zero():
    actor = make_actor()
    ids, actions, present = batch_of(BATCHES["ragged"])
    actor(ids, actions, present)
    log_probs, _output = actor(ids[:1], torch.zeros_like(actions[:1]), present[:1], return_output=True)
    assert not log_probs.any()
    log_probs.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in actor.model.parameters())


def test_in_bfloat16_the_difference_is_rounding():
    actor = make_actor(dtype=torch.bfloat16)
    ids, actions, present = batch_of(random_sequences([4, 4], longest=24))
    actor(ids, actions, present)
    assert actor.rows.agree, actor.rows.reason


def test_upstreams_other_passes_are_left_alone():
    actor = make_actor()
    ids, _actions, present = batch_of(BATCHES["ragged"])
    output = actor(ids, attention_mask=present, return_output=True)
    assert output["logits"].shape == (*ids.shape, VOCABULARY)
    assert actor.rows is None


def varlen(q, k, v, cu_q, cu_k, longest_q, longest_k, dropout_p, softmax_scale, causal, window_size, softcap):
    """What flash-attn's kernel is documented to compute, one sequence at a time."""
    out = torch.empty_like(q)
    for i in range(len(cu_q) - 1):
        queries, keys = slice(cu_q[i], cu_q[i + 1]), slice(cu_k[i], cu_k[i + 1])
        assert queries.stop - queries.start <= longest_q
        assert keys.stop - keys.start <= longest_k
        at = torch.arange(keys.stop - keys.start)
        last = at[-(queries.stop - queries.start) or len(at) :, None]
        seen = at <= last
        if window_size[0] >= 0:
            seen &= at >= last - window_size[0]
        repeats = q.shape[1] // k.shape[1]
        one, other = k[keys].repeat_interleave(repeats, 1), v[keys].repeat_interleave(repeats, 1)
        scores = torch.einsum("qhd,khd->hqk", q[queries], one) * softmax_scale
        scores = scores.masked_fill(~seen, -torch.inf).softmax(-1)
        out[queries] = torch.einsum("hqk,khd->qhd", scores, other)
    return out


@pytest.mark.parametrize("window", [None, 4])
def test_flash_attention_without_padding(monkeypatch, window):
    fake = ModuleType("flash_attn")
    fake.flash_attn_varlen_func = varlen
    monkeypatch.setitem(sys.modules, "flash_attn", fake)
    from openrlhf_maxk.rows.layout import RowLayout

    ids, actions, present = batch_of(BATCHES["ragged"])
    layout = RowLayout.of(ids, present, actions)
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, h, len(layout.tokens), 8, generator=generator) for h in (4, 2, 2))
    expected = attention.sdpa(query, key, value, layout, 0.3, window=window)
    torch.testing.assert_close(attention.flash(query, key, value, layout, 0.3, window=window), expected)
