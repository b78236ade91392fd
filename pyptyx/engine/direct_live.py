"""A direct image that grows while the scan is running."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np

from pyptyx.data.base import Orientation
from pyptyx.engine.direct_data import open_executor, scan_optics
from pyptyx.engine.direct_run import DirectImage, beam_optics, finished
from pyptyx.errors import ParamError, Problem, ShapeError
from pyptyx.methods.live import LiveSums, geometry

Params = Mapping[str, Any]


class LiveImage:
    """Linear image of a scan in progress; made by `pyptyx.direct.live_image`.

    Patterns come in any order and are forgotten once they are added: memory depends on the size of
    the scan and of the disc, not on how much of it is there.  One thread may add patterns while
    another asks for images.  To be closed after use, or used as a context manager.

    Parameters
    ----------
    params : mapping
        Calibrated parameters; not modified.
    kernel : {"mf", "ssb", "obf", "tcbf", "icom"}
        See `pyptyx.methods.linear`.
    reference : ndarray (ky, kx), optional
        See `pyptyx.direct.live_image`.
    n_bin : int
        Edge of the bins of detector pixels.
    buffer_bytes : int
        Memory for patterns that are not added yet.

    Raises
    ------
    ParamError
        If calibrations or the reference are missing, or the kernel is unknown.
    DataError
        If the reference has no bright-field disc.
    """

    def __init__(
        self,
        params: Params,
        kernel: str = "mf",
        *,
        reference: np.ndarray | None = None,
        n_bin: int = 1,
        buffer_bytes: int = 64 << 20,
    ):
        self._optics, self._kernel = scan_optics(params), kernel
        self._orientation = Orientation(
            bool(params.get("flip_ky")), bool(params.get("transpose_patterns"))
        )
        self._beam = beam_optics(params)
        known = geometry(
            self._reference(params, reference),
            dk_A=self._optics.dk_A,
            wavelength_A=self._optics.wavelength_A,
            step_A=self._optics.step_A,
            scan_size=self._optics.scan_size,
            semiangle_rad=self._optics.semiangle_rad,
            n_bin=n_bin,
        )
        self._executor = open_executor(params)
        try:
            self._sums = LiveSums(
                known,
                *self._beam,
                kernel=kernel,
                buffer_bytes=buffer_bytes,
                executor=self._executor,
            )
        except BaseException:
            self.close()
            raise

    def _reference(self, params: Params, given: np.ndarray | None) -> np.ndarray:
        """The reference as patterns are after `Orientation`."""
        if given is not None:
            return self._orientation.apply(np.asarray(given)[None])[0]
        if params.get("mean_pattern") is None:
            remedy = "Pass reference=, the mean pattern of an earlier scan or of vacuum"
            raise ParamError(
                Problem("mean_pattern", "a pattern that shows the disc", "nothing", remedy)
            )
        return np.asarray(params["mean_pattern"])

    @property
    def arrived(self) -> np.ndarray:
        """Scan points that have been measured, ``(Ny, Nx)`` bool."""
        return self._sums.arrived

    def add(self, patterns: np.ndarray, points: Any) -> None:
        """Take patterns as the detector gives them.

        Parameters
        ----------
        patterns : ndarray (B, ky, kx) or (ky, kx)
            Counts of real numbers; ``flip_ky`` and ``transpose_patterns`` are applied.
        points : int, slice or sequence of int
            Row-major numbers of their scan points.

        Raises
        ------
        ShapeError
            If these are no patterns.
        DataError
            If patterns and points do not go together, a point comes twice, or counts in the disc
            are not finite.
        """
        block = np.asarray(patterns)
        block = block[None] if block.ndim == 2 else block
        if block.ndim != 3 or block.dtype.kind not in "buif":
            got = f"shape {block.shape}, {block.dtype}"
            raise ShapeError(Problem("patterns", "real patterns (B, ky, kx)", got))
        if isinstance(points, slice):
            ny, nx = self._optics.scan_size
            points = np.arange(ny * nx)[points]
        self._sums.add(self._orientation.apply(block), np.atleast_1d(np.asarray(points, np.int64)))

    def add_row(self, row: int, patterns: np.ndarray) -> None:
        """Take a whole row of the scan, ``(Nx, ky, kx)``; errors as for `add`."""
        first = row * self._optics.scan_size[1]
        self.add(patterns, first + np.arange(self._optics.scan_size[1]))

    def image(self, wiener: float | str | None = "halves") -> DirectImage:
        """The image so far; what has not been measured is flat.

        Parameters
        ----------
        wiener : "halves", float or None
            See `pyptyx.methods.linear.linear_images`.

        Raises
        ------
        ParamError
            If the filter is unknown.
        DataError
            If nothing has been measured yet.
        """
        return finished(self._sums.image(wiener), self._kernel, *self._beam, self._optics.step_A)

    def close(self) -> None:
        """Stop the workers."""
        self._executor.close()

    def __enter__(self) -> LiveImage:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()
