"""Where results come from: programs, machine and data of a run, in ``provenance.json``.

Each run adds a session to the file of its folder.  The data are known by their size and the time of
their last change, since reading them all would delay the start; `checksum` reads them.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from pyptyx import __version__
from pyptyx.files import write_bytes
from pyptyx.machine import available_cores

FILE = "provenance.json"
ALGORITHM = "sha256"
"""Of `checksum`."""

_PACKAGES = (
    *("numpy", "scipy", "h5py", "cupy-cuda13x", "cupy-cuda12x", "cupy", "numba"),
    "mpi4py",
)
"""Distributions that can make a difference to numbers."""


def record(
    folder: Path, data_path: str | os.PathLike[str] | None, workers: Sequence[str], further: bool
) -> None:
    """Add this session to the file of a folder.

    Parameters
    ----------
    folder : Path
    data_path : path or None
        File of the data; None or empty if they are in memory.
    workers : sequence of str
        Names of the devices that compute.
    further : bool
        Keep the sessions that are in the file; otherwise they belong to another run.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    earlier = sessions(folder) if further else []
    session = {
        **software(),
        "workers": list(workers),
        "data": _file_facts(Path(data_path)) if data_path else None,
    }
    write_bytes(folder / FILE, json.dumps([*earlier, session], indent=1).encode())


def sessions(folder: Path) -> list[dict[str, Any]]:
    """The sessions of a folder, oldest first; empty if the file is missing or damaged."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [s for s in found if isinstance(s, dict)] if isinstance(found, list) else []


def software() -> dict[str, Any]:
    """Time, programs and machine of this process."""
    return {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "program": "pyptyx",
        "version": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "packages": _versions(),
        "machine": {
            "host": platform.node(),
            "system": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "cores": available_cores(),
        },
    }


def checksum(path: Path) -> str:
    """SHA-256 of a file.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, ALGORITHM).hexdigest()


def is_unchanged(data: Mapping[str, Any]) -> bool:
    """Whether the file of a session's ``data`` is still there, with its size and time of change."""
    return _file_facts(Path(data["path"])) == data


def _file_facts(path: Path) -> dict[str, Any]:
    facts: dict[str, Any] = {"path": str(path.absolute())}
    try:
        status = path.stat()
    except OSError:
        return facts
    changed = datetime.fromtimestamp(status.st_mtime).astimezone()
    return {**facts, "bytes": status.st_size, "changed": changed.isoformat()}


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def commit() -> str | None:
    """Hash of the commit this package is from, with ``-dirty`` if files were changed since.

    Known for a checkout, and for an installation straight from a repository.
    """
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():
        return _commit_of_installation()
    command = ["git", "-C", str(checkout), "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        # Without optional locks git leaves the repository as it is.
        done = subprocess.run(
            [*command, "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _commit_of_installation() -> str | None:
    """What pip has written down (PEP 610)."""
    try:
        text = metadata.distribution("pyptyx").read_text("direct_url.json")
        return json.loads(text or "{}").get("vcs_info", {}).get("commit_id")
    except (metadata.PackageNotFoundError, ValueError, AttributeError):
        return None
