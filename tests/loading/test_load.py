"""What a good manifest becomes."""

import os
from pathlib import Path

import pytest

from engine.flows import Flow
from engine.hooks import Catalog, load_catalog
from engine.loading import load, load_text, starter, variables
from engine.model.errors import InvalidManifestError
from engine.model.manifest import (
    AllowSpec,
    CoreSpec,
    FlowSpec,
    Manifest,
    MountSpec,
    RetriesSpec,
    SubflowSpec,
    TlsSpec,
    UserSpec,
    WorkersSpec,
)
from engine.model.secrets import resolve

HEX = "02" + "ab" * 32
FULL = f"""\
apiVersion: engine/v1
name: full
users:
  user0:
    workers:
      dispatch: {{coflows_dispatch: 2, gpu: 1}}
      get_instance: 4
    flows:
      echo:
        flow_class_name: sample.Echo
        singleton: true
        parallel_dispatch: true
        dispatch_point: gpu
        config_overrides: {{depth: 3, names: [a, null, 1.5, true]}}
        allow: [user1, {HEX}, any]
        retries: {{attempts: 3, backoff: 0.5}}
        mailbox_limit: 7
      pair:
        flow_class_name: sample.Pair
        subflows:
          right: {{user_id: {HEX}, flow_endpoint: far, config_overrides: {{a: 1}}}}
        allow: {{send: [user1]}}
  user1:
    workers: {{dispatch: 3}}
    mounts:
      mine:
        flow_endpoint: echo
        user_id: user0
        initial_state: {{count: 0}}
  user2: {{user_id: {HEX}}}
"""


def manifest_of(text: str, catalog: Catalog, **environment: str) -> Manifest:
    return load_text(text, Path("/folder/file.yaml"), catalog, environment)


def flow_of(fields: str, catalog: Catalog, **environment: str) -> FlowSpec:
    text = (
        "apiVersion: engine/v1\nusers:\n  user0:\n"
        "    workers: {dispatch: {point: 1, gpu: 1, coflows_dispatch: 1}}\n"
        f"    flows:\n      echo:\n        flow_class_name: sample.Echo\n{fields}"
    )
    return manifest_of(text, catalog, **environment).users["user0"].flows["echo"]


def test_every_field_arrives(catalog: Catalog) -> None:
    assert manifest_of(FULL, catalog) == Manifest(
        name="full",
        file="/folder/file.yaml",
        users={
            "user0": UserSpec(
                workers=WorkersSpec({"coflows_dispatch": 2, "gpu": 1}, 4),
                flows={
                    "echo": FlowSpec(
                        flow_class_name="sample.Echo",
                        singleton=True,
                        parallel_dispatch=True,
                        dispatch_point="gpu",
                        config_overrides={"depth": 3, "names": ["a", None, 1.5, True]},
                        allow=AllowSpec(("user1", HEX, "any"), ("user1", HEX, "any")),
                        retries=RetriesSpec(attempts=3, backoff=0.5),
                        mailbox_limit=7,
                    ),
                    "pair": FlowSpec(
                        flow_class_name="sample.Pair",
                        subflows={"right": SubflowSpec(HEX, "far", {"a": 1})},
                        allow=AllowSpec(send=("user1",)),
                    ),
                },
            ),
            "user1": UserSpec(
                workers=WorkersSpec({"coflows_dispatch": 3}, 1),
                mounts={"mine": MountSpec("echo", "user0", {}, {"count": 0})},
            ),
            "user2": UserSpec(user_id=HEX),
        },
    )


def test_places_are_those_of_the_keys(catalog: Catalog) -> None:
    assert manifest_of(FULL, catalog).places == {
        "name": ("/folder/file.yaml", 2, 1),
        "users.user0.flows.echo": ("/folder/file.yaml", 9, 7),
        "users.user0.flows.pair": ("/folder/file.yaml", 18, 7),
        "users.user1.mounts.mine": ("/folder/file.yaml", 26, 7),
    }


def test_a_real_core_with_paths_from_the_manifests_folder(catalog: Catalog) -> None:
    text = (
        "apiVersion: engine/v1\n"
        "core:\n  address: https://core.example.org:2021/\n"
        "  tls: {ca: certificates/ca.pem, cert: /etc/a.pem, key: ../a.key}\n"
        "users:\n  user0: {jwt: '${oc.env:TOKEN}'}\n  user1: {jwt_file: tokens/user1}\n"
    )
    manifest = manifest_of(text, catalog, TOKEN="abc")
    assert manifest.core == CoreSpec(
        "https://core.example.org:2021",
        TlsSpec("/folder/certificates/ca.pem", "/etc/a.pem", "/a.key"),
    )
    assert manifest.users["user0"].jwt == "${oc.env:TOKEN}"
    assert manifest.users["user1"].jwt_file == "/folder/tokens/user1"
    assert "abc" not in repr(manifest)


