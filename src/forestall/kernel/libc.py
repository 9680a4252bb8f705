"""System calls that Python does not offer. Rule: errno comes back as a value."""

from __future__ import annotations

import ctypes
import errno

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.mmap.restype = ctypes.c_void_p

# The same number on every architecture but alpha (558): calls since v5.1 share one table.
_SYS_PROCESS_MADVISE = 440
_SYS_PROCESS_MRELEASE = 448
_PR_SET_NAME = 15
_PR_SET_IO_FLUSHER = 57
_CLONE_NEWNS = 0x00020000
_SWAP_FLAG_PREFER = 0x8000
_SWAP_PRIORITY_MAX = 0x7FFF

_PROT_READ_WRITE = 3
_MAP_PRIVATE_ANONYMOUS = 0x22
"""The same on all architectures but alpha, mips, parisc and xtensa."""
_MAP_FAILED = ctypes.c_void_p(-1).value

MADV_WILLNEED = 3
MADV_DONTNEED = 4
MADV_HUGEPAGE = 14
MADV_POPULATE_WRITE = 23
"""Take the pages now, as if each had been written to. Source: mm/madvise.c, since Linux kernel
commit 4ca9b3859dac ("mm/madvise: introduce MADV_POPULATE_(READ|WRITE) to prefault page tables")
(in v5.14); EINVAL before."""

MCL_CURRENT = 1
MCL_FUTURE = 2
MCL_ONFAULT = 4
"""Lock pages as they are touched: nothing is read in for the sake of the lock."""

NAME_BYTES_MAX = 15


def process_mrelease(pidfd: int) -> int:
    """Free the memory of a dying process in our own time, not in its.

    Source: mm/oom_kill.c, since Linux kernel commit 884a7e5964e0 ("mm: introduce
    process_mrelease system call") (in v5.15).
    Cost: 7 ms (huge pages) to 190 ms (4 KiB pages) for 2 GiB: never call it from the guard.

    Returns: Zero, or errno: ESRCH already gone, EINVAL not dying, EAGAIN try again,
    ENOSYS too old a kernel.
    """
    number = ctypes.c_long(_SYS_PROCESS_MRELEASE)
    return _result(_libc.syscall(number, ctypes.c_long(pidfd), ctypes.c_long(0)))


class _Range(ctypes.Structure):
    # struct iovec.
    _fields_ = (("start", ctypes.c_void_p), ("size_bytes", ctypes.c_size_t))


def process_will_need(pidfd: int, start: int, size_bytes: int) -> int:
    """Have a range of another process's memory read back from swap, or from its file.

    The reads are begun and not waited for, unless the queue of the disk is full.
    Source: mm/madvise.c process_madvise, with this advice since Linux kernel commit
    d5fffc5aff26 ("mm/madvise: add MADV_WILLNEED to process_madvise()") (in v5.15); EINVAL before.

    Returns: Zero, or errno: EPERM without CAP_SYS_NICE and the right to read of it, ENOMEM for
    a range that is not mapped, ESRCH.
    """
    one = _Range(start, size_bytes)
    number = ctypes.c_long(_SYS_PROCESS_MADVISE)
    advice, one_range, no_flags = ctypes.c_int(MADV_WILLNEED), ctypes.c_size_t(1), ctypes.c_uint(0)
    fd = ctypes.c_long(pidfd)
    return _result(_libc.syscall(number, fd, ctypes.byref(one), one_range, advice, no_flags))


def mlockall(flags: int) -> int:
    """Lock our memory: with all three flags it costs none and spares every page fault.

    Returns: Zero, or errno: EPERM without CAP_IPC_LOCK, ENOMEM beyond RLIMIT_MEMLOCK.
    """
    return _result(_libc.mlockall(ctypes.c_int(flags)))


def munlockall() -> int:
    """Undo ``mlockall``; for tests. Returns zero, or errno."""
    return _result(_libc.munlockall())


def map_memory(size_bytes: int) -> int | None:
    """Reserve private memory; returns its address, None when the kernel has none to give."""
    size = ctypes.c_size_t(size_bytes)
    protection, flags = ctypes.c_int(_PROT_READ_WRITE), ctypes.c_int(_MAP_PRIVATE_ANONYMOUS)
    nowhere, no_file, start = ctypes.c_void_p(0), ctypes.c_int(-1), ctypes.c_long(0)
    address = _libc.mmap(nowhere, size, protection, flags, no_file, start)
    return None if address in {None, _MAP_FAILED} else int(address)


def advise(address: int, size_bytes: int, advice: int) -> int:
    """Tell the kernel what is to be done with memory; returns zero, or errno."""
    size = ctypes.c_size_t(size_bytes)
    return _result(_libc.madvise(ctypes.c_void_p(address), size, ctypes.c_int(advice)))


def unmap_memory(address: int, size_bytes: int) -> int:
    """Give memory of ``map_memory`` back. Returns zero, or errno."""
    return _result(_libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(size_bytes)))


def swapoff(path: bytes) -> int:
    """Bring everything in a swap area back into memory, and stop using it.

    Blocks for minutes. A signal ends it with EINTR, and the kernel goes on using the area
    with its old priority. While it runs, the OOM killer takes the caller before anybody else.
    Source: mm/swapfile.c. Returns: Zero, or errno: EPERM without CAP_SYS_ADMIN, EINVAL for
    what is no swap area in use, ENOMEM when it would not fit, EINTR.
    """
    return _result(_libc.swapoff(ctypes.c_char_p(path)))


def swapon(path: bytes, priority: int) -> int:
    """Use a swap area; below zero the kernel gives the next free low priority.

    Source: include/linux/swap.h: SWAP_FLAG_PREFER 0x8000, priority in the low 15 bits.
    Returns: Zero, or errno: EBUSY when it is in use already.
    """
    flags = _SWAP_FLAG_PREFER | min(priority, _SWAP_PRIORITY_MAX) if priority >= 0 else 0
    return _result(_libc.swapon(ctypes.c_char_p(path), ctypes.c_int(flags)))


def setns_mount(fd: int) -> int:
    """Enter the mount namespace that a descriptor of /proc/PID/ns/mnt names.

    Source: kernel/nsproxy.c. Returns: Zero, or errno: EPERM without CAP_SYS_ADMIN and
    CAP_SYS_CHROOT, or where seccomp forbids it.
    """
    return _result(_libc.setns(ctypes.c_int(fd), ctypes.c_int(_CLONE_NEWNS)))


def prctl_set_name(name: bytes) -> int:
    """Set what the kernel calls us in logs; longer names are cut. Returns zero, or errno."""
    if b"\0" in name:
        return errno.EINVAL
    text = ctypes.create_string_buffer(name[:NAME_BYTES_MAX])
    zero = ctypes.c_ulong(0)
    return _result(_libc.prctl(ctypes.c_int(_PR_SET_NAME), text, zero, zero, zero))


def prctl_set_io_flusher() -> int:
    """Have our allocations never wait for a disk: reclaim in our name takes clean pages only.

    Kept over exec and fork. Source: kernel/sys.c, since Linux kernel commit 8d19f1c8e193
    ("prctl: PR_{G,S}ET_IO_FLUSHER to support controlling memory reclaim") (in v5.6).
    Returns: Zero, or errno: EPERM without CAP_SYS_RESOURCE, EINVAL before.
    """
    zero = ctypes.c_ulong(0)
    wanted = ctypes.c_ulong(1)
    return _result(_libc.prctl(ctypes.c_int(_PR_SET_IO_FLUSHER), wanted, zero, zero, zero))


def _result(returned: int) -> int:
    return ctypes.get_errno() if returned == -1 else 0
