"""inspect's logs as archives (``.eval``): a zip file with one JSON text a sample, ``samples/<id>_epoch_<n>.json``.

New versions of inspect compress with Zstandard (method 93), which Python's zipfile reads from 3.14 on.
"""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from openrlhf_maxk.evaluation.samples.problem_set import ProblemSetError

_ZSTANDARD = 93
_LOCAL_HEADER = struct.Struct("<26xHH")  # before a member's data; ends in the lengths of its name and extra field


def sample_names(path: Path) -> list[str]:
    """The members that are samples; of a sample written twice, one name.

    A sample that was cut into pieces stands in a folder of its own, whose ``sample.json`` has the answer.

    Raises:
        ProblemSetError: the archive is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = dict.fromkeys(archive.namelist())
    except (zipfile.BadZipFile, OSError) as error:
        raise ProblemSetError(f"{path} is not a whole zip archive: {error}") from None
    pieces = {name.removesuffix("/sample.json") for name in names if name.endswith("/sample.json")}
    return [
        name
        for name in names
        if name.startswith("samples/")
        and name.endswith(".json")
        and (name.endswith("/sample.json") or not any(name.startswith(f"{piece}/") for piece in pieces))
    ]


def samples(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The samples, one in memory at a time."""
    names = sample_names(path)
    with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
        for name in names:
            where = f"{path}, {name}"
            try:
                sample = json.loads(_member(file, archive, name))
            except (ValueError, OSError, zipfile.BadZipFile, zlib.error, RecursionError) as error:
                raise ProblemSetError(f"{where} cannot be read: {error}") from None
            if not isinstance(sample, dict):
                raise ProblemSetError(f"{where} must be a JSON object, not {type(sample).__name__}")
            yield where, sample


def _member(file: Any, archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)  # the last one of that name
    if info.compress_type != _ZSTANDARD:
        try:
            return archive.read(info)
        except NotImplementedError as error:
            raise ValueError(str(error)) from None
    import pyarrow as pa

    file.seek(info.header_offset)
    lengths = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    file.seek(sum(lengths), 1)
    with pa.input_stream(pa.BufferReader(file.read(info.compress_size)), compression="zstd") as stream:
        data = stream.read()
    if zlib.crc32(data) != info.CRC:
        raise ValueError("it is damaged: its checksum is not the recorded one")
    return data
