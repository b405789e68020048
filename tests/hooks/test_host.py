"""Plugins as third parties install them: a package and a dist-info folder on sys.path."""

import importlib
import sys
import textwrap
from importlib.metadata import distributions

import pytest

from engine.flows import AtomicFlow, Flow
from engine.hooks import load_catalog
from engine.model.errors import PluginError

GOOD = """
    from engine.flows import AtomicFlow, CompositeFlow
    from engine.hooks import hookimpl

    class First(AtomicFlow):
        pass

    class Second(CompositeFlow):
        pass

    @hookimpl
    def register_flow_classes():
        return [First, Second]
"""


def plugin_with(body, imports=""):
    return f"""
    from engine.flows import AtomicFlow
    from engine.hooks import hookimpl
    {imports}

    class Some(AtomicFlow):
        pass

    @hookimpl
    def register_flow_classes():
        return {body}
    """


class Site:
    """A folder that packages are installed into."""

    def __init__(self, path):
        self.path = path

    def install(self, distribution, files, entry_points, version="1.0"):
        for name, text in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        info = self.path / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
        lines = "".join(f"{name} = {value}\n" for name, value in entry_points)
        (info / "entry_points.txt").write_text(f"[colink_engine]\n{lines}")
        importlib.invalidate_caches()

    def catalog(self):
        found = [
            point
            for distribution in distributions(path=[str(self.path)])
            for point in distribution.entry_points
        ]
        return load_catalog(Flow, found)


@pytest.fixture
def site(tmp_path, monkeypatch):
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    site = Site(tmp_path)
    site.install("good-flows", {"good_flows/__init__.py": GOOD}, [("good", "good_flows")], "2.1")
    yield site
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def info(catalog, name):
    [found] = [plugin for plugin in catalog.plugins if plugin.name == name]
    return found


def assert_broken(catalog, name, error, distribution=None):
    """`name` is shown as broken with `error`, its classes say so too, `good` is not affected."""
    broken = info(catalog, name)
    assert error in broken.error
    assert "\n" not in broken.error
    assert broken.classes == ()
    assert distribution is None or broken.distribution == distribution
    with pytest.raises(PluginError) as failure:
        catalog.flow_class(f"{name}.Some")
    assert f"the plugin {name} is broken" in str(failure.value)
    assert error in str(failure.value)
    assert info(catalog, "good").error is None
    assert "good.First" in catalog.names()
    return broken


def test_a_plugins_classes_have_its_name_in_front(site):
    catalog = site.catalog()
    assert catalog.names() == ("good.First", "good.Second")
    first = catalog.flow_class("good.First")
    assert (first.__module__, first.__name__) == ("good_flows", "First")
    assert catalog.name_of(first) == "good.First"
    good = info(catalog, "good")
    assert (good.distribution, good.version) == ("good-flows", "2.1")
    assert (good.classes, good.error, good.traceback) == (("First", "Second"), None, "")
    assert good.location == str(site.path / "good_flows")


def test_installed_entry_points_of_the_group_are_found_without_being_named(site):
    names = {plugin.name for plugin in load_catalog(Flow).plugins}
    assert "good" in names


def test_without_plugins_there_is_nothing():
    catalog = load_catalog(Flow, [])
    assert (catalog.plugins, catalog.names(), dict(catalog.resolvers)) == ((), (), {})


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import no_such_module_anywhere", "No module named 'no_such_module_anywhere'"),
        ("def broken(:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise ValueError('two\\nlines')", "ValueError: two lines"),
        ("x = 1", "bad_flows implements no hook. Is @hookimpl missing"),
        (plugin_with("[Some, print]"), "<built-in function print>, which is not a flow class"),
        (plugin_with("[dict]"), "<class 'dict'>, which is not a flow class"),
        (plugin_with("3"), "TypeError"),
        (
            plugin_with("[Some, type('Some', (AtomicFlow,), {})]"),
            "Two flow classes are called Some",
        ),
        (plugin_with("undefined_name"), "NameError"),
        (
            """
            from engine.hooks import hookimpl

            @hookimpl
            def register_flow_clases():
                return []
            """,
            "unknown hook 'register_flow_clases'",
        ),
        (
            """
            from engine.hooks import hookimpl

            @hookimpl
            def register_flow_classes(config):
                return []
            """,
            "Argument(s) {'config'} are declared in the hookimpl but can not be found",
        ),
    ],
)
def test_a_broken_plugin_is_shown_with_its_error_and_breaks_nothing_else(site, code, error):
    site.install("bad-flows", {"bad_flows.py": code}, [("bad", "bad_flows")])
    broken = assert_broken(site.catalog(), "bad", error, "bad-flows")
    assert broken.traceback.startswith("Traceback")
    assert broken.location == str(site.path / "bad_flows.py")