def test_the_file_is_absolute_and_links_are_not_followed(tmp_path: Path, catalog: Catalog) -> None:
    (tmp_path / "real.yaml").write_text(FULL)
    link = tmp_path / "link.yaml"
    link.symlink_to("real.yaml")
    assert load(link, catalog, {}).file == str(link)


def test_values_come_from_the_environment_that_is_given(catalog: Catalog) -> None:
    flow = flow_of(
        "        dispatch_point: ${oc.env:POINT}\n"
        "        singleton: ${oc.decode:${oc.env:SINGLE,true}}\n",
        catalog,
        POINT="gpu",
    )
    assert (flow.dispatch_point, flow.singleton) == ("gpu", True)
    assert "POINT" not in os.environ


def test_references_and_resolvers_of_plugins(catalog: Catalog) -> None:
    flow = flow_of(
        "        config_overrides:\n"
        "          a: 3\n"
        "          b: ${.a}\n"
        "          c: {d: '${..a}${users.user0.flows.echo.flow_class_name}'}\n"
        "          e: ${sample.double:${.a}}\n"
        "          f: ${.c}\n"
        "          g: ${users.user0.flows[echo].config_overrides.h[1]}\n"
        "          h: [1, 2]\n"
        "          i: \\${not.one}\n"
        "          j: ${.i}\n"
        "          k: ${oc.select:nowhere,7}\n"
        "          l: ${oc.dict.keys:.c}\n",
        catalog,
    )
    assert flow.config_overrides == {
        "a": 3,
        "b": 3,
        "c": {"d": "3sample.Echo"},
        "e": 6,
        "f": {"d": "3sample.Echo"},
        "g": 2,
        "h": [1, 2],
        "i": "${not.one}",
        "j": "${not.one}",
        "k": 7,
        "l": ["d"],
    }


def test_what_may_be_secret_stays_an_expression(catalog: Catalog) -> None:
    flow = flow_of(
        "        dispatch_point: point\n"
        "        config_overrides:\n"
        "          key: Bearer ${oc.env:KEY}\n"
        "          again: ['${..key}!']\n"
        "          region: ${oc.env:REGION,eu-1}-${....dispatch_point}\n".replace("....", "..")
        + "          nothing: ${.key}\n",
        catalog,
        KEY="s3cr3t",
    )
    assert flow.config_overrides == {
        "key": {"$env": "Bearer ${oc.env:KEY}"},
        "again": [{"$env": "Bearer ${oc.env:KEY}!"}],
        "region": {"$env": "${oc.env:REGION,eu-1}-point"},
        "nothing": {"$env": "Bearer ${oc.env:KEY}"},
    }
    assert resolve(flow.config_overrides, {"KEY": "k"}) == {
        "key": "Bearer k",
        "again": ["Bearer k!"],
        "region": "eu-1-point",
        "nothing": "Bearer k",
    }


def test_initial_state_and_subflow_overrides_stay_expressions_too(catalog: Catalog) -> None:
    text = FULL.replace("{count: 0}", "{token: '${oc.env:KEY}'}").replace(
        "{a: 1}", "{token: '${oc.env:KEY}'}"
    )
    manifest = manifest_of(text, catalog, KEY="s3cr3t")
    wrapped = {"token": {"$env": "${oc.env:KEY}"}}
    assert manifest.users["user1"].mounts["mine"].initial_state == wrapped
    pair = manifest.users["user0"].flows["pair"]
    assert pair.subflows["right"].config_overrides == wrapped
    assert "s3cr3t" not in repr(manifest)


def test_a_copy_of_what_may_be_secret_stays_an_expression(catalog: Catalog) -> None:
    text = (
        "apiVersion: engine/v1\nusers:\n  user0:\n    flows:\n"
        "      a: {flow_class_name: sample.Echo, config_overrides: {key: '${oc.env:KEY}'}}\n"
        "      b: ${users.user0.flows.a}\n"
        "      c:\n        flow_class_name: sample.Echo\n"
        "        config_overrides: ${users.user0.flows.a.config_overrides}\n"
        "  user1: ${users.user0}\n"
    )
    manifest = manifest_of(text, catalog, KEY="s3cr3t")
    for user in manifest.users.values():
        for flow in user.flows.values():
            assert flow.config_overrides == {"key": {"$env": "${oc.env:KEY}"}}


