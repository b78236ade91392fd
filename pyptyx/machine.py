"""Memory and cores of the machine this process runs on."""

from __future__ import annotations

import os
from pathlib import Path


def free_memory_bytes() -> int:
    """Host memory that can be had without swapping, 0 where the system does not tell."""
    try:
        # Linux's own estimate counts the file cache, which reading a large file fills, as free.
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return physical_bytes("SC_AVPHYS_PAGES") or physical_bytes("SC_PHYS_PAGES")


def physical_bytes(pages: str) -> int:
    """Bytes of so many pages as ``os.sysconf`` knows by the name `pages`; 0 where it does not."""
    if pages not in getattr(os, "sysconf_names", {}):
        return 0
    return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")


def available_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
