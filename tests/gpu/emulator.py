"""A fake CuPy: arrays of the guard, and kernels that the host's C++ compiler has compiled.

`EmulatedBackend` looks like a CUDA device to the code that launches kernels.  Streams can be
captured into graphs; the device forbids allocations and transfers while one is.
"""

import ctypes
import hashlib
import shutil
import subprocess
import tempfile
import threading
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.gpu.guard import GuardArray, GuardBackend

_ONE_AT_A_TIME = threading.Lock()
"""The emulated device keeps the state of its blocks in static memory."""

SHIM = Path(__file__).with_name("emulator.h")
COMPILER = shutil.which("g++") or shutil.which("clang++")

needs_compiler = pytest.mark.skipif(
    COMPILER is None, reason="the kernels are emulated by a C++ compiler, and there is none"
)


@cache
def _folder():
    return tempfile.TemporaryDirectory(prefix="pyptyx_emulation_")


@cache
def host_library(source):
    """CUDA source as a library of the host."""
    name = hashlib.sha256(source.encode()).hexdigest()[:16]
    code = Path(_folder().name, f"{name}.cpp")
    library = code.with_suffix(".so")
    code.write_text(f'#include "{SHIM.as_posix()}"\n{source}')
    options = ["-std=c++17", "-O1", "-w", "-shared", "-fPIC"]
    subprocess.run([COMPILER, *options, str(code), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def launch(library, name, grid, threads, argument, number):
    """Run one kernel with the address of an array and an integer."""
    kernel = ctypes.cast(getattr(library, name), ctypes.c_void_p)
    address = ctypes.c_void_p(argument.ctypes.data)
    with _ONE_AT_A_TIME:
        failed = library.emulate(kernel, (ctypes.c_uint * 3)(*grid), threads, address, int(number))
    assert not failed, "threads of a block missed a barrier"


class Kernel:
    """One kernel; launching it runs it, or records it while its stream is captured."""

    def __init__(self, library, name, stream):
        self._library = library
        self._name = name
        self._stream = stream

    def __call__(self, grid, block, args):
        task, number = args
        assert isinstance(task, GuardArray), "a host array was given to a kernel"
        assert isinstance(number, np.int32)
        assert len(grid) == 3
        assert all(0 < g for g in grid)
        assert max(grid[1:]) < 2**16
        assert block[1:] == (1, 1)
        assert 0 < block[0] <= 1024
        arguments = (self._library, self._name, grid, block[0], task, number)
        if self._stream.recorded is None:
            launch(*arguments)
        else:
            self._stream.recorded.append(arguments)


class Graph:
    """Recorded launches."""

    def __init__(self, launches):
        self.launches = launches
        self.replays = 0

    def launch(self, stream):
        assert stream.recorded is None
        self.replays += 1
        for arguments in self.launches:
            launch(*arguments)


class Stream:
    """A stream that can be captured."""

    def __init__(self):
        self.recorded = None
        self.graphs = []

    def begin_capture(self):
        assert self.recorded is None
        self.recorded = []

    def end_capture(self):
        launches, self.recorded = self.recorded, None
        self.graphs.append(Graph(launches))
        return self.graphs[-1]


class Module:
    """A compiled source."""

    def __init__(self, library, stream):
        self._library = library
        self._stream = stream

    def get_function(self, name):
        return Kernel(self._library, name, self._stream)


class FakeCupy:
    """The functions of CuPy that the evaluator uses."""

    def __init__(self):
        self.stream = Stream()
        self.cuda = self

    def get_current_stream(self):
        return self.stream

    def RawModule(self, code, options):
        assert options == ("--std=c++17",)
        return Module(host_library(code), self.stream)

    def empty(self, shape, dtype):
        """Memory with anything in it: here what spoils every result."""
        out = self.zeros(shape, dtype)
        out.view(np.uint8)[...] = 0xFF
        return out

    def zeros(self, shape, dtype):
        assert self.stream.recorded is None, "memory was allocated inside a captured batch"
        return np.zeros(shape, dtype).view(GuardArray)

    def ascontiguousarray(self, a):
        assert isinstance(a, GuardArray)
        return np.ascontiguousarray(a)


class EmulatedBackend(GuardBackend):
    """A CUDA device made of the fake CuPy."""

    name = "emulated:0"

    def __init__(self):
        super().__init__()
        self.xp = FakeCupy()
        self.fetched = 0

    def to_host(self, a):
        self.fetched += isinstance(a, GuardArray)
        return super().to_host(a)
