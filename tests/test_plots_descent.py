"""Clouds that follow the densification loss."""

import numpy as np
import pytest
import torch

from ncbook import h0_death_times, plots


def test_descents_show_the_clouds_and_their_death_times_at_the_steps():
    path = torch.randn(5, 6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fig = plots.descents({0.5: path, 2.0: 2 * path}, [0, 3], title="t")
    assert len(fig.frames) == 2
    names = [fig.data[i].name for i in fig.frames[1].traces]
    drawn = dict(zip(names, fig.frames[1].data))
    np.testing.assert_allclose(drawn["points 2.0"].y, 2 * path[3, :, 1], rtol=1e-6)
    np.testing.assert_allclose(drawn["deaths 0.5"].y, h0_death_times(path[3]), rtol=1e-6)
    lines = [trace for trace in fig.data if trace.line.dash == "dash"]
    assert [set(line.y) for line in lines] == [{0.5}, {2.0}]
    for wrong in ({}, {1.0: path, 2.0: path[1:]}):
        with pytest.raises(ValueError, match="paths must"):
            plots.descents(wrong, [0], title="t")
