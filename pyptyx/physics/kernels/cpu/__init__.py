"""Kernels for one core that fuse all stages of a pattern, with transforms in vectors inside.

`StripEvaluator` computes the loss and the gradients of a batch for the models that `unsupported`
has no objection to.  Needs numba.
"""

from pyptyx.physics.kernels.cpu.evaluator import StripEvaluator, unsupported

__all__ = ["StripEvaluator", "unsupported"]
