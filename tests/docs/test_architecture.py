"""docs/architecture.md is a map of what there is: every module it names, every layer."""

import re
import tomllib

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text()
MODULES = {file.relative_to(ROOT).as_posix() for file in ROOT.glob("engine/**/*.py")}


def test_every_module_that_is_named_exists() -> None:
    named = set(re.findall(r"`([\w/]+\.py)`", PAGE))
    assert len(named) >= 15
    for name in named:
        found = [module for module in MODULES if module == name or module.endswith(f"/{name}")]
        assert len(found) == 1, (name, found)


def test_every_package_that_is_named_exists() -> None:
    for name in set(re.findall(r"`(engine(?:\.\w+)+)`", PAGE)):
        path = name.replace(".", "/")
        assert {f"{path}.py", f"{path}/__init__.py"} & MODULES, name


def test_the_packages_are_the_layers_that_the_linter_holds() -> None:
    rows = re.findall(r"^\| (`engine\.[^|]*) \|", PAGE, re.MULTILINE)
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (contract,) = settings["tool"]["importlinter"]["contracts"]
    layers = [layer.split(" | ") for layer in contract["layers"]]
    assert [re.findall(r"`([\w.]+)`", row) for row in rows] == layers


def test_every_package_of_the_engine_has_a_place_in_it() -> None:
    packages = {module.split("/")[1].removesuffix(".py") for module in MODULES} - {"__init__"}
    assert {f"engine.{name}" for name in packages} <= set(re.findall(r"`(engine\.\w+)`", PAGE))


def test_the_reading_order_is_seven_steps() -> None:
    assert re.findall(r"^(\d)\. `engine/", PAGE.split("## Reading order")[1], re.M) == list(
        "1234567"
    )
