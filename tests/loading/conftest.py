from importlib.metadata import Distribution
from pathlib import Path

import pytest

from engine.flows import Flow
from engine.hooks import Catalog, load_catalog

ENVIRONMENT = {
    "SECRET": "s3cr3t:hidden",
    "NUMBER": "3",
    "CLASS": "sample.Nothing",
    "WHO": "user0",
}


@pytest.fixture(scope="session")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Plugins as users have them installed: one that works, one that does not import, ours."""
    folder = tmp_path_factory.mktemp("plugins")
    modules = {
        "sample": "tests.loading.sample_plugin",
        "broken": "tests.loading.broken_plugin",
        "engine": "engine.flows.plugin",
    }
    points = [
        point
        for name, module in modules.items()
        for point in installed(folder, name, module).entry_points
    ]
    return load_catalog(Flow, points)


@pytest.fixture
def environment() -> dict[str, str]:
    return dict(ENVIRONMENT)


def installed(folder: Path, name: str, module: str) -> Distribution:
    """Return a distribution, version 1.0, that names `module` as a plugin."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[colink_engine]\n{name} = {module}\n")
    return Distribution.at(info)
