"""CUDA kernels with FFTs inside: rows and columns as pencils (see docs/explanation/gpu_kernels.md).

`PencilEvaluator` computes the loss and the gradients of a batch for the models that `unsupported`
has no objection to; the source is compiled at run time by NVRTC through the backend.
"""

from pyptyx.physics.kernels.cuda.evaluator import PencilEvaluator, unsupported

__all__ = ["PencilEvaluator", "unsupported"]
