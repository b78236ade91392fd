"""Where figures come from: free of pyplot in scripts, on screen in interactive sessions."""

from __future__ import annotations

import sys
from typing import Any

import matplotlib
from matplotlib.figure import Figure


def new_figure(show: bool | None = None, **settings: Any) -> Figure:
    """An empty figure.

    Parameters
    ----------
    show : bool, optional
        True opens a window where there is a display, False never does.  None does so in an
        interactive Python session with matplotlib's interactive mode on.  No choice ever blocks.
    **settings
        Of ``matplotlib.figure.Figure``.

    Returns
    -------
    Figure
    """
    if show is None:
        show = hasattr(sys, "ps1") and matplotlib.is_interactive()
    if not show:
        return Figure(**settings)
    # Imported late: pyplot chooses a GUI toolkit.
    from matplotlib import pyplot

    figure = pyplot.figure(**settings)
    figure.show(warn=False)
    return figure
