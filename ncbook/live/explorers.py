"""Small explorers, without training: figures to take in one's hands, computed by the page itself."""

from __future__ import annotations

import html
import json
import math
import re
from pathlib import Path

import torch

from ncbook.checks import check_choice, check_integer, check_number
from ncbook.etf import PROXIMAL
from ncbook.plots.style import APART, TOGETHER, class_colors, matrix

_FOLDER = Path(__file__).parent
_MODULE = re.compile(r"^import [^;]*;\n|^export ", flags=re.MULTILINE)


class Explorer:
    """A figure whose computation is a script in the page: it needs no kernel, no network and no other library.

    A notebook keeps it as HTML, which works wherever scripts run. In the place of a script that may not run, as in a
    notebook that is not trusted, stands a line of text, or the picture that `notebooks/build_book.py` puts there.
    """

    def __init__(self, name: str, title: str, **start):
        self.name, self.title, self.start = name, title, start

    def __repr__(self) -> str:
        return f"{self.title}: run this cell in JupyterLab, or trust the notebook, to use it"

    def _repr_html_(self) -> str:
        parts = [(_FOLDER / name).read_text(encoding="utf-8") for name in ("explorers.js", f"explorers_{self.name}.js")]
        return (f'<div class="ncbook-explorer" role="group" aria-label="{self.title}" data-explorer="{self.name}" '
                f'data-start="{html.escape(json.dumps(self.start))}"><p>{html.escape(repr(self))}</p></div>\n'
                f'<script type="module">\n{_MODULE.sub("", "".join(parts))}</script>')


def simplex_scrubber(classes: int = 4) -> Explorer:
    """Classes, dimension, noise and view of a simplex ETF; cosines, angles, norms and distance follow.

    classes: how many at first, 2 to 10; the dimension is never below C - 1. Raises ValueError for another number.
    """
    check_integer("classes", classes, least=2, most=10)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(10, 12, dtype=torch.float64, generator=generator).round(decimals=3)
    return Explorer("simplex", "Simplex ETF", classes=classes, noise=noise.tolist(), colors=class_colors(10))


def nearest_etf_explorer(class_means: torch.Tensor | None = None) -> Explorer:
    """Three class means in the plane to be dragged; the nearest simplex ETF follows, held back by a pull.

    class_means (3, 2): where they are at first. Drawn centred and Frobenius-normalised, beside the ETF over sqrt(3), so
    that the squared lengths between means and vertices add up to the squared distance that is shown. The second panel
    has the distance of every ETF in the plane, by its angle. Raises TypeError for integers, ValueError for other
    shapes, NaN or inf, and means that coincide.
    """
    if class_means is None:
        angle = torch.tensor([25.0, -80.0, 160.0], dtype=torch.float64).deg2rad()
        length = torch.tensor([1.0, 0.7, 0.85], dtype=torch.float64)
        class_means = length[:, None] * torch.stack((angle.cos(), angle.sin()), dim=1)
    means = matrix("class_means", class_means, columns=2)
    if len(means) != 3 or not (means - means[0]).any():
        raise ValueError(f"class_means must be three that do not all coincide, got {means.tolist()}")
    return Explorer("nearest", "Nearest simplex ETF", means=means.tolist(), pull=PROXIMAL, colors=class_colors(3))


def radius_explorer(points: torch.Tensor | None = None, *, radius: float = 0.5, beta: float | None = 0.8,
                    p: float = 2) -> Explorer:
    """Points to be dragged and two lines on their H0 barcode: the distance up to which balls have grown, and beta.

    Balls, minimum spanning tree, death times and densification loss follow, on request the pull of the loss on each
    point too, and the points can be let go. points (n, 2), 2 to 40 of them: where they are at first; radius: at first
    the distance at which balls touch; beta: None for the barcode alone, without the loss; p: 1, 2 or inf.
    Raises TypeError for integers, ValueError for other shapes and norms, NaN or inf, a negative radius or beta.
    """
    if points is None:
        generator = torch.Generator().manual_seed(3)
        centres = torch.tensor([[0.0, 0.0], [2.2, 0.6], [0.8, 2.0]], dtype=torch.float64).repeat_interleave(5, 0)
        points = (centres + 0.45 * torch.randn(15, 2, dtype=torch.float64, generator=generator)).round(decimals=3)
    cloud = matrix("points", points, columns=2, min_rows=2)
    if len(cloud) > 40:
        raise ValueError(f"points must be at most 40 to be dragged, got {len(cloud)}")
    title = "Balls and barcode" if beta is None else "Balls, barcode and densification loss"
    return Explorer("radius", title, points=cloud.tolist(), p=f"{check_choice('p', p, (1, 2, math.inf)):g}",
                    r=check_number("radius", radius), beta=None if beta is None else check_number("beta", beta),
                    colors=[APART, TOGETHER])