def test_an_attribute_that_the_module_lacks(site):
    site.install("bad-flows", {"bad_flows.py": GOOD}, [("bad", "bad_flows:plugin")])
    assert_broken(site.catalog(), "bad", "no attribute 'plugin'")


def test_a_module_that_does_not_exist(site):
    site.install("bad-flows", {}, [("bad", "nowhere_at_all.plugin")])
    assert assert_broken(site.catalog(), "bad", "No module named").location == ""


def test_an_object_can_be_a_plugin(site):
    code = """
        from engine.flows import AtomicFlow
        from engine.hooks import hookimpl

        class Some(AtomicFlow):
            pass

        class Plugin:
            @hookimpl
            def register_flow_classes(self):
                return (kind for kind in [Some])

        plugin = Plugin()
    """
    site.install("object-flows", {"object_flows.py": code}, [("object", "object_flows:plugin")])
    assert "object.Some" in site.catalog().names()


def test_a_broken_default_configuration_breaks_the_plugin_when_it_is_loaded(site):
    files = {"bad/__init__.py": plugin_with("[Some]"), "bad/Some.yaml": "a: [1\nb: 2\n"}
    site.install("bad-flows", files, [("bad", "bad")])
    assert_broken(site.catalog(), "bad", "Some.yaml: line 2")


def test_two_plugins_with_one_name_are_both_broken(site):
    for name in ("left", "right"):
        site.install(f"{name}-dist", {f"{name}_flows.py": GOOD}, [("same", f"{name}_flows")])
    catalog = site.catalog()
    both = [plugin for plugin in catalog.plugins if plugin.name == "same"]
    assert [plugin.distribution for plugin in both] == ["left-dist", "right-dist"]
    assert {plugin.error for plugin in both} == {
        "Several plugins are called same; of: left-dist, right-dist."
    }
    assert catalog.names() == ("good.First", "good.Second")
    with pytest.raises(PluginError, match="Several plugins are called same"):
        catalog.flow_class("same.First")


def test_a_name_with_a_dot_would_be_ambiguous(site):
    site.install("dotted", {"dotted.py": GOOD}, [("a.b", "dotted")])
    assert "may not have a dot" in info(site.catalog(), "a.b").error


def test_resolvers_are_collected(site):
    code = """
        from engine.hooks import hookimpl

        @hookimpl
        def register_resolvers():
            return {"double": lambda value: 2 * value}
    """
    site.install("resolving", {"resolving.py": code}, [("resolving", "resolving")])
    catalog = site.catalog()
    assert catalog.resolvers["double"](21) == 42
    assert info(catalog, "resolving").error is None


@pytest.mark.parametrize("resolvers", ["{'oc.env': print}", "{'x': 1}", "{1: print}", "3"])
def test_bad_resolvers_break_the_plugin(site, resolvers):
    code = f"""
        from engine.hooks import hookimpl

        @hookimpl
        def register_resolvers():
            return {resolvers}
    """
    site.install("resolving", {"resolving.py": code}, [("bad", "resolving")])
    catalog = site.catalog()
    assert_broken(catalog, "bad", "register_resolvers" if resolvers != "3" else "AttributeError")
    assert dict(catalog.resolvers) == {}


