"""Figures that play: frames, a Play button and a slider, which need no kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from ncbook.plots.style import INK, TEMPLATE

_ROOM = 84  # pixels that the slider takes
_LONG = 12  # characters: labels beyond stand above the slider alone


def add_player(fig: go.Figure, labels: Sequence[str], *, milliseconds: int = 140, redraw: bool = False,
               transition: int = 0, prefix: str = "", active: int = -1, below: int = 56,
               left: float = 0.32) -> go.Figure:
    """Put Play, Pause and a slider with a stop for each frame below a figure, which grows by what they need.

    labels: one per frame of `fig.frames`, which have names; shown above the slider, after `prefix`. milliseconds a
    frame, of which `transition` are spent on moving; redraw: True where plotly can't move traces (3-D, heat maps);
    active: the stop where the slider stands; below: pixels between plot and slider; left: where it begins, in 0..1.
    Raises ValueError unless there is one label per frame.
    """
    if not labels or len(labels) != len(fig.frames):
        raise ValueError(f"labels must be one per frame, got {len(labels)} for {len(fig.frames)} frames")

    def go_to(which, duration: int, moving: int = 0) -> dict:
        return dict(method="animate", args=[which, dict(
            mode="immediate", fromcurrent=True, frame=dict(duration=duration, redraw=redraw),
            transition=dict(duration=moving, easing="linear"))])

    foot = dict(xanchor="left", y=0, yanchor="top")
    slider = foot | dict(
        steps=[dict(go_to([frame.name], 0), label=label) for frame, label in zip(fig.frames, labels, strict=True)],
        active=range(len(labels))[active], x=left, len=1 - left, pad=dict(t=below),
        currentvalue=dict(prefix=prefix, font=dict(size=14, color=INK)),
    )
    if max(map(len, labels)) > _LONG:
        slider |= dict(font=dict(color="rgba(0,0,0,0)"), ticklen=0, minorticklen=0)
    buttons = [dict(go_to(None, milliseconds, transition), label="▶ Play"), dict(go_to([None], 0), label="❚❚ Pause")]
    menu = foot | dict(type="buttons", direction="left", buttons=buttons, x=0, pad=dict(t=below + 16), showactive=False)
    margin = fig.layout.margin.b
    grown = below + _ROOM - (TEMPLATE.layout.margin.b if margin is None else margin)
    if fig.layout.height is not None:
        fig.layout.height += grown
    return fig.update_layout(margin_b=below + _ROOM, sliders=[slider], updatemenus=[menu])


def animate(fig: go.Figure, labels: Sequence[str], changes: Sequence[Mapping[str, dict]], *, active: int = -1,
            **player) -> go.Figure:
    """Give a figure frames, trace name -> what changes in the first trace of that name, and a player under it.

    labels, player: as in `add_player`. The figure opens on the frame `active`.
    """
    names = [trace.name for trace in fig.data]
    frames = [{names.index(name): change for name, change in moves.items()} for moves in changes]
    fig.frames = [go.Frame(name=str(k), traces=list(moves), data=[dict(change, type=fig.data[i].type)
                                                                   for i, change in moves.items()])
                  for k, moves in enumerate(frames)]
    for i, change in frames[active].items() if frames else ():
        fig.data[i].update(change)
    return add_player(fig, labels, active=active, **player)
