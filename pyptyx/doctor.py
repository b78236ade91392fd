"""What `pyptyx doctor` tells: what is installed, and what a run would use."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

from pyptyx.files import obstacle

# Packages, and the extra of pyptyx that brings them (empty: always installed).
_PACKAGES = {
    "numpy": "",
    "scipy": "",
    "h5py": "",
    "matplotlib": "",
    "tqdm": "",
    "cupy": "cuda13",
    "numba": "fast-cpu",
    "mpi4py": "mpi",
    "torch": "torch",
    "rosettasciio": "io",
    "hdf5plugin": "io",
    "tifffile": "tiff",
    "shtab": "completion",
}
_DISTRIBUTIONS = {"cupy": ("cupy-cuda13x", "cupy-cuda12x", "cupy")}


def report() -> list[str]:
    """What this machine offers: versions, memory, workers, caches; one line each."""
    lines = [
        f"pyptyx    {version('pyptyx')}",
        f"Python    {platform.python_version()} on {platform.platform()}",
        "packages",
    ]
    for name, extra in _PACKAGES.items():
        remedy = f"not installed: pip install 'pyptyx[{extra}]'" if extra else "MISSING"
        found = filter(None, map(version, _DISTRIBUTIONS.get(name, (name,))))
        lines.append(f"  {name:<14}{next(found, remedy)}")
    lines += [f"memory    {_memory()}", "workers", *(f"  {line}" for line in _workers()), "caches"]
    for name, folder in _caches().items():
        state = "NOT WRITABLE" if obstacle(folder) else "writable"
        lines.append(f"  {name:<14}{folder} ({state})")
    return lines


def version(distribution: str) -> str:
    """Version of an installed distribution, empty if there is none."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _memory() -> str:
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = (os.sysconf(n) * page for n in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return "unknown on this system"
    return f"{_gib(total)}, {_gib(free)} free"


def _workers() -> list[str]:
    """What a run with ``devices="auto"`` would use."""
    from pyptyx.backend import make_backends

    backends = make_backends("auto")
    if backends[0].name == "cpu":
        compiled = "compiled kernels and transforms (numba)"
        return [
            f"no CUDA device: {len(backends)} threads, one per core",
            compiled if backends[0].compiled else "NumPy kernels, SciPy's FFT",
        ]
    lines = [f"{b.name:<14}{_gib(b.free_bytes())} free" for b in backends]
    return [*lines, f"one thread per device, {len(backends)} in all"]


def _caches() -> dict[str, Path]:
    import matplotlib

    kernels = os.environ.get("CUPY_CACHE_DIR") or Path.home() / ".cupy" / "kernel_cache"
    return {
        "CUDA kernels": Path(kernels),
        "matplotlib": Path(matplotlib.get_cachedir()),
    }


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
