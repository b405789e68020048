import io

import pytest

from engine.cli.inputs import json_object, target
from engine.model.errors import UsageError

NOTHING = io.StringIO()


def test_a_target_is_a_user_and_a_name():
    assert target("user1/twice") == ("user1", "twice")


@pytest.mark.parametrize("text", ["", "user1", "/twice", "user1/", "a/b/c"])
def test_anything_else_is_no_target(text):
    with pytest.raises(UsageError, match="USER/NAME"):
        target(text)


def test_no_input_is_an_empty_object():
    assert json_object(None, NOTHING) == {}


def test_input_comes_from_the_argument_a_file_or_standard_input(tmp_path):
    file = tmp_path / "input.json"
    file.write_text('{"from": "file"}')
    assert json_object('{"from": "argument"}', NOTHING) == {"from": "argument"}
    assert json_object(f"@{file}", NOTHING) == {"from": "file"}
    assert json_object("-", io.StringIO('{"from": "stdin"}')) == {"from": "stdin"}


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path):
    file = tmp_path / "input.json"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert json_object(f"@{file}", NOTHING) == {"a": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{number: 1}", r"line 1, column 2.*single quotes"),
        ('{"a": 1,\n "b" 2}', "line 2, column 6"),
        ("", "line 1, column 1"),
        ("[1]", "array, but a flow takes an object"),
        ("3", "number, but"),
        ("true", "boolean, but"),
        ("null", "null, but"),
        ('"a"', "string, but"),
        ('{"a": NaN}', "no NaN in it"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_what_is_not_a_json_object_is_refused_with_the_place(text, message):
    with pytest.raises(UsageError, match=message):
        json_object(text, NOTHING)


def test_files_that_cannot_be_read_are_named(tmp_path):
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="absent cannot be read: No such file"):
        json_object(f"@{tmp_path}/absent", NOTHING)
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        json_object(f"@{tmp_path}", NOTHING)
    with pytest.raises(UsageError, match="not UTF-8"):
        json_object(f"@{binary}", NOTHING)
