import pytest
from live_reader import open_reader


@pytest.fixture(scope="module")
def reader(tmp_path_factory, chromium):
    with open_reader(tmp_path_factory.mktemp("jupyter"), chromium) as lab:
        yield lab


@pytest.fixture
def no_error(reader):
    yield
    assert reader.kernel("repr(lab.error)") == "None" and reader.faults == []
