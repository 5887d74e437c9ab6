"""Opening packed tests (base64, zlib, pickle) that strangers made, without running or inflating anything.

A pickle can name any class or function and call it. Tests are plain text, which needs none: every name is refused.
"""

from __future__ import annotations

import base64
import binascii
import io
import pickle
import pickletools
import zlib
from typing import Any, NoReturn

from openrlhf_maxk.problems.sources.source import Rejected

MAX_OPCODES = 100  # a pickled text has six
MEMO_OPCODES = ("PUT", "BINPUT", "LONG_BINPUT")


class TextUnpickler(pickle.Unpickler):
    """Loads numbers, text and containers of them; refuses every class, function and persistent object."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise Rejected("pickle_names_code", f"{module[:100]}.{name[:100]}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise Rejected("pickle_names_code", "a persistent object")


def unpack(packed: str, max_bytes: int) -> str:
    """The text in base64 of zlib of a pickle.

    Args:
        max_bytes: refuse what unpacks to more.
    Raises:
        Rejected: "bad_base64", "bad_zlib", "bad_pickle", "pickle_names_code", "unpacks_too_large".
    """
    try:
        compressed = base64.b64decode(packed, validate=True)
    except (binascii.Error, ValueError):
        raise Rejected("bad_base64") from None
    pickled = _inflate(compressed, max_bytes)
    try:
        _check_opcodes(pickled)
        value = TextUnpickler(io.BytesIO(pickled)).load()
    except Rejected:
        raise
    except Exception as e:  # a pickle can fail with any exception there is
        raise Rejected("bad_pickle", type(e).__name__) from None
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise Rejected("bad_pickle", "bytes that are not UTF-8") from None
    if not isinstance(value, str):
        raise Rejected("bad_pickle", f"expected text, found {type(value).__name__}")
    return value


def _check_opcodes(pickled: bytes) -> None:
    """Refuse what would keep the unpickler busy or fill memory (a memo slot of 2**31 takes 32 GB) before it runs."""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(pickled), start=1):
        if count > MAX_OPCODES:
            raise Rejected("bad_pickle", "more than one text")
        if opcode.name in MEMO_OPCODES and int(argument or 0) > MAX_OPCODES:
            raise Rejected("bad_pickle", "a memo slot out of range")


def _inflate(compressed: bytes, max_bytes: int) -> bytes:
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(compressed, max_bytes + 1)
    except zlib.error:
        raise Rejected("bad_zlib", "not zlib data") from None
    if len(data) > max_bytes:
        raise Rejected("unpacks_too_large", f"more than {max_bytes} bytes")
    if not inflater.eof:
        raise Rejected("bad_zlib", "cut short")
    if inflater.unused_data:
        raise Rejected("bad_zlib", "bytes after the end")
    return data
