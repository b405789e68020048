"""Messages that fail and callers who may not: what their users see on the command line."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engine import EngineCommand, engine_home

NUMBER = '{"number": 12}'
REVERSED = '{"output_number": 21}\n'
MANIFEST = """\
apiVersion: engine/v1
name: delivery
users:
  user0:
    flows:
      atomic:
        flow_class_name: reverse_number.ReverseNumberAtomicFlow
        allow: {get_instance: [user1], send: [user1]}
        retries: {attempts: 2, backoff: 0.01}
      alone:
        flow_class_name: reverse_number.ReverseNumberAtomicFlow
  user1:
    flows:
      twice:
        flow_class_name: reverse_number.ReverseNumberSequentialFlow
        subflows:
          first_reverse_flow: {user_id: user0, flow_endpoint: atomic}
          second_reverse_flow: {user_id: user0, flow_endpoint: atomic}
    mounts:
      twice: {flow_endpoint: twice}
      direct: {flow_endpoint: atomic, user_id: user0}
  user2: {}
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineCommand]:
    """An engine with the manifest applied."""
    file: Path = tmp_path_factory.mktemp("delivery") / "delivery.yaml"
    file.write_text(MANIFEST)
    with engine_home() as command:
        command("apply", file)
        yield command


def test_what_fails_is_told_kept_and_can_be_sent_again(engine: EngineCommand) -> None:
    failed = engine("call", "user1/direct", '{"number": "none"}', expect=1)
    assert failed.stderr.count("\n") == 1
    (letter,) = engine.json("dead", "list", "user0")
    assert (letter["reason"], letter["flow_endpoint"], letter["attempts"]) == (
        "failed",
        "atomic",
        2,
    )
    shown = engine.json("dead", "show", "user0", letter["id"])
    assert "Traceback" in shown["traceback"]
    assert json.loads(shown["message"])["data"]["number"] == "none"
    assert "Traceback" in engine("dead", "show", "user0", letter["id"]).stdout
    again = engine("dead", "retry", "user0", letter["id"], expect=1)
    assert again.stderr.startswith("error: ")
    (other,) = engine.json("dead", "list", "user0")
    assert other["id"] != letter["id"]
    assert engine.json("dead", "drop", "user0", "--all") == {"dropped": [other["id"]]}
    assert engine.json("dead", "list", "user0") == []
    missing = engine("dead", "show", "user0", "nothing", expect=1)
    assert missing.stderr.startswith("error: There is no dead letter nothing.")


def test_who_is_not_allowed_is_told_so_and_it_is_an_event(engine: EngineCommand) -> None:
    refused = engine("call", "user0/atomic", '{"number": 1}', "--as", "user2", expect=1)
    assert "is not allowed to use it" in refused.stderr
    engine("call", "user0/atomic", '{"number": 12}', "--as", "user1")
    events = engine("events", "-o", "json").stdout.splitlines()
    (event,) = [e for e in map(json.loads, events) if e["type"] == "Refused"]
    assert (event["manifest"], event["resource"]) == ("delivery", "user0/atomic")
    assert event["message"].startswith("user2: AccessDeniedError: ")


def test_a_change_of_policy_is_taken_over_in_place(engine: EngineCommand) -> None:
    file = Path(engine.manifest("delivery")["file"])
    last = "        flow_class_name: reverse_number.ReverseNumberAtomicFlow\n  user1:"
    shut = last.replace(
        "\n  user1:", "\n        allow: {send: []}\n        mailbox_limit: 3\n  user1:"
    )
    assert engine("call", "user0/alone", NUMBER, "--as", "user1").stdout == REVERSED
    file.write_text(MANIFEST.replace(last, shut))
    engine("apply", file)
    refused = engine("call", "user0/alone", NUMBER, "--as", "user1", expect=1)
    assert "is not allowed to send to it" in refused.stderr
    assert engine("call", "user0/alone", NUMBER).stdout == REVERSED, "it is user0's own"
    file.write_text(MANIFEST)
    engine("apply", file)
    assert engine("call", "user0/alone", NUMBER, "--as", "user1").stdout == REVERSED


def test_composites_work_across_those_who_are_allowed(engine: EngineCommand) -> None:
    assert engine("call", "user1/twice", NUMBER).stdout == '{"output_number": 12}\n'
