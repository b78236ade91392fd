"""pyptyx: gradient-based ptychography driven by one params dictionary.

The public functions are loaded when they are first used, so that ``import pyptyx`` stays fast.
"""

from __future__ import annotations

import importlib
import importlib.util
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
}
_FACES = (
    "pyptyx.initialize",
    "pyptyx.se",
    "pyptyx.utils",
    "pyptyx.vaa",
    "pyptyx.direct",
    "pyptyx.tcbf",
)
"""Modules whose public names are also at top level, as in PyPty.

The first that has a name counts: `se` goes before `utils`, whose `fit_vector_field` and
`warp_image` are different ones.
"""


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    if not name.startswith("_"):
        if importlib.util.find_spec(f"{__name__}.{name}"):
            return importlib.import_module(f"{__name__}.{name}")
        for face in _FACES:
            module = importlib.import_module(face)
            if name in getattr(module, "__all__", ()):
                return getattr(module, name)
    raise AttributeError(f"module 'pyptyx' has no attribute {name!r}")


def __dir__() -> list[str]:
    modules = (face.rpartition(".")[2] for face in _FACES)
    names = {"__version__", "fft", "iterative", *_WHERE, *modules}
    for face in _FACES:
        names.update(importlib.import_module(face).__all__)
    return sorted(names)
