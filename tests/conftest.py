"""What all tests share: the quick profile, no network, seeds, the browser, and a lab with its page."""

import os
import shutil

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile("ncbook", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ncbook")

CLOSED_PORT = "http://127.0.0.1:9"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def pytest_configure(config):
    os.environ["NCBOOK_PROFILE"] = "quick"
    os.environ["PLOTLY_RENDERER"] = "plotly_mimetype"
    torch.set_num_threads(1)  # networks this small are faster so, and far faster beside other work
    # Downloads fail at once, in kernels and other subprocesses too; the loopback stays open.
    os.environ.update(http_proxy=CLOSED_PORT, https_proxy=CLOSED_PORT, no_proxy="localhost,127.0.0.1,::1")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def chromium():
    """The path of the browser. Where there is none the test is skipped, but in CI it fails."""
    for path in filter(None, [os.environ.get("BROWSER_PATH"), *map(shutil.which, BROWSERS)]):
        return path
    message = "no Chromium found; on Debian: apt-get install chromium"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture
def lab():
    from live_hands import RECIPE

    from ncbook.live import LiveLab

    lab = LiveLab(RECIPE)
    yield lab
    lab.close()


@pytest.fixture
def page(lab, monkeypatch):
    from live_hands import Page

    return Page(lab, monkeypatch)
