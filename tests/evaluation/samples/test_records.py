from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_maxk.evaluation.samples.records import Sample, Sampling, missing_requests, seed_of


@given(
    st.dictionaries(st.sampled_from("abc"), st.sets(st.integers(0, 20))),
    st.fixed_dictionaries({p: st.integers(0, 20) for p in "abc"}),
    st.integers(1, 7),
)
def test_requests_ask_for_exactly_what_is_missing(present, samples, per_request):
    prompts = {"a": "A", "b": "B", "c": "C"}
    requests = missing_requests(prompts, present, samples, 3, per_request)
    asked = [(r.problem, r.first + i, r.seed + i) for r in requests for i in range(r.count)]
    want = [(p, i, seed_of(3, p) + i) for p in prompts for i in range(samples[p]) if i not in present.get(p, set())]
    assert asked == want  # each once, with the seed of an undisturbed run
    assert all(r.count <= per_request and r.prompt == prompts[r.problem] for r in requests)


def test_seeds_are_stable_and_differ_between_problems_and_runs():
    assert seed_of(0, "mini/test/00000") == seed_of(0, "mini/test/00000")
    assert len({seed_of(s, f"p{i}") for s in range(10) for i in range(100)}) == 1000
    assert all(0 <= seed_of(s, "x") < 2**47 for s in range(100))


def test_a_sample_survives_json():
    sample = Sample("p", 3, "text \ud800", "length", 17, -1.5)
    assert Sample.from_record(json.loads(json.dumps(sample.record()))) == sample


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0.0}, "top-p"),
        ({"top_k": -2}, "top-k"),
        ({"max_new_tokens": 0}, "max-new-tokens"),
    ],
)
def test_sampling_that_makes_no_sense(bad, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**bad)
