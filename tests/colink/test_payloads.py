import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.colink import keys, payloads
from engine.colink.payloads import KeyPath
from engine.model.errors import UsageError


def test_integers_are_32_bytes_little_endian():
    assert payloads.integer_bytes(1) == b"\x01" + bytes(31)
    assert payloads.integer_bytes(True) == b"\x01" + bytes(31)
    assert payloads.integer_bytes(-1) == b"\xff" * 32
    assert payloads.integer_value(b"\x02") == 2
    assert payloads.integer_value(b"") == 0


@given(st.integers(-(2**255), 2**255 - 1))
def test_integers_survive(value):
    assert payloads.integer_value(payloads.integer_bytes(value)) == value


def test_json_is_written_as_python_does_by_default():
    assert payloads.json_bytes({"a": [1, "é"]}) == b'{"a": [1, "\\u00e9"]}'


@pytest.mark.parametrize("payload", [b"", b"\x80\x04", b"{", b"[" * 100_000])
def test_what_is_not_json_is_a_value_error(payload):
    with pytest.raises(ValueError):
        payloads.json_value(payload)


def test_flags():
    assert payloads.is_set(b"\x01")
    assert payloads.is_set(payloads.integer_bytes(1))
    assert not payloads.is_set(b"\x00")
    assert not payloads.is_set(b"")
    assert not payloads.is_set(None)


@given(st.from_regex(r"[0-9a-f]{4}", fullmatch=True), st.text(), st.integers(0, 2**63 - 1))
def test_key_paths_survive(owner, key_name, timestamp):
    path = KeyPath(owner, key_name, timestamp)
    assert payloads.parse_key_path(str(path)) == path


def test_markers_of_listings():
    assert payloads.parse_key_path("u::flows:x@0").is_directory
    assert not payloads.parse_key_path("u::flows:x@1").is_directory


@pytest.mark.parametrize("text", ["", "a", "a::b", "a:b@1", "a::b@x", "a::b@"])
def test_what_is_no_key_path_is_a_value_error(text):
    with pytest.raises(ValueError):
        payloads.parse_key_path(text)


def test_keys_of_tasks_name_the_role_only_where_it_is_given():
    assert keys.protocol_latest("greetings", "started", "receiver") == (
        "_internal:protocols:greetings:receiver:started:latest"
    )
    assert keys.protocol_latest("greetings", "waiting") == (
        "_internal:protocols:greetings:waiting:latest"
    )


def test_response_key_replaces_the_last_segment():
    assert keys.push_response(keys.push_message("u-1")) == "push_tasks:u-1:response"


@pytest.mark.parametrize(
    ("key", "accepted"),
    [
        ("push_tasks:0b2e4f0e-6f6b-4a0e-9b62-6f54ad1b1a11:msg", True),
        ("push_tasks:0b2e4f0e-6f6b-4a0e-9b62-6f54ad1b1a11:response", True),
        ("push_tasks::msg", False),
        ("push_tasks:a:b:msg", False),
        ("push_tasks:a:msg\n", False),
        ("_internal:tasks:a:msg", False),
        ("flows:x:init", False),
    ],
)
def test_only_keys_of_messages_and_replies_are_push_keys(key, accepted):
    assert keys.is_push_key(key) is accepted


def test_handler_names_split_at_the_last_colon():
    assert keys.split_handler("remote_storage.create:provider") == (
        "remote_storage.create",
        "provider",
    )
    assert keys.split_handler("a:b:c") == ("a:b", "c")
    for wrong in ("", "a", ":a", "a:"):
        with pytest.raises(UsageError):
            keys.split_handler(wrong)
