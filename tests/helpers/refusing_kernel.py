"""Has the kernel refuse some system calls to this process and its children from now on, as sandboxes do.

    refuse(errno.ENOSYS, "fadvise64", "madvise")

A filter of seccomp's, which the kernel itself obeys: nothing of Python is replaced. It cannot be taken back, so it is
for processes of their own.
"""
import ctypes
import platform
import struct

NUMBERS = {  # of asm/unistd.h
    "x86_64": {"mmap": 9, "madvise": 28, "getrusage": 98, "sysinfo": 99, "prctl": 157, "sched_getaffinity": 204,
               "fadvise64": 221, "memfd_create": 319, "preadv2": 327},
    "aarch64": {"mmap": 222, "madvise": 233, "getrusage": 165, "sysinfo": 179, "prctl": 167, "sched_getaffinity": 123,
                "fadvise64": 223, "memfd_create": 279, "preadv2": 286},
}
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2  # of linux/prctl.h and linux/seccomp.h
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # of linux/filter.h, as instructions
_NUMBER, _FLAGS = 0, 40  # where struct seccomp_data has the call's number, and the lower half of its fourth argument
_MAP_SHARED = 1


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def refuse(error: int, *calls: str) -> None:
    """Raises OSError where there is no seccomp, and KeyError on another processor.

    "mmap" is refused for shared maps alone, as some file systems refuse them: processes need the others.
    """
    numbers = NUMBERS[platform.machine()]
    program = b""
    for call in calls:
        look = [(_LOAD, 0, 0, _NUMBER), (_EQUAL, 0, 3 if call == "mmap" else 1, numbers[call])]
        if call == "mmap":
            look += [(_LOAD, 0, 0, _FLAGS), (_EQUAL, 0, 1, _MAP_SHARED)]
        program += b"".join(struct.pack("=HBBI", *step) for step in [*look, (_RETURN, 0, 0, _ERRNO | error)])
    program += struct.pack("=HBBI", _RETURN, 0, 0, _ALLOW)
    libc = ctypes.CDLL(None, use_errno=True)
    structure = _Program(len(program) // 8, program)
    for arguments in ((_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
                      (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(structure), 0, 0)):
        if libc.prctl(*arguments):
            raise OSError(ctypes.get_errno(), "the kernel takes no filter of system calls")