def test_a_resolver_name_belongs_to_the_first_plugin_by_name(site):
    code = """
        from engine.hooks import hookimpl

        @hookimpl
        def register_resolvers():
            return {"double": lambda value: 2 * value}
    """
    for name in ("alpha", "beta"):
        site.install(name, {f"{name}_resolving.py": code}, [(name, f"{name}_resolving")])
    catalog = site.catalog()
    assert info(catalog, "alpha").error is None
    assert_broken(catalog, "beta", "double is registered by the plugin alpha already")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("good.Frist", "the plugin good has no such class. Did you mean good.First?"),
        ("goood.First", "no plugin 'goood' is installed. Did you mean good.First?"),
        ("xyz", "no plugin 'xyz' is installed. See what is installed with: engine plugins"),
        ("", "no plugin '' is installed."),
    ],
)
def test_an_unknown_class_is_told_with_the_nearest_name(site, name, message):
    with pytest.raises(PluginError) as failure:
        site.catalog().flow_class(name)
    assert message in str(failure.value)


def test_a_class_that_no_plugin_registers_has_no_name(site):
    with pytest.raises(PluginError, match=r"No plugin registers engine\.flows\.flow\.AtomicFlow"):
        site.catalog().name_of(AtomicFlow)


class TestDigest:
    def test_it_stays_while_nothing_changes(self, site):
        assert site.catalog().digest("good") == site.catalog().digest("good")

    @pytest.mark.parametrize(
        "file", ["__init__.py", "helper.py", "First.yaml", "deep/down/more.yml"]
    )
    def test_it_changes_with_any_code_or_yaml_file_of_the_package(self, site, file):
        catalog = site.catalog()
        path = site.path / "good_flows" / file
        seen = {catalog.digest("good")}
        path.parent.mkdir(parents=True, exist_ok=True)
        for text in ("# one\n", "# two, longer\n"):
            path.write_text(text)
            seen.add(catalog.digest("good"))
        path.unlink()
        seen.add(catalog.digest("good"))
        assert len(seen) == (4 if file == "__init__.py" else 3)

    def test_it_does_not_change_with_other_files(self, site):
        catalog = site.catalog()
        before = catalog.digest("good")
        (site.path / "good_flows" / "notes.txt").write_text("x")
        (site.path / "elsewhere.py").write_text("x")
        assert catalog.digest("good") == before

    def test_it_changes_with_the_version(self, site):
        before = site.catalog().digest("good")
        info_folder = site.path / "good_flows-2.1.dist-info"
        text = (info_folder / "METADATA").read_text()
        (info_folder / "METADATA").write_text(text.replace("2.1\n", "2.2\n"))
        assert site.catalog().digest("good") != before

    def test_a_plugin_of_one_file_has_that_file_and_its_defaults(self, site):
        site.install("single", {"single.py": plugin_with("[Some]")}, [("single", "single")])
        catalog = site.catalog()
        seen = {catalog.digest("single")}
        (site.path / "neighbour.py").write_text("x = 1")
        (site.path / "Other.yaml").write_text("x: 1")
        seen.add(catalog.digest("single"))
        assert len(seen) == 1
        (site.path / "Some.yaml").write_text("name: some")
        seen.add(catalog.digest("single"))
        (site.path / "single.py").write_text("# changed")
        seen.add(catalog.digest("single"))
        assert len(seen) == 3

    def test_a_namespace_package_is_passed_through(self, site):
        files = {"company/flows/__init__.py": GOOD, "company/flows/more.py": ""}
        site.install("company-flows", files, [("company", "company.flows")])
        catalog = site.catalog()
        assert info(catalog, "company").location == str(site.path / "company" / "flows")
        before = catalog.digest("company")
        (site.path / "company" / "flows" / "more.py").write_text("x = 1")
        assert catalog.digest("company") != before

    def test_a_broken_plugin_has_one_too_so_that_its_repair_is_noticed(self, site):
        site.install("bad-flows", {"bad_flows.py": "1 / 0"}, [("bad", "bad_flows")])
        catalog = site.catalog()
        before = catalog.digest("bad")
        (site.path / "bad_flows.py").write_text(textwrap.dedent(GOOD))
        assert catalog.digest("bad") != before

    def test_an_unknown_plugin_has_none(self, site):
        with pytest.raises(PluginError, match=r"No plugin 'goodd' is installed\. Did you mean"):
            site.catalog().digest("goodd")
