"""The system call filter, interpreted instruction by instruction, for both machines."""

from __future__ import annotations

import importlib
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrlhf_maxk.rewards.sandbox.confinement import seccomp, syscall_table, syscalls

ALLOW, EPERM, ENOSYS, ENOTTY, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x00050019, 0x80000000
ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
PROCESS = 4321


@pytest.fixture(params=ARCHITECTURE)
def machine(request: pytest.FixtureRequest) -> Iterator[str]:
    """The modules, as they would be on that machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(syscalls, "MACHINE", request.param)
        _reload()
        yield request.param
    _reload()


def _reload() -> None:
    importlib.reload(syscall_table)
    importlib.reload(seccomp)


def verdict(machine: str, number: int, *arguments: int, architecture: int | None = None) -> int:
    """What the filter says of a call: the BPF program, run on a seccomp_data."""
    code = seccomp.build(PROCESS)
    words = [struct.unpack_from("HBBI", code, at) for at in range(0, len(code), 8)]
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("=IIQ6Q", number, architecture or ARCHITECTURE[machine], 0, *[a % 2**64 for a in padded])
    accumulator, at = 0, 0
    while True:
        operation, if_true, if_false, operand = words[at]
        at += 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, operand)
        elif operation == 0x15:
            at += if_true if accumulator == operand else if_false
        elif operation == 0x35:
            at += if_true if accumulator >= operand else if_false
        elif operation == 0x54:
            accumulator &= operand
        elif operation == 0x05:
            at += operand
        elif operation == 0x06:
            return operand
        else:
            raise AssertionError(f"unknown operation {operation:#x}")


def number_of(machine: str, name: str) -> int:
    return {numbers: number for number, numbers in syscall_table.CHECKED.items()}[name]


def test_every_number_has_the_fate_of_the_table(machine: str) -> None:
    for number in range(600):
        if number in syscall_table.CHECKED:
            continue
        if number in syscall_table.ALLOWED:
            expected = ALLOW
        elif number == 435 or number > syscall_table.LAST_KNOWN:
            expected = ENOSYS
        else:
            expected = EPERM
        assert verdict(machine, number) == expected, number


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("clone", (0x003D0F00,), ALLOW),  # what pthread_create asks for
        ("clone", (0x01200011,), EPERM),  # fork
        ("clone", (17,), EPERM),
        ("clone", (0x00010000 | 0x10000000,), EPERM),
        ("clone", (0x00010000 | 0x00020000,), EPERM),
        ("clone", (0x40000000 | 17,), EPERM),
        ("kill", (PROCESS, 15), ALLOW),
        ("kill", (0, 15), ALLOW),
        ("kill", (-PROCESS, 15), ALLOW),
        ("kill", (PROCESS, 9), EPERM),  # a SIGKILL is always somebody else's
        ("kill", (0, 9), EPERM),
        ("kill", (-PROCESS, 9), EPERM),
        ("kill", (-1, 9), EPERM),
        ("kill", (1, 9), EPERM),
        ("kill", (PROCESS + 1, 9), EPERM),
        ("tgkill", (PROCESS, 5, 15), ALLOW),
        ("tgkill", (PROCESS, 5, 9), EPERM),
        ("tgkill", (1, 1, 9), EPERM),
        ("tkill", (PROCESS, 15), ALLOW),
        ("tkill", (PROCESS, 9), EPERM),
        ("tkill", (1, 9), EPERM),
        ("fcntl", (3, 0), ALLOW),  # F_DUPFD
        ("fcntl", (3, 1030), ALLOW),  # F_DUPFD_CLOEXEC
        ("fcntl", (3, 4, 0o4000), ALLOW),  # F_SETFL, O_NONBLOCK
        ("fcntl", (3, 4, 0o4000 | 0x2000), EPERM),  # O_ASYNC
        ("fcntl", (3, 6), ALLOW),  # F_SETLK
        ("fcntl", (3, 8, 1), EPERM),  # F_SETOWN
        ("fcntl", (3, 10, 9), EPERM),  # F_SETSIG
        ("fcntl", (3, 15), EPERM),  # F_SETOWN_EX
        ("fcntl", (3, 1024), EPERM),  # F_SETLEASE
        ("fcntl", (3, 1026), EPERM),  # F_NOTIFY
        ("fcntl", (3, 1031, 2**20), EPERM),  # F_SETPIPE_SZ
        ("prlimit64", (0, 0), ALLOW),
        ("prlimit64", (PROCESS, 0), ALLOW),
        ("prlimit64", (1, 0), EPERM),
        ("prctl", (15,), ALLOW),
        ("prctl", (1, 0), EPERM),
        ("prctl", (4, 1), EPERM),
        ("prctl", (22, 2), EPERM),
        ("ioctl", (0, 0x5401), ALLOW),
        ("ioctl", (0, 0x5412), ENOTTY),  # TIOCSTI
        ("ioctl", (0, 0x541C), ENOTTY),  # TIOCLINUX
        ("socketpair", (1, 1), ALLOW),
        ("socketpair", (1, 1 | 0o2000000 | 0o4000), ALLOW),
        ("socketpair", (1, 2), EPERM),
        ("socketpair", (2, 1), EPERM),
    ],
)
def test_checked_calls(machine: str, name: str, arguments: tuple[int, ...], expected: int) -> None:
    assert verdict(machine, number_of(machine, name), *arguments) == expected


def test_other_architectures_are_killed(machine: str) -> None:
    assert verdict(machine, 0, architecture=0x40000003) == KILL  # 32-bit calls have other numbers


def test_x32_numbers_are_unknown(machine: str) -> None:
    assert verdict(machine, 0x40000000) == ENOSYS


def test_search_is_short(machine: str) -> None:
    """The kernel tries every number when a filter is installed, once for each program."""
    code = seccomp.build(PROCESS)
    assert len(code) // 8 < 600


@pytest.mark.parametrize("machine_name", ARCHITECTURE)
def test_numbers_agree_with_the_kernels_headers(machine_name: str) -> None:
    header = {
        "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        "aarch64": Path("/usr/include/asm-generic/unistd.h"),
    }[machine_name]
    if not header.exists():
        pytest.skip(f"{header} is not installed")
    other_names = {"newfstatat": "fstatat", "fadvise64": "fadvise64"}
    numbers: dict[str, int] = {}
    for line in header.read_text().splitlines():
        words = line.split()
        if len(words) >= 3 and words[0] == "#define" and words[1].startswith("__NR") and words[2].isdigit():
            numbers.setdefault(words[1].removeprefix("__NR3264_").removeprefix("__NR_"), int(words[2]))
    column = 0 if machine_name == "x86_64" else 1
    for name, pair in {**syscall_table._BOTH, **syscall_table._CHECKED}.items():
        found = numbers.get(name, numbers.get(other_names.get(name, name)))
        assert pair[column] == found, name
    if column == 0:
        for name, number in syscall_table._X86_ONLY.items():
            assert number == numbers[name], name
