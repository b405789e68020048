import importlib
import sys
import textwrap

import pytest

from engine.testing import LocalPort, RecordingPort


@pytest.fixture
def port():
    return RecordingPort()


@pytest.fixture
def world():
    with LocalPort() as world:
        yield world


@pytest.fixture
def make_package(tmp_path, monkeypatch):
    """Write files below a folder on sys.path; return a function that imports one of the modules."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(module, files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        importlib.invalidate_caches()
        return importlib.import_module(module)

    yield write
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
