from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap

import pytest

from openrlhf_maxk.evaluation.samples.log import Log, LogError, locked


def test_records_come_back_in_order_over_several_writers(tmp_path):
    log = Log(tmp_path / "log")
    assert list(log) == []
    for session in range(3):
        with log.writer() as writer:
            writer.append([{"session": session, "i": i, "text": "é\n\ud800"} for i in range(4)])
            writer.append([])
    assert [(r["session"], r["i"]) for r in log] == [(s, i) for s in range(3) for i in range(4)]
    assert next(iter(log))["text"] == "é\n\ud800"
    assert [path.name for path in log.segments()] == ["00001.jsonl", "00002.jsonl", "00003.jsonl"]


def test_a_writer_that_writes_nothing_leaves_nothing(tmp_path):
    with Log(tmp_path).writer():
        pass
    assert Log(tmp_path).segments() == []


@pytest.mark.parametrize("cut", range(1, 24))
def test_a_torn_last_line_is_passed_over_wherever_it_is_cut(tmp_path, cut):
    log = Log(tmp_path)
    with log.writer() as writer:
        writer.append([{"i": 0, "x": "abc"}, {"i": 1, "x": "def"}])
    path = log.segments()[0]
    size = path.stat().st_size
    os.truncate(path, size - min(cut, size // 2))
    with log.writer() as writer:
        writer.append([{"i": 2}])
    found = [record["i"] for record in log]
    assert found == [0, 2]


def test_a_damaged_line_in_the_middle_is_an_error_that_names_it(tmp_path):
    log = Log(tmp_path)
    with log.writer() as writer:
        writer.append([{"i": i} for i in range(3)])
    path = log.segments()[0]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b'{"i": \n' + lines[2])
    with pytest.raises(LogError, match=r"00001\.jsonl, line 2 is damaged"):
        list(log)


def test_numbers_that_json_does_not_know_are_refused(tmp_path):
    with Log(tmp_path).writer() as writer, pytest.raises(ValueError, match="JSON"):
        writer.append([{"x": float("nan")}])


def test_a_full_disk_leaves_earlier_records_unharmed(tmp_path, monkeypatch):
    log = Log(tmp_path)
    real, allowed = os.write, [60]

    def write(descriptor, data):
        if allowed[0] <= 0:
            raise OSError(28, "No space left on device")
        data = bytes(data)[: allowed[0]]
        allowed[0] -= len(data)
        return real(descriptor, data)

    with log.writer() as writer:
        writer.append([{"i": 0}])
        monkeypatch.setattr(os, "write", write)
        with pytest.raises(OSError, match="No space left"):
            writer.append([{"i": i, "x": "y" * 20} for i in range(1, 5)])
    monkeypatch.undo()
    assert [record["i"] for record in log] == [0, 1]  # the first of the failed batch had reached the disk whole


def test_two_writers_at_once_are_refused_by_name(tmp_path):
    code = f"""
        import sys, time
        from pathlib import Path
        from openrlhf_maxk.evaluation.samples.log import locked
        with locked(Path({str(tmp_path)!r}), "the evaluation"):
            print("locked", flush=True)
            time.sleep(60)
    """
    holder = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(LogError, match=f"is being written by process {holder.pid}"), locked(tmp_path, "the run"):
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with locked(tmp_path, "the run"):
        pass  # a killed process leaves no lock behind


def test_killed_while_appending_at_random_moments(tmp_path):
    """Whatever a killed writer had appended is there, in order, without holes."""
    code = f"""
        from openrlhf_maxk.evaluation.samples.log import Log
        log = Log({str(tmp_path)!r})
        start = sum(1 for _ in log)
        with log.writer() as writer:
            for i in range(start, 100000):
                writer.append([{{"i": i, "x": "z" * (i % 5000)}}])
                print(i, flush=True)
    """
    rng = random.Random(1)
    promised = -1
    for _ in range(6):
        process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(rng.randrange(1, 40)):
            promised = int(process.stdout.readline())
        process.kill()
        process.wait()
        promised = max([promised, *(int(line) for line in process.stdout if line.endswith("\n"))])
        found = [record["i"] for record in Log(tmp_path)]
        assert found == list(range(len(found)))
        assert len(found) > promised
