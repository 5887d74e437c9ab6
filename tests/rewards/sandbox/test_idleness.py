"""Idle time, with the kernel's answers scripted: what real programs do is in test_hostile_programs.py."""

import pytest

from openrlhf_maxk.rewards.sandbox.idleness import Idleness

MS = 10**6


class Scripted(Idleness):
    """Told whether the program wants a core, and for how long it has waited for one."""

    def now(self, wall_ms: int, cpu_ms: int, runnable: bool, queued_ms: int = 0) -> float:
        self._threads_now = lambda: (runnable, queued_ms * MS)  # type: ignore[method-assign]
        return self.look(wall_ms * MS, cpu_ms * MS) / MS


@pytest.fixture
def program() -> Scripted:
    return Scripted(1)


def test_idle_is_what_was_neither_run_nor_queued(program: Scripted) -> None:
    assert program.now(100, 30, False, queued_ms=20) == 50


def test_a_program_that_is_found_awake_is_not_ended_now(program: Scripted) -> None:
    assert program.now(100, 0, True) == 0  # it may stand in the queue since a moment that is not counted yet
    assert program.now(200, 0, False, queued_ms=50) == 150


def test_of_several_threads_only_time_in_which_none_is_awake(program: Scripted) -> None:
    program.several = True
    assert program.now(100, 0, True, queued_ms=5000) == 0
    assert program.now(200, 0, False, queued_ms=5000) == pytest.approx(100 / 1.25)


def test_no_two_looks_are_the_same_time_apart(program: Scripted) -> None:
    for several, least, most in ((False, 0.15, 0.25), (True, 0.005, 0.02)):
        program.several = several
        waits = {program.next_look_seconds() for _ in range(100)}
        assert all(least <= wait < most for wait in waits)
        assert len(waits) > 90
        assert max(waits) - min(waits) > (most - least) / 2  # far apart, though asked for in one millisecond
