"""From recorded results to scores, and back from disk: votes, what is not known, what was not generated."""

from __future__ import annotations

import json
from contextlib import contextmanager

import numpy as np
import pyarrow.parquet as parquet
import pytest

from openrlhf_maxk.evaluation.pipeline import Plan, evaluate
from openrlhf_maxk.evaluation.samples.completions import CompletionsFile
from openrlhf_maxk.evaluation.samples.problem_set import load_problem_set
from openrlhf_maxk.evaluation.samples.records import Sampling
from openrlhf_maxk.evaluation.scoring.scores_file import SAMPLES, load_scores
from openrlhf_maxk.evaluation.statistics.metrics import METRICS, NO_ANSWER, UNKNOWN
from openrlhf_maxk.evaluation.statistics.scores import shown_metrics
from openrlhf_maxk.problems.record import Mode, Problem, Test
from openrlhf_maxk.problems.store import write_problems
from openrlhf_maxk.problems.verdict import ProgramResult, TestResult, Verdict

from .fakes import FakeRunner, extract

PASSED, WRONG, CRASHED = Verdict.PASSED, Verdict.WRONG, Verdict.CRASHED
ENDINGS = {  # verdict, output, and the answer that runners of today tell, of two tests; by number of the program
    1: ((PASSED, b"1", b"one"), (PASSED, b"2", b"two")),
    2: ((PASSED, b"1", b"one"), (WRONG, b"3", b"three")),
    3: ((PASSED, b" 1\n", b"one"), (WRONG, b"3 ", b"three")),  # the same but for white space
    4: ((PASSED, b"1", b"one"), (CRASHED, b"3", b"")),
    5: ((PASSED, b"1", b"one"), (CRASHED, b"4", b"")),  # what was printed before the crash is no answer
    6: ((CRASHED, b"", b""), (CRASHED, b"", b"")),
    7: ((WRONG, b"1", b"one"), (WRONG, b"2", b"two")),  # answers as 1, judged otherwise
    8: ((PASSED, b"1", b""), (WRONG, b"3", b"")),  # of a runner that tells no answers
    9: ((PASSED, b"1", b"one"), (Verdict.CPU_TIMEOUT, b"", b"")),
}


class Runner(FakeRunner):
    def _run(self, program: str, problem: Problem) -> ProgramResult:
        ended = ENDINGS[int(program.strip()[6:-1])]
        return ProgramResult(tuple(TestResult(v, output=output, answer=answer) for v, output, answer in ended))

    @contextmanager
    def __call__(self):
        yield self


def evaluated(folder, programs, *, mode=Mode.STDIN, public=1, samples=None):
    """The evaluation of these programs by number, None standing for a null completion and "" for an empty one."""
    folder.mkdir()
    entry = "f" if mode is Mode.FUNCTION else ""
    write_problems(
        folder / "problems", [Problem("p", "", (Test("1", "1"), Test("2", "2")), mode, entry, public_tests=public)]
    )
    texts = [f"```python\nprint({p})\n```" if isinstance(p, int) else p for p in programs]
    (folder / "s.jsonl").write_text(json.dumps({"problem": "p", "completions": texts}) + "\n")
    problems = load_problem_set(folder / "problems")
    source = CompletionsFile.open(folder / "s.jsonl", problems)
    plan = Plan("m", problems, {"p": ""}, source, Sampling(), samples or source.counts["p"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("openrlhf_maxk.evaluation.pipeline.plot_curves", lambda *a, **k: None)
        return evaluate(plan, folder / "runs", Runner(), extract)


def same(numbers) -> list[list[int]]:
    """Which places hold equal numbers; without those that stand for no or no known answer."""
    return [np.flatnonzero(numbers == n).tolist() for n in dict.fromkeys(numbers.tolist()) if n >= 0]


def test_what_a_vote_goes_by(tmp_path):
    """Answers that the runner told, whatever was expected. For a test that ended badly its ending stands; a sample
    without a program, or that ended badly everywhere, has no answer."""
    answers = evaluated(tmp_path / "a", [1, 2, 3, 4, 5, 6, 7, "", 9]).scores.details.answers
    assert same(answers) == [[0, 6], [1, 2], [3, 4], [8]]
    assert answers[[5, 7]].tolist() == [NO_ANSWER, NO_ANSWER]


def test_where_one_sample_has_no_told_answer_the_vote_is_over_what_was_printed(tmp_path):
    programs = [1, 2, 3, 4, 5, 6, 7, 8, ""]
    answers = evaluated(tmp_path / "a", programs).scores.details.answers
    assert same(answers) == [[0, 6], [1, 2, 7], [3, 4]]
    assert answers[[5, 8]].tolist() == [NO_ANSWER, NO_ANSWER]
    scores = evaluated(tmp_path / "f", programs, mode=Mode.FUNCTION).scores  # functions print nothing that answers
    assert (scores.details.answers == UNKNOWN).sum() == len(programs) - 2
    assert np.isnan(scores.estimates("maj", [1])).all()


def test_a_null_is_no_sample_and_an_empty_text_is_one_that_fails(tmp_path):
    evaluation = evaluated(tmp_path / "a", [1, None, "", None, 2])
    scores = evaluation.scores
    assert scores.rewards.tolist() == [1.0, 0.0, 0.5]
    assert scores.samples.tolist() == [3]
    assert scores.details.programs.tolist() == [0, -1, 1]
    assert scores.details.verdicts.sum(axis=1).tolist() == [2, 0, 2]
    assert evaluation.health.samples == 3
    assert evaluation.health.counts == {"no_program": 1}
    np.testing.assert_allclose(scores.estimates("max", [1, 2, 3]), [[0.5, 2.5 / 3, 1.0]])


@pytest.mark.parametrize("public", [0, 1, 2])
def test_shares_of_tests_that_a_problem_does_not_have_are_not_known(tmp_path, public):
    details = evaluated(tmp_path / "a", [2, ""], public=public).scores.details
    np.testing.assert_array_equal(details.public, {0: [np.nan] * 2, 1: [1.0, 0.0], 2: [0.5, 0.0]}[public])
    np.testing.assert_array_equal(details.hidden, {0: [0.5, 0.0], 1: [0.0, 0.0], 2: [np.nan] * 2}[public])


def test_scores_from_before_answers_were_kept(tmp_path):
    evaluation = evaluated(tmp_path / "a", [1, 2, 3, 4])
    now = load_scores(evaluation.run.scores)
    assert now.knows("maj")
    table = parquet.read_table(evaluation.run.scores / SAMPLES)
    assert "answers" in table.column_names
    parquet.write_table(table.drop_columns(["answers"]), evaluation.run.scores / SAMPLES)
    old = load_scores(evaluation.run.scores)
    assert old.details.answers.tolist() == [UNKNOWN] * 4
    shown, left_out = shown_metrics({"old": old})
    assert left_out == ("maj@k is left out: no answers are known",)
    assert shown == tuple(name for name in METRICS if name != "maj")
    for name in shown:
        np.testing.assert_array_equal(old.estimates(name, [1, 2, 4]), now.estimates(name, [1, 2, 4]))
    plain = table.select(["problem", "reward", "correct"])  # nothing is known of the samples but their rewards
    parquet.write_table(plain, evaluation.run.scores / SAMPLES)
    assert load_scores(evaluation.run.scores).details is None
