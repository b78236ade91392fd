"""pyptyx: gradient-based ptychography driven by one params dictionary.

The public functions are loaded when they are first used, so that ``import pyptyx`` stays fast.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"
_version_ = __version__

_WHERE = {
    "run": "pyptyx.engine.run",
    "Result": "pyptyx.engine.run",
    "loss_and_gradient": "pyptyx.engine.run",
    "simulate": "pyptyx.engine.run",
    "describe": "pyptyx.engine.describe",
    "wavelength_A": "pyptyx.constants",
    "load_params": "pyptyx.params",
    "save_params": "pyptyx.params",
    "load_preset": "pyptyx.params",
    "iterative": "pyptyx.iterative",
    "initialize": "pyptyx.initialize",
}
_FACES = ("pyptyx.initialize",)
"""Modules whose public names are also at top level, as in PyPty."""


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        module = importlib.import_module(_WHERE[name])
        return module if _WHERE[name] == f"pyptyx.{name}" else getattr(module, name)
    if not name.startswith("_"):
        for face in _FACES:
            module = importlib.import_module(face)
            if name in getattr(module, "__all__", ()):
                return getattr(module, name)
    raise AttributeError(f"module 'pyptyx' has no attribute {name!r}")


def __dir__() -> list[str]:
    names = {"__version__", *_WHERE}
    for face in _FACES:
        names.update(importlib.import_module(face).__all__)
    return sorted(names)
