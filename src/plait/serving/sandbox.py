"""Take from a process what a decoder does not need, so that a file that takes it over gains little.

Linux lets any process give up rights, without root and without a package. There is one step for each of its
mechanisms: limits of resources, Landlock (files) and seccomp (calls of the kernel). Older kernels have fewer
of them, and other systems only the limits: `confine` takes what there is, and returns what it was.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import struct
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path

OPEN_FILES = 32  # more than Python has open itself

# What `prctl` is asked (linux/prctl.h).
SET_DUMPABLE, SET_SECCOMP, SET_NO_NEW_PRIVILEGES = 4, 22, 38
FILTER = 2  # the mode of seccomp

# Folders and files that are still read: libraries that are loaded late, and what they ask of the machine.
READABLE = (
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/lib",
    "/lib64",
    "/usr/share/zoneinfo",
    "/etc/localtime",
    "/etc/ld.so.cache",
    "/proc/cpuinfo",
    "/sys/devices/system/cpu",
    "/dev/null",
    "/dev/urandom",
)

# Landlock's numbers of calls, the same on all machines, and its rights (linux/landlock.h).
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
READ_FILE, READ_FOLDER = 1 << 2, 1 << 3
ALL_BY_VERSION = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
TCP = 0b11  # to bind and to connect, from version 4
SCOPES = 0b11  # abstract sockets and signals of other processes, from version 6

# Calls that are refused: the network, other programs and processes, and parts of the kernel that decoders do
# not need and that have had holes. First x86-64, then 64-bit ARM.
REFUSED_CALLS = {
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201), "accept": (43, 202),
    "accept4": (288, 242), "sendto": (44, 206), "execve": (59, 221), "execveat": (322, 281),
    "fork": (57, None), "vfork": (58, None), "ptrace": (101, 117), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "kill": (62, 129), "tkill": (200, 130), "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    "mount": (165, 40), "umount2": (166, 39), "chroot": (161, 51), "pivot_root": (155, 41),
    "unshare": (272, 97), "setns": (308, 268), "open_by_handle_at": (304, 265), "init_module": (175, 105),
    "finit_module": (313, 273), "kexec_load": (246, 104), "personality": (135, 92), "mknodat": (259, 33),
    "fsopen": (430, 430), "fsmount": (432, 432), "open_tree": (428, 428), "move_mount": (429, 429),
}  # fmt: skip
CLONE, CLONE3 = (56, 220), 435
CLONE_THREAD = 0x10000
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # the column above; how seccomp names it

# The language of seccomp's filters (linux/filter.h, linux/seccomp.h): codes, and where in a call things are.
LOAD, IF_EQUAL, IF_AT_LEAST, IF_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, MACHINE, FIRST_ARGUMENT = 0, 4, 16
ALLOW, KILL, REFUSE = 0x7FFF_0000, 0x8000_0000, 0x0005_0000
OTHER_ABI = 0x4000_0000  # numbers from here on are those of x32


def confine(memory: int, open_files: int = OPEN_FILES) -> list[str]:
    """Give up all rights that a decoder does not need, and `memory` bytes beyond those now mapped.

    Returns the names of what is in force. The process must have one thread: others would keep their rights.
    """
    in_force = ["limits"]
    _limit(memory, open_files)
    if not sys.platform.startswith("linux"):
        return in_force
    kernel = ctypes.CDLL(None, use_errno=True)

    # Without it, Landlock and seccomp would need root. Nobody may read the memory of the process either.
    if kernel.prctl(SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0:
        in_force.append("no new privileges")
    if kernel.prctl(SET_DUMPABLE, 0, 0, 0, 0) == 0:
        in_force.append("not dumpable")
    if _allow_files(kernel, _readable()):
        in_force.append("landlock")
    if _refuse_calls(kernel):
        in_force.append("seccomp")
    return in_force


def _limit(memory: int, open_files: int) -> None:
    """Limit the memory, the files that are open, and the size of files that are written."""
    mapped = _mapped_memory()
    limits = [(resource.RLIMIT_NOFILE, open_files), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)]
    if mapped is not None:
        limits.append((resource.RLIMIT_AS, mapped + memory))
    for kind, most in limits:
        resource.setrlimit(kind, (most, most))


def _mapped_memory() -> int | None:
    """Return how many bytes this process has mapped; None where the system does not say.

    Libraries map gigabytes of addresses, and use few of them.
    """
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return None
    return pages * resource.getpagesize()


def _readable() -> list[str]:
    """Return where libraries lie. Other folders that Python looks into may hold anything."""
    places = {*READABLE, sys.prefix, sys.base_prefix, *sysconfig.get_paths().values()}
    for place in sys.path:
        if any(Path(place).glob("*.dist-info")):  # packages were installed there
            places.add(os.path.abspath(place))
    for name, module in list(sys.modules.items()):
        if "." not in name:
            places.update(map(os.path.abspath, getattr(module, "__path__", ())))
    return sorted(place for place in places if os.path.exists(place))


def _allow_files(kernel: ctypes.CDLL, places: Iterable[str]) -> bool:
    """Let this process only read, and only below some places. Returns whether the kernel can do that."""
    version = kernel.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    if version < 1:
        return False
    rights = max(of_version for least, of_version in ALL_BY_VERSION.items() if version >= least)
    ruleset = struct.pack("=QQQ", rights, TCP if version >= 4 else 0, SCOPES if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    rules = kernel.syscall(CREATE_RULESET, ruleset, ctypes.c_size_t(size), ctypes.c_uint32(0))
    if rules < 0:
        return False
    try:
        for place in places:
            _allow_reading(kernel, rules, place)
        return bool(kernel.syscall(RESTRICT_SELF, rules, ctypes.c_uint32(0)) == 0)
    finally:
        os.close(rules)


def _allow_reading(kernel: ctypes.CDLL, rules: int, place: str) -> None:
    """Add a rule for a folder and what is below it, or for a file. One that fails leaves less allowed."""
    rights = READ_FILE | READ_FOLDER if os.path.isdir(place) else READ_FILE
    try:
        handle = os.open(place, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        kernel.syscall(ADD_RULE, rules, 1, struct.pack("=Qi", rights, handle), ctypes.c_uint32(0))
    finally:
        os.close(handle)


def _refuse_calls(kernel: ctypes.CDLL) -> bool:
    """Refuse calls of the kernel that no decoder needs. Returns whether the kernel can do that."""
    if platform.machine() not in MACHINES or sys.maxsize < 1 << 32:
        return False
    program = call_filter(*MACHINES[platform.machine()], REFUSED_CALLS)
    code = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("HP", len(program) // 8, ctypes.addressof(code))
    return bool(kernel.prctl(SET_SECCOMP, FILTER, head, 0, 0) == 0)


def call_filter(column: int, machine: int, refused: Mapping[str, tuple[int | None, ...]]) -> bytes:
    """Return the program that the kernel runs for each call: what is not refused is allowed.

    A call by another machine's numbers ends the process. New threads are allowed, and new processes are not.
    """
    numbers = [by_machine[column] for by_machine in refused.values()]
    refuse = REFUSE | errno.EPERM

    # One step is (code, steps to skip if true, if not, operand).
    steps = [(LOAD, 0, 0, MACHINE), (IF_EQUAL, 1, 0, machine), (RETURN, 0, 0, KILL), (LOAD, 0, 0, NUMBER)]
    steps += [(IF_AT_LEAST, 0, 1, OTHER_ABI), (RETURN, 0, 0, KILL)]
    for number in numbers:
        if number is not None:
            steps += [(IF_EQUAL, 0, 1, number), (RETURN, 0, 0, refuse)]

    # The arguments of clone3 lie in memory that filters cannot read. Programs take clone where it is missing.
    steps += [(IF_EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, REFUSE | errno.ENOSYS)]
    steps += [(IF_EQUAL, 0, 3, CLONE[column]), (LOAD, 0, 0, FIRST_ARGUMENT)]
    steps += [(IF_ANY_BIT, 1, 0, CLONE_THREAD), (RETURN, 0, 0, refuse), (RETURN, 0, 0, ALLOW)]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)
