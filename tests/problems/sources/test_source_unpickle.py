"""Packed tests from strangers: what is text is opened, everything else is refused, and nothing is ever run."""

from __future__ import annotations

import base64
import contextlib
import copyreg
import json
import os
import pickle
import resource
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrlhf_maxk.problems.sources.reading.unpickle import unpack
from openrlhf_maxk.problems.sources.source import Rejected

from .originals import packed

LIMIT = 10**6


def wrap(pickled: bytes) -> str:
    return base64.b64encode(zlib.compress(pickled)).decode()


class Runs:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@given(st.lists(st.dictionaries(st.text(max_size=5), st.text()), max_size=5))
def test_opens_text(cases: list[dict[str, str]]) -> None:
    assert json.loads(unpack(packed(cases), LIMIT)) == cases


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_opens_text_of_every_protocol(protocol: int) -> None:
    assert unpack(wrap(pickle.dumps("żółw [1]", protocol)), LIMIT) == "żółw [1]"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_runs_nothing(tmp_path: Path, protocol: int) -> None:
    with pytest.raises(Rejected) as refused:
        unpack(wrap(pickle.dumps(Runs(tmp_path / "owned"), protocol)), LIMIT)
    assert refused.value.reason == "pickle_names_code"
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "code",
    [
        b"cos\nsystem\n(S'true'\ntR.",  # GLOBAL
        b"(S'true'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'true'\no.",  # OBJ
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",  # STACK_GLOBAL
        b"Pid\n.",  # PERSID
        b"S'id'\nQ.",  # BINPERSID
        b"cbuiltins\ngetattr\n.",
    ],
)
def test_refuses_every_way_to_name_code(code: bytes) -> None:
    with pytest.raises(Rejected) as refused:
        unpack(wrap(code), LIMIT)
    assert refused.value.reason == "pickle_names_code"


def test_refuses_extension_codes() -> None:
    copyreg.add_extension("os", "system", 0x7F)
    try:
        with pytest.raises(Rejected) as refused:
            unpack(wrap(b"\x80\x02\x82\x7f."), LIMIT)
    finally:
        copyreg.remove_extension("os", "system", 0x7F)
    assert refused.value.reason == "pickle_names_code"


def memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (base64.b64encode(zlib.compress(bytes(2 * 10**8))).decode(), "unpacks_too_large"),
        (wrap(b"\x8c\x01ar" + struct.pack("<I", 2**31) + b"."), "bad_pickle"),  # a memo slot of 32 GB
        (wrap(b"\x8c\x01ap4000000000\n."), "bad_pickle"),
        (wrap(b"N" * 900_000 + b"."), "bad_pickle"),
        (wrap(b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"a."), "bad_pickle"),  # a text of a terabyte
        (wrap(b"\x80\x05\x96" + struct.pack("<Q", 2**34) + b"a."), "bad_pickle"),  # bytes of 16 GB
        (wrap(b"(" * 10**5 + b"l." * 10), "bad_pickle"),
    ],
)
def test_bombs_take_no_memory(data: str, reason: str) -> None:
    before = memory()
    with pytest.raises(Rejected) as refused:
        unpack(data, LIMIT)
    assert refused.value.reason == reason
    assert memory() - before < 100 * 1024


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("§", "bad_base64"),
        ("abc", "bad_base64"),
        (base64.b64encode(b"not zlib").decode(), "bad_zlib"),
        (base64.b64encode(zlib.compress(pickle.dumps("x" * 500))[:-9]).decode(), "bad_zlib"),
        (base64.b64encode(zlib.compress(pickle.dumps("x")) + b"more").decode(), "bad_zlib"),
        (wrap(b""), "bad_pickle"),
        (wrap(pickle.dumps(["text"])), "bad_pickle"),
        (wrap(pickle.dumps(12)), "bad_pickle"),
        (wrap(pickle.dumps(b"\xff")), "bad_pickle"),
        (wrap(pickle.dumps("text")[:-1]), "bad_pickle"),
    ],
)
def test_names_the_step_that_failed(data: str, reason: str) -> None:
    with pytest.raises(Rejected) as refused:
        unpack(data, LIMIT)
    assert refused.value.reason == reason


@given(st.binary(max_size=60))
def test_any_bytes_are_text_or_refused(data: bytes) -> None:
    for text in (wrap(data), base64.b64encode(data).decode(), data.decode("latin-1")):
        with contextlib.suppress(Rejected):
            assert isinstance(unpack(text, LIMIT), str)


@given(st.data())
def test_damaged_packing_is_text_or_refused(data: st.DataObject) -> None:
    pickled = bytearray(pickle.dumps('[{"input": "1"}]'))
    for _ in range(data.draw(st.integers(1, 3))):
        pickled[data.draw(st.integers(0, len(pickled) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Rejected):
        assert isinstance(unpack(wrap(bytes(pickled)), LIMIT), str)
