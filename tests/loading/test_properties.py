"""Whatever is in a file: a manifest comes out, or faults with places, and nothing else."""

import json
import random
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.hooks import Catalog
from engine.loading import load_text
from engine.model.errors import InvalidManifestError

CORPUS = [
    file.read_text(errors="replace")
    for folder in (Path(__file__).parent / "faults", Path(__file__).parents[2] / "manifests")
    for file in sorted(folder.glob("*.yaml"))
    if file.stem not in ("billion_laughs",)
]
ENVIRONMENT = {"SECRET": "s3cr3t:hidden", "NUMBER": "3", "CLASS": "sample.Nothing", "WHO": "user0"}
KEYS = (
    *("apiVersion", "name", "core", "users", "address", "tls", "user0", "user_id", "jwt", "left"),
    *("workers", "dispatch", "get_instance", "flows", "mounts", "echo", "pair", "subflows"),
    *("flow_class_name", "allow", "flow_endpoint", "config_overrides", "initial_state"),
)
RELAXED = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def check(text: str | bytes, catalog: Catalog) -> None:
    try:
        load_text(text, Path("file.yaml"), catalog, ENVIRONMENT)
    except InvalidManifestError as error:
        assert error.faults
        lines = len(text.split(b"\n" if isinstance(text, bytes) else "\n")) * 2 + 2
        for fault in error.faults:
            assert fault.message
            assert "\n" not in str(fault)
            assert 0 <= fault.line <= lines
            assert "s3cr3t" not in str(fault)


@RELAXED
@given(st.binary(max_size=200))
def test_any_bytes(catalog: Catalog, content: bytes) -> None:
    check(content, catalog)


@RELAXED
@given(st.text(alphabet=" \n\t:-?[]{},&*!|>'\"%@`#$.\\abc01<~=", max_size=80))
def test_any_text_of_yamls_own_characters(catalog: Catalog, text: str) -> None:
    check(f"apiVersion: engine/v1\nusers:\n  user0:\n    flows: {text}\n", catalog)


@RELAXED
@given(st.text(alphabet="${}.:,[]'\"\\ oc.envdSECRET0", max_size=60))
def test_any_interpolation(catalog: Catalog, text: str) -> None:
    quoted = text.replace("'", "''")
    check(
        "apiVersion: engine/v1\nusers:\n  user0:\n    flows:\n      echo:\n"
        f"        flow_class_name: sample.Echo\n        config_overrides: {{a: '${{{quoted}'}}\n",
        catalog,
    )


@RELAXED
@given(st.sampled_from(CORPUS), st.sampled_from(CORPUS), st.integers())
def test_manifests_with_lines_of_other_manifests(
    catalog: Catalog, text: str, other: str, seed: int
) -> None:
    chosen = random.Random(seed)
    lines = text.splitlines()
    for _ in range(chosen.randint(1, 3)):
        position = chosen.randrange(len(lines) + 1)
        lines[position : position + chosen.randint(0, 1)] = [
            chosen.choice(other.splitlines() or [""])
        ]
    check("\n".join(lines), catalog)


@RELAXED
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
        ),
        max_leaves=25,
    )
)
def test_any_json_is_judged(catalog: Catalog, value: object) -> None:
    manifest = {"apiVersion": "engine/v1", "users": {"user0": value}, "core": value}
    check(json.dumps(manifest), catalog)
