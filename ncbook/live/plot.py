"""A plotly figure in a page, moved a trace at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import plotly.graph_objects as go
import traitlets
from plotly.offline import get_plotlyjs


class Plot(anywidget.AnyWidget):
    """A plotly figure in a page: `show` sends all of it, `move` just what changes in its traces.

    sent is the number of the last move, `drawn` of the last one that the page says it has drawn, so that a sender can
    wait for it; a page says so every third move or later, and when moves cease. A FigureWidget cannot say so, and
    answers every change with all that it knows of the figure.
    """

    _esm = get_plotlyjs() + Path(__file__).with_name("plot.js").read_text(encoding="utf-8")
    _figure = traitlets.Unicode().tag(sync=True)
    _moves = traitlets.Dict().tag(sync=True)
    drawn = traitlets.Int(0).tag(sync=True, echo_update=False)

    def __init__(self, fig: go.Figure):
        self.sent = 0
        self._at: dict[Any, int] = {}
        super().__init__()
        self.show(fig)

    def show(self, fig: go.Figure) -> None:
        """Put a figure in the place of the one that is shown."""
        self._at = {trace.meta: i for i, trace in enumerate(fig.data)}
        with self.hold_sync():
            self._figure, self._moves = fig.to_json(), {"number": self.sent, "moves": {}}

    def move(self, moves: Mapping[str, Mapping]) -> int:
        """moves: `meta` of a trace -> property -> array or a dict of such; others are left out. Returns `sent`."""
        self.sent += 1
        packed = {str(self._at[meta]): _packed(values) for meta, values in moves.items() if meta in self._at}
        self._moves = {"number": self.sent, "moves": packed}
        return self.sent


def _packed(values: Mapping) -> dict:
    return {key: _packed(value) if isinstance(value, Mapping) else np.asarray(value, np.float32, order="C").data
            for key, value in values.items()}