def test_config_overrides_cannot_come_from_the_environment_as_a_whole(catalog: Catalog) -> None:
    with pytest.raises(InvalidManifestError) as caught:
        flow_of("        config_overrides: ${oc.env:KEY}\n", catalog, KEY="s3cr3t")
    (fault,) = caught.value.faults
    assert fault.message == "Expected a mapping of keys to values, and this gives text."


def test_anchors_and_merge_keys(catalog: Catalog) -> None:
    flow = flow_of(
        "        config_overrides:\n"
        "          base: &base {a: 1, b: 2}\n"
        "          other: {<<: *base, b: 3}\n"
        "          both: {<<: [{a: 0}, *base]}\n"
        "          same: *base\n",
        catalog,
    )
    assert flow.config_overrides == {
        "base": {"a": 1, "b": 2},
        "other": {"a": 1, "b": 3},
        "both": {"a": 0, "b": 2},
        "same": {"a": 1, "b": 2},
    }


def test_a_fault_in_a_merged_value_is_where_it_was_written(catalog: Catalog) -> None:
    with pytest.raises(InvalidManifestError) as caught:
        flow_of("        <<: {singleton: 3}\n", catalog)
    assert [(fault.line, fault.column) for fault in caught.value.faults] == [(8, 25)]


def test_a_manifest_of_ten_thousand_flows(catalog: Catalog) -> None:
    flows = "".join(
        f"      echo{number}: {{flow_class_name: sample.Echo, allow: [user0]}}\n"
        for number in range(10_000)
    )
    text = f"apiVersion: engine/v1\nusers:\n  user0:\n    flows:\n{flows}"
    assert len(manifest_of(text, catalog).users["user0"].flows) == 10_000
    with pytest.raises(InvalidManifestError) as caught:
        manifest_of(text.replace("sample.Echo", "sample.Ecko"), catalog)
    assert len(caught.value.faults) == 10_000


def test_a_chain_of_ten_thousand_subflows_has_no_cycle(catalog: Catalog) -> None:
    flows = "".join(
        f"      r{number}: {{flow_class_name: sample.Ring,"
        f" subflows: {{next: {{flow_endpoint: r{number + 1}}}}}}}\n"
        for number in range(10_000)
    )
    text = (
        "apiVersion: engine/v1\nusers:\n  user0:\n    flows:\n"
        f"{flows}      r10000: {{flow_class_name: sample.Echo}}\n"
    )
    assert manifest_of(text, catalog).users["user0"].flows["r0"].subflows


def grown(first: str, line: str, catalog: Catalog) -> str:
    """Return what is wrong with thirty values of which each refers twice to the one before."""
    lines = [f"          a0: {first}\n"]
    lines += [f"          a{n + 1}: {line.replace('#', str(n))}\n" for n in range(30)]
    with pytest.raises(InvalidManifestError) as caught:
        flow_of("        config_overrides:\n" + "".join(lines), catalog)
    (fault,) = caught.value.faults
    return fault.message


def test_references_that_grow_without_bounds_are_refused(catalog: Catalog) -> None:
    texts = grown("x", "${.a#}${.a#}", catalog)
    assert texts == "This text grows to more than a million characters."
    mappings = grown("{k: 1}", "{l: '${..a#}', r: '${..a#}'}", catalog)
    assert mappings == "References copy more than a million values."


def test_the_starter_is_valid_as_it_is_and_with_its_examples(catalog: Catalog) -> None:
    assert list(manifest_of(starter(), catalog).users) == ["user0"]
    lines = [
        line.replace("# ", "", 1) if line.startswith(("  #", "    # ")) else line
        for line in starter().replace("flows: {} ", "flows:").splitlines()
    ]
    manifest = manifest_of("\n".join(lines), load_catalog(Flow))
    assert list(manifest.users["user1"].mounts) == ["twice"]


def test_variables_are_all_that_are_written_out() -> None:
    text = "a: ${oc.env:ONE}\nb: ${oc.env:TWO,${oc.env: THREE}}\n# ${oc.env:'FOUR'}\nc: [${x:FIVE}"
    assert variables(text) == {"ONE", "TWO", "THREE", "FOUR"}


def test_what_cannot_be_text_is_told_and_a_text_that_is_too_long_is_not_read(
    catalog: Catalog,
) -> None:
    with pytest.raises(InvalidManifestError) as caught:
        flow_of(
            f"        config_overrides: {{a: '${{oc.env:BAD}}', b: '${{x}}{'y' * 100_001}'}}\n",
            catalog,
            BAD="\udcff",
        )
    assert [fault.message for fault in caught.value.faults] == [
        "The environment variable BAD is not UTF-8 text.",
        "The ${ in this text cannot be read: it has more than 100,000 characters.",
    ]
