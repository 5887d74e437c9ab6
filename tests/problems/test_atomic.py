"""Folders and files are there whole or not at all."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from openrlhf_maxk.problems.atomic import new_folder, write_text


def contents(folder: Path) -> dict[str, str]:
    return {p.name: p.read_text() for p in folder.iterdir()}


def test_a_new_folder_appears_whole(tmp_path):
    target = tmp_path / "deep" / "data"
    with new_folder(target) as work:
        (work / "a").write_text("1")
        assert not target.exists()
    assert contents(target) == {"a": "1"}
    assert [p.name for p in target.parent.iterdir()] == ["data"]


def test_an_old_folder_stays_until_the_new_one_is_complete(tmp_path):
    target = tmp_path / "data"
    with new_folder(target) as work:
        (work / "old").write_text("1")
    with new_folder(target) as work:
        (work / "new").write_text("2")
        assert contents(target) == {"old": "1"}
    assert contents(target) == {"new": "2"}
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_an_error_leaves_nothing_behind(tmp_path):
    def fail() -> None:
        with new_folder(tmp_path / "data") as work:
            (work / "a").write_text("1")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "data").write_text("precious")
    with pytest.raises(NotADirectoryError, match=r"data is a file"), new_folder(tmp_path / "data"):
        pass
    assert (tmp_path / "data").read_text() == "precious"


def test_what_a_killed_run_leaves_is_cleared_by_the_next(tmp_path):
    target = tmp_path / "data"
    program = (
        "import sys, time\n"
        "from openrlhf_maxk.problems.atomic import new_folder\n"
        "with new_folder(sys.argv[1]) as work:\n"
        "    (work / 'half').write_text('half')\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(target)], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        with new_folder(target) as work:  # the other process is alive: its folder is left alone
            (work / "a").write_text("1")
        assert len(list(tmp_path.glob(".data.unfinished-*"))) == 1
        process.send_signal(signal.SIGKILL)
    assert contents(target) == {"a": "1"}
    with new_folder(target) as work:
        (work / "a").write_text("2")
    assert contents(target) == {"a": "2"}
    assert list(tmp_path.glob(".data.unfinished-*")) == []


def test_writers_at_the_same_time_do_not_mix(tmp_path):
    errors = []

    def write(name: str) -> None:
        try:
            for _ in range(20):
                with new_folder(tmp_path / "data") as work:
                    (work / "one").write_text(name)
                    (work / "two").write_text(name)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.001)
    assert errors == []
    assert len(set(contents(tmp_path / "data").values())) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_a_text_file_is_replaced_in_one_step(tmp_path):
    path = tmp_path / "sub" / "file.json"
    write_text(path, "1\n")
    os.link(path, tmp_path / "kept")  # a new file takes the name; the old one is not written into
    write_text(path, "é\n")
    assert path.read_bytes() == "é\n".encode()
    assert (tmp_path / "kept").read_text() == "1\n"
    assert [p.name for p in path.parent.iterdir()] == ["file.json"]


def test_a_text_file_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(IsADirectoryError):
        write_text(tmp_path / "file", "1")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
