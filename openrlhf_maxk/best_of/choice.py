"""Which of k samples is the best, by what their programs did on the tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from openrlhf_maxk.problems.verdict import ProgramResult, Verdict

_ENDED = (Verdict.PASSED, Verdict.WRONG)  # of a program that came to its end


class UndecidedError(RuntimeError):
    """Programs that might be the best could not be run: the machinery failed, and there is no choice."""


@dataclass(frozen=True, slots=True)
class Best:
    """The sample that was chosen, and what all of them did."""

    sample: int  # its position among the k
    program: str | None  # None: no sample holds a program
    verdicts: tuple[Verdict, ...]  # of the program on each test; empty without a program
    detail: str  # of the first test that it fails, for people; else empty
    passing: tuple[int, ...]  # for each test, how many of the k samples pass it
    solving: int  # how many samples pass all tests
    programs: int  # how many samples hold a program
    lost: int  # how many of those the machinery failed to run: they count as neither passing nor failing
    votes: int  # samples that are equal to the chosen one so far and answer the same, itself included

    @property
    def passed(self) -> int:
        """How many tests the chosen program passes."""
        return sum(verdict is Verdict.PASSED for verdict in self.verdicts)


def choose(programs: Sequence[str | None], results: Mapping[str, ProgramResult], tests: int) -> Best:
    """The sample whose program passes most tests.

    Among equals it is one that crashes or meets a limit on fewest tests; among those, one whose program answers as most
    of them do, over all tests; then one of the program that was written most often; then the first.

    Args:
        programs: of the k samples, at least one; None where there is none.
        results: of each different program, on the same ``tests`` tests.

    Raises:
        UndecidedError: some programs could not be run, and none of the others passes all tests. (One that does is a
            right choice, whatever the lost ones would have done.)
    """
    if not programs:
        raise ValueError("there is no sample to choose from")
    written = Counter(program for program in programs if program is not None)
    scored = {program: results[program] for program in written if results[program].scored}
    ranks = {program: (_count(result, Verdict.PASSED), _count(result, *_ENDED)) for program, result in scored.items()}
    best = max(ranks.values(), default=(-1, -1))
    missing = [program for program in written if program not in scored]
    lost = sum(written[program] for program in missing)
    if missing and best[0] < tests:
        failure = _failure(results[missing[0]])
        raise UndecidedError(f"{lost} of {len(programs)} samples could not be run: {failure}")
    passing = tuple(
        sum(written[program] for program, result in scored.items() if result.tests[test].verdict is Verdict.PASSED)
        for test in range(tests)
    )
    solving = sum(written[program] for program, (passed, _) in ranks.items() if passed == tests)
    if not scored:
        return Best(0, None, (), "", passing, solving=0, programs=0, lost=0, votes=0)
    equals = [program for program in written if ranks.get(program) == best]
    votes: Counter[tuple[bytes, ...]] = Counter()
    for program in equals:
        votes[_answers(scored[program])] += written[program]
    # max keeps the first of equals, and a Counter the order in which programs first came.
    program = max(equals, key=lambda each: (votes[_answers(scored[each])], written[each]))
    result = scored[program]
    return Best(
        sample=programs.index(program),
        program=program,
        verdicts=tuple(test.verdict for test in result.tests),
        detail=next((test.detail for test in result.tests if test.verdict is not Verdict.PASSED), ""),
        passing=passing,
        solving=solving,
        programs=written.total(),
        lost=lost,
        votes=votes[_answers(result)],
    )


def _count(result: ProgramResult, *verdicts: Verdict) -> int:
    return sum(test.verdict in verdicts for test in result.tests)


def _answers(result: ProgramResult) -> tuple[bytes, ...]:
    """Equal for programs that behave alike: what the runner knows answers by, else what was printed, as words."""
    return tuple(test.answer or b" ".join(test.output.split()) for test in result.tests)


def _failure(result: ProgramResult) -> str:
    details = [test.detail for test in result.tests if test.verdict is Verdict.INFRASTRUCTURE_ERROR]
    return details[0] if details and details[0] else "no result"
