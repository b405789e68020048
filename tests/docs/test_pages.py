"""All pages: each link leads somewhere, each kind of code block is one that a test runs."""

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.markdown import blocks

RUN = {
    "README.md": {"sh", "yaml"},
    "docs/plugins.md": {"toml", "python", "yaml", "console"},
    "docs/manifest.md": {"yaml", "yaml-with-faults", "text"},
    "docs/composition.md": {"yaml", "sh", "console"},
    "docs/command-line.md": {"json"},
    "docs/architecture.md": {""},
    "docs/many-cores.md": {"python"},
    "engine/core/README.md": {"toml"},
}
"""The languages of each page's blocks; the module named like the page in this folder runs them.
The format of a package in the core's page is that of the packages in the core's own tests."""
WRITTEN_BY_MAKE = {"docs/benchmarks.md"}
PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "engine/**/*.md", "plugins/**/*.md")
    for page in ROOT.glob(pattern)
    if page.relative_to(ROOT).as_posix() not in WRITTEN_BY_MAKE
)


def anchors(page: Path) -> set[str]:
    """Return the anchors that the headings of a page get."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name: str) -> None:
    page = ROOT / name
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if target.relative_to(ROOT).as_posix() in WRITTEN_BY_MAKE:
            continue
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("name", PAGES)
def test_every_block_is_of_a_kind_that_is_run(name: str) -> None:
    assert {block.language for block in blocks(ROOT / name)} <= RUN.get(name, set())


@pytest.mark.parametrize("name", PAGES)
def test_every_target_of_make_that_is_named_exists(name: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make ([a-z]+)`", (ROOT / name).read_text()):
        assert f"\n{target}:" in makefile


@pytest.mark.parametrize("package", ["core", "loading"])
def test_every_module_in_the_readme_of_a_package_exists(package: str) -> None:
    folder = ROOT / "engine" / package
    names = re.findall(r"`([a-z_/]+)(?:\.py|/\*)`", (folder / "README.md").read_text())
    assert names
    assert all((folder / name).is_dir() or (folder / f"{name}.py").is_file() for name in names)
