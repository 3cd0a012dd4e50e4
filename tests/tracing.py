"""Follow a process through its system calls, and kill it at one of them, as `kill -9` may.

Nothing stands in for what is called: the kernel itself tells of each call that changes a folder.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import resource
import signal
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# What changes a disk: which argument says where, an open file or a path; `at` follows a folder's
# open file. Of each machine the numbers.
_FILE, _PATH, _AT = "file", "path", "at"
_CALLS = {
    "write": (_FILE, 0, 1, 64), "pwrite64": (_FILE, 0, 18, 68), "writev": (_FILE, 0, 20, 66),
    "sendfile": (_FILE, 0, 40, 71), "copy_file_range": (_FILE, 2, 326, 285),
    "fsync": (_FILE, 0, 74, 82), "fdatasync": (_FILE, 0, 75, 83), "ftruncate": (_FILE, 0, 77, 46),
    "fchmod": (_FILE, 0, 91, 52), "truncate": (_PATH, 0, 76, 45), "rename": (_PATH, 1, 82, None),
    "mkdir": (_PATH, 0, 83, None), "rmdir": (_PATH, 0, 84, None), "unlink": (_PATH, 0, 87, None),
    "symlink": (_PATH, 1, 88, None), "chmod": (_PATH, 0, 90, None), "openat": (_AT, 1, 257, 56),
    "mkdirat": (_AT, 1, 258, 34), "unlinkat": (_AT, 1, 263, 35), "renameat": (_AT, 3, 264, 38),
    "symlinkat": (_AT, 2, 266, 36), "fchmodat": (_AT, 1, 268, 53), "utimensat": (_AT, 1, 280, 88),
    "renameat2": (_AT, 3, 316, 276),
}
_MACHINES = {"x86_64": 2, "aarch64": 3}
_TRACE_ME, _SYSCALL, _SET_OPTIONS, _SYSCALL_INFO = 0, 24, 0x4200, 0x420E
# Calls are told apart from signals, threads are followed, and nothing outlives us.
_OPTIONS = 0x1 | 0x8 | 0x100000
_ALL_THREADS = 0x40000000
_ENTRY, _EXIT = 1, 2
_MADE = os.O_CREAT | os.O_TRUNC


@dataclass(frozen=True)
class Kill:
    """At which call of those that change the folder a process is killed, from 0, and when.

    `when` is "before", "after", or "halfway": of what is written, half has arrived.
    """

    call: int
    when: str


@dataclass
class Followed:
    """What a process did: its calls by name, whether it was killed, and what it answered."""

    calls: list[str] = field(default_factory=list)
    killed: bool = False
    answer: Any = None


def possible() -> bool:
    """Say whether this system lets us follow our own processes."""
    if platform.system() != "Linux" or platform.machine() not in _MACHINES:
        return False
    return follow(lambda: "yes", Path("/nowhere")).answer == "yes"


def follow(work: Callable[[], Any], folder: Path, kill: Kill | None = None) -> Followed:
    """Do the work in a process of its own; it answers with what JSON can hold."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if _trace(_TRACE_ME, 0) == 0:
                os.kill(os.getpid(), signal.SIGSTOP)
                os.write(write, json.dumps(work()).encode())
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whoever follows is told
            os.write(write, json.dumps({"raised": repr(error)}).encode())
        os._exit(0)
    os.close(write)
    followed = _Tracer(child, os.path.realpath(folder), kill).run()
    with os.fdopen(read) as pipe:
        followed.answer = json.loads(pipe.read() or "null")
    return followed


class _Tracer:
    def __init__(self, child: int, folder: str, kill: Kill | None) -> None:
        self._child = child
        self._folder = folder
        self._kill = kill
        self._doomed = 0  # the thread at whose return from its call all ends
        column = _MACHINES[platform.machine()]
        self._names = {row[column]: name for name, row in _CALLS.items()}
        self._followed = Followed()
        self._info = ctypes.create_string_buffer(128)

    def run(self) -> Followed:
        os.waitpid(self._child, 0)
        if _trace(_SET_OPTIONS, self._child, 0, _OPTIONS) == 0:
            _trace(_SYSCALL, self._child)
        while True:
            try:
                thread, status = os.waitpid(-1, _ALL_THREADS)
            except ChildProcessError:
                return self._followed
            if os.WIFSTOPPED(status):
                signal_number = os.WSTOPSIG(status)
                if signal_number == signal.SIGTRAP | 0x80:
                    self._look(thread)
                    signal_number = 0
                elif signal_number in (signal.SIGTRAP, signal.SIGSTOP):  # of new threads
                    signal_number = 0
                _trace(_SYSCALL, thread, 0, signal_number)
            elif thread == self._child:
                self._followed.killed = os.WIFSIGNALED(status)

    def _look(self, thread: int) -> None:
        """Look at a thread that stands before a call, or behind one."""
        _trace(_SYSCALL_INFO, thread, len(self._info), ctypes.addressof(self._info))
        kind, number, *given = struct.unpack_from("<B23x7Q", self._info.raw)
        if kind == _EXIT and thread == self._doomed:
            os.kill(self._child, signal.SIGKILL)
        name = self._names.get(number)
        if kind != _ENTRY or name is None or not self._concerns(name, given):
            return
        self._followed.calls.append(name)
        if self._kill is None or len(self._followed.calls) - 1 != self._kill.call:
            return
        if self._kill.when == "before":
            os.kill(self._child, signal.SIGKILL)
            return
        self._doomed = thread
        if self._kill.when == "halfway":
            # The kernel writes up to the limit, which stands in the middle of what is to come.
            end = self._opened(given[0]).stat().st_size + given[2] // 2
            _, hard = resource.prlimit(self._child, resource.RLIMIT_FSIZE)
            resource.prlimit(self._child, resource.RLIMIT_FSIZE, (end, hard))

    def _concerns(self, name: str, given: list[int]) -> bool:
        """Say whether a call changes something in the folder."""
        kind, place, *_ = _CALLS[name]
        if name == "openat" and not given[2] & _MADE:
            return False
        where = Path()
        if kind != _FILE and given[place]:
            with Path(f"/proc/{self._child}/mem").open("rb", 0) as memory:
                memory.seek(given[place])
                where = Path(os.fsdecode(memory.read(4096).partition(b"\0")[0]))
        if not where.is_absolute():  # below an open folder, or that itself
            try:
                opened = self._opened(given[place if kind == _FILE else place - 1])
                where = opened.readlink() / where
            except OSError:
                return False
        return where.is_relative_to(self._folder)

    def _opened(self, number: int) -> Path:
        return Path(f"/proc/{self._child}/fd/{number}")


def _trace(request: int, thread: int, address: int = 0, data: int = 0) -> int:
    return int(_libc.ptrace(request, thread, address, data))


_libc = ctypes.CDLL(None, use_errno=True)
if hasattr(_libc, "ptrace"):
    _libc.ptrace.restype = ctypes.c_long
    _libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
