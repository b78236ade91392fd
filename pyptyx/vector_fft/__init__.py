"""Fourier transforms of probe windows in vectors of the CPU, compiled by numba.

`codelets` is the arithmetic of short transforms, `vectors` turns it into machine code, `windows`
makes transforms of whole windows.  Needs numba; others use SciPy's.
"""
