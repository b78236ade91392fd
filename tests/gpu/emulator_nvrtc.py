"""NVRTC without a GPU: from CuPy where it is installed, else from the wheel nvidia-cuda-nvrtc."""

import ctypes
import importlib
import importlib.util
import re
from functools import cache
from pathlib import Path

import pytest

REPORT = re.compile(
    r"Compiling entry function '(?P<kernel>\w+)'.*?(?P<stores>\d+) bytes spill stores.*?"
    r"Used (?P<registers>\d+) registers(?:[^\n]*?(?P<shared>\d+) bytes smem)?",
    re.S,
)


@cache
def library():
    """The shared library of the wheel, or None."""
    spec = importlib.util.find_spec("nvidia")
    roots = [] if spec is None else [Path(p) for p in spec.submodule_search_locations]
    names = [
        path
        for root in roots
        for pattern in ("*/lib/libnvrtc.so*", "*/bin/**/nvrtc64*.dll")
        for path in root.glob(pattern)
        if "builtins" not in path.name and ".alt." not in path.name
    ]
    return ctypes.CDLL(str(sorted(names)[-1])) if names else None


@cache
def cupy_nvrtc():
    """The NVRTC of CuPy, or None."""
    if importlib.util.find_spec("cupy") is None:
        return None
    return importlib.import_module("cupy").cuda.nvrtc


needs_nvrtc = pytest.mark.skipif(
    library() is None and cupy_nvrtc() is None,
    reason="compiling CUDA needs CuPy or the wheel nvidia-cuda-nvrtc",
)


def compile_cubin(source, architecture, options, through_cupy=False):
    """Machine code for ``sm_<architecture>`` and the report of the assembler."""
    options = [*options, f"--gpu-architecture=sm_{architecture}", "--ptxas-options=-v"]
    compiler = _with_cupy if through_cupy or library() is None else _with_wheel
    return compiler(source, options)


def kernels(report):
    """Registers, bytes spilled to local memory and bytes of shared memory by the kernel's name."""
    return {
        m["kernel"]: {
            "registers": int(m["registers"]),
            "spilled": int(m["stores"]),
            "shared": int(m["shared"] or 0),
        }
        for m in REPORT.finditer(report)
    }


def _with_cupy(source, options):
    nvrtc = cupy_nvrtc()
    program = nvrtc.createProgram(source, "pencils.cu", [], [])
    nvrtc.compileProgram(program, options)
    return nvrtc.getCUBIN(program), nvrtc.getProgramLog(program)


def _with_wheel(source, options):
    nvrtc, program = library(), ctypes.c_void_p()
    encoded = [o.encode() for o in options]
    _check(
        nvrtc.nvrtcCreateProgram(
            ctypes.byref(program), source.encode(), b"pencils.cu", 0, None, None
        )
    )
    arguments = (ctypes.c_char_p * len(encoded))(*encoded)
    failed = nvrtc.nvrtcCompileProgram(program, len(encoded), arguments)
    log = _buffer(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program).decode()
    assert not failed, log
    cubin = _buffer(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program)
    _check(nvrtc.nvrtcDestroyProgram(ctypes.byref(program)))
    return cubin, log


def _buffer(size_of, fill, program):
    size = ctypes.c_size_t()
    _check(size_of(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(fill(program, buffer))
    return buffer.raw


def _check(code):
    assert code == 0, f"NVRTC answered {code}"
