"""The system calls that a Python program may make, by number, for x86_64 and aarch64.

What is not listed fails with EPERM (calls that existed when this was written) or ENOSYS (later ones, so that the C
library falls back to what it used before).
"""

from __future__ import annotations

from .syscalls import MACHINE

LAST_KNOWN = 448  # process_mrelease; 435 and above have one number on all machines

_BOTH = {  # name: (x86_64, aarch64)
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "fstat": (5, 80), "lseek": (8, 62), "mmap": (9, 222),
    "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214), "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "pread64": (17, 67), "pwrite64": (18, 68),
    "readv": (19, 65), "writev": (20, 66), "sched_yield": (24, 124), "mremap": (25, 216), "msync": (26, 227),
    "mincore": (27, 232), "madvise": (28, 233), "dup": (32, 23), "nanosleep": (35, 101), "getitimer": (36, 102),
    "setitimer": (38, 103), "getpid": (39, 172), "sendfile": (40, 71), "sendto": (44, 206), "recvfrom": (45, 207),
    "shutdown": (48, 210), "exit": (60, 93), "wait4": (61, 260), "uname": (63, 160),
    "flock": (73, 32), "fsync": (74, 82), "fdatasync": (75, 83), "truncate": (76, 45), "ftruncate": (77, 46),
    "getcwd": (79, 17), "chdir": (80, 49), "fchdir": (81, 50), "fchmod": (91, 52), "umask": (95, 166),
    "gettimeofday": (96, 169), "getrlimit": (97, 163), "getrusage": (98, 165), "sysinfo": (99, 179),
    "times": (100, 153), "getuid": (102, 174), "getgid": (104, 176), "geteuid": (107, 175), "getegid": (108, 177),
    "getppid": (110, 173), "getgroups": (115, 158), "getresuid": (118, 148), "getresgid": (120, 150),
    "getpgid": (121, 155), "getsid": (124, 156), "rt_sigpending": (127, 136), "rt_sigtimedwait": (128, 137),
    "rt_sigsuspend": (130, 133), "sigaltstack": (131, 132), "statfs": (137, 43), "fstatfs": (138, 44),
    "getpriority": (140, 141), "sched_getparam": (143, 121), "sched_getscheduler": (145, 120),
    "sched_get_priority_max": (146, 125), "sched_get_priority_min": (147, 126), "setrlimit": (160, 164),
    "gettid": (186, 178), "readahead": (187, 213), "futex": (202, 98), "sched_getaffinity": (204, 123),
    "getdents64": (217, 61), "set_tid_address": (218, 96), "restart_syscall": (219, 128), "fadvise64": (221, 223),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114), "clock_nanosleep": (230, 115), "exit_group": (231, 94), "epoll_ctl": (233, 21),
    "waitid": (247, 95), "openat": (257, 56), "mkdirat": (258, 34), "newfstatat": (262, 79), "unlinkat": (263, 35),
    "renameat": (264, 38), "linkat": (265, 37), "symlinkat": (266, 36), "readlinkat": (267, 78),
    "fchmodat": (268, 53), "faccessat": (269, 48), "pselect6": (270, 72), "ppoll": (271, 73),
    "set_robust_list": (273, 99), "get_robust_list": (274, 100), "utimensat": (280, 88), "epoll_pwait": (281, 22),
    "timerfd_create": (283, 85), "fallocate": (285, 47), "timerfd_settime": (286, 86), "timerfd_gettime": (287, 87),
    "eventfd2": (290, 19), "epoll_create1": (291, 20), "dup3": (292, 24), "pipe2": (293, 59), "preadv": (295, 69),
    "pwritev": (296, 70), "renameat2": (316, 276), "getrandom": (318, 278), "membarrier": (324, 283),
    "copy_file_range": (326, 285), "preadv2": (327, 286), "pwritev2": (328, 287), "statx": (332, 291),
    "rseq": (334, 293), "close_range": (436, 436), "faccessat2": (439, 439), "epoll_pwait2": (441, 441),
}  # fmt: skip

_X86_ONLY = {
    "open": 2, "stat": 4, "lstat": 6, "poll": 7, "access": 21, "pipe": 22, "select": 23, "dup2": 33, "pause": 34,
    "alarm": 37, "getdents": 78, "rename": 82, "mkdir": 83, "rmdir": 84, "creat": 85, "link": 86, "unlink": 87,
    "symlink": 88, "readlink": 89, "chmod": 90, "getpgrp": 111, "utime": 132, "arch_prctl": 158, "time": 201,
    "epoll_create": 213, "epoll_wait": 232, "utimes": 235, "futimesat": 261, "eventfd": 284,
}  # fmt: skip

_CHECKED = {  # allowed with some arguments only: the filter says which
    "ioctl": (16, 29), "socketpair": (53, 199), "clone": (56, 220), "kill": (62, 129), "fcntl": (72, 25),
    "prctl": (157, 167), "tkill": (200, 130), "tgkill": (234, 131), "prlimit64": (302, 261),
}  # fmt: skip

_column = 0 if MACHINE == "x86_64" else 1
_NUMBERS = {name: numbers[_column] for name, numbers in _BOTH.items()} | (_X86_ONLY if _column == 0 else {})
ALLOWED = set(_NUMBERS.values())
OF_FILES = {
    _NUMBERS[name]
    for name in ("truncate", "chmod", "fchmod", "fchmodat", "utime", "utimes", "futimesat", "utimensat")
    if name in _NUMBERS
}
"""What changes a file by its name or owner alone, which Landlock does not see (``truncate``: not before Linux 6.2)."""

CHECKED = {numbers[_column]: name for name, numbers in _CHECKED.items()}
CLONE3 = 435
