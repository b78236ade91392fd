"""pyptyx: gradient-based ptychography driven by one params dictionary.

`__all__` lists the names that stay; ``docs/reference/stability.md`` says what that means.  They are
loaded when they are first used, so that ``import pyptyx`` stays fast.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyptyx.constants import wavelength_A
    from pyptyx.data.formats.results import load_result
    from pyptyx.direct import DirectImage, LiveImage, depth_sections, direct_image, live_image, wdd
    from pyptyx.engine.calibrate import calibrate
    from pyptyx.engine.describe import describe
    from pyptyx.engine.export import convert_to_nxs, load_nexus_params
    from pyptyx.engine.export_images import export_images
    from pyptyx.engine.inspect import DataFile, load_data
    from pyptyx.engine.plan import Plan, plan
    from pyptyx.engine.run import Result, loss_and_gradient, run, simulate
    from pyptyx.engine.validate import validate
    from pyptyx.initialize import append_exp_params, prepare_restart
    from pyptyx.params import change_params, load_params, load_preset
    from pyptyx.utils import save_params

__version__ = "0.1.0"
_version_ = __version__

__all__ = [
    "DataFile",
    "DirectImage",
    "LiveImage",
    "Plan",
    "Result",
    "append_exp_params",
    "calibrate",
    "change_params",
    "convert_to_nxs",
    "depth_sections",
    "describe",
    "direct_image",
    "export_images",
    "live_image",
    "load_data",
    "load_nexus_params",
    "load_params",
    "load_preset",
    "load_result",
    "loss_and_gradient",
    "plan",
    "prepare_restart",
    "run",
    "save_params",
    "simulate",
    "validate",
    "wavelength_A",
    "wdd",
]

_HOMES = {
    "pyptyx.constants": ("wavelength_A",),
    "pyptyx.data.formats.results": ("load_result",),
    "pyptyx.direct": (
        "DirectImage",
        "LiveImage",
        "depth_sections",
        "direct_image",
        "live_image",
        "wdd",
    ),
    "pyptyx.engine.calibrate": ("calibrate",),
    "pyptyx.engine.describe": ("describe",),
    "pyptyx.engine.export": ("convert_to_nxs", "load_nexus_params"),
    "pyptyx.engine.export_images": ("export_images",),
    "pyptyx.engine.inspect": ("DataFile", "load_data"),
    "pyptyx.engine.plan": ("Plan", "plan"),
    "pyptyx.engine.run": ("Result", "loss_and_gradient", "run", "simulate"),
    "pyptyx.engine.validate": ("validate",),
    "pyptyx.initialize": ("append_exp_params", "prepare_restart"),
    "pyptyx.params": ("change_params", "load_params", "load_preset"),
    "pyptyx.utils": ("save_params",),
}
_WHERE = {name: module for module, names in _HOMES.items() for name in names}
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
