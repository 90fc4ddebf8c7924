"""The page's side of the lab: its script and style, the messages that it gets, and a page of its own that replays."""

from __future__ import annotations

import base64
import html
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ncbook.live.panels import header, pack
from ncbook.live.record import Frame, Run

_MODULES = ("run.js", "draw.js", "parts.js", "geometry.js", "charts.js", "input.js", "sections.js",
            "lab.js")
_EXPORTED = 240
_HERE = Path(__file__).parent


def script() -> str:
    """The modules of the page as one: each is a file of its own for editors and linters; the last one has `render`."""
    text = "\n".join((_HERE / name).read_text(encoding="utf-8") for name in _MODULES)
    return re.sub(r"^(import [^;]*;\n|export (?=const|let|function|class|async))", "", text, flags=re.MULTILINE)


def style() -> str:
    """The style sheet of the lab."""
    return (_HERE / "lab.css").read_text(encoding="utf-8")


def plain(value: Any) -> Any:
    """The value for JSON, which has no NaN or inf."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def run_message(run: Run) -> dict[str, Any]:
    """What tells the page of a run before its frames come."""
    return plain({"type": "run", "run": header(run)})


def messages(runs: Sequence[Run]) -> list[tuple[dict[str, Any], list[bytes]]]:
    """All that the page has to know of recorded runs, with at most _EXPORTED frames of each."""
    return [message for run in runs for message in ((run_message(run), []), frames_message(run, thinned(run), 0))]


def frames_message(run: Run, frames: Sequence[Frame], keep: int) -> tuple[dict[str, Any], list[bytes]]:
    """Frames that follow the first `keep` ones that the page has of a run, with the numbers of all in one buffer."""
    looks = [list(frame.look) for frame in frames]
    return {"type": "frames", "id": run.number, "keep": keep, "looks": looks}, [b"".join(map(pack, frames))]


def thinned(run: Run) -> list[Frame]:
    """At most _EXPORTED frames of a run, evenly spaced over those it has."""
    at = np.unique(np.linspace(0, len(run.frames) - 1, min(_EXPORTED, len(run.frames))).round().astype(int))
    return [run.frames[k] for k in at]


def standalone(messages: Sequence[tuple[dict, Sequence[bytes]]], title: str, caption: str) -> str:
    """An HTML page that plays what the messages hold, without a kernel and without a network."""
    packed = [[message, [base64.b64encode(buffer).decode() for buffer in buffers]] for message, buffers in messages]
    data = json.dumps(packed).replace("</", "<\\/")
    body = script().replace("export default { render };", "")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>{style()}</style>
</head>
<body class="ncbook-page">
<main>
<h1>{html.escape(title)}</h1>
<figure><div id="lab"></div><figcaption>{html.escape(caption)}</figcaption></figure>
</main>
<script type="application/json" id="messages">{data}</script>
<script type="module">
{body}
replay(document.getElementById("lab"), JSON.parse(document.getElementById("messages").textContent));
</script>
</body>
</html>
"""
