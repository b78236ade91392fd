"""Numba functions that are parts of others: translated and optimised, but not made machine code.

A part is linked into its callers before these become machine code, so its own would never run; to
make it takes a fifth of the time of compiling.
"""

from __future__ import annotations

from typing import Any

from numba.core.codegen import CPUCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder, _LowerResult
from numba.core.compiler_machinery import register_pass
from numba.core.typed_passes import NativeLowering

_USED = ("_finalize_final_module", "_finalize_dynamic_globals", "_verify_declare_only_symbols")
if not all(hasattr(CPUCodeLibrary, name) for name in _USED):
    raise ImportError("numba's libraries are not as this module knows them")


@register_pass(mutates_CFG=True, analysis_only=False)
class LowerPart(NativeLowering):
    """As numba's own, without an executable."""

    _name = "pyptyx_lower_part"

    def run_pass(self, state: Any) -> bool:
        """Lower the function into a library that ends with optimised LLVM code."""
        context = state.targetctx
        library = context.codegen().create_library(state.func_id.func_qualname)
        library._finalize_final_module = lambda: _finish(library)
        state.library = library
        state.flags.no_compile = True
        super().run_pass(state)
        lowered = state["cr"]
        # Overloads are known by their entry points; this one is like no other and never called.
        nothing: list[Any] = []
        entry_point = nothing.append
        context.insert_user_function(entry_point, lowered.fndesc, [library])
        if hasattr(library, "_reload_init"):
            state.reload_init.extend(library._reload_init)
        state["cr"] = _LowerResult(
            lowered.fndesc, lowered.call_helper, cfunc=entry_point, env=lowered.env
        )
        return True


def _finish(library: Any) -> None:
    """What numba does with a library, but for its machine code."""
    library._finalize_dynamic_globals()
    library._verify_declare_only_symbols()
    library._finalized = True


class PartCompiler(CompilerBase):
    """Numba's compiler with `LowerPart`."""

    def define_pipelines(self) -> list[Any]:
        """See numba."""
        manager = DefaultPassBuilder.define_nopython_pipeline(self.state)
        manager.passes = [
            (LowerPart if step is NativeLowering else step, text) for step, text in manager.passes
        ]
        manager.finalize()
        return [manager]
