import subprocess
import sys

import pytest

from engine.colink import wire

ROUND_TRIP = """
entry = wire.Task.FromString(colink.Task(task_id="t", participants=[
    colink.Participant(user_id="u", role="r")]).SerializeToString())
assert entry.participants[0].role == "r"
assert isinstance(entry, colink.Task)
assert wire.CreateParams is colink.CreateParams
entry.participants.append(colink.Participant(user_id="v"))
colink.CoLink("http://127.0.0.1:1", "")
"""


def run(program: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(filter(None, sys.path)), **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("implementation", ["upb", "python"])
@pytest.mark.parametrize(
    "imports",
    [
        "from engine.colink import wire; import colink",
        "import colink; from engine.colink import wire",
    ],
)
def test_the_message_classes_are_the_sdk_s_in_either_order(imports, implementation):
    run(
        f"import warnings; warnings.simplefilter('ignore'); {imports}{ROUND_TRIP}",
        PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=implementation,
    )


def test_the_sdk_itself_is_not_imported():
    program = """
import sys
from engine.colink import wire
print(sorted({"colink", "pika", "requests", "redis"} & set(sys.modules)))
"""
    assert run(program).strip() == "[]"


def test_all_names_exist():
    for name in wire.__all__:
        assert getattr(wire, name) is not None


def test_stub_has_every_method_of_the_service():
    class Channel:
        def unary_unary(self, path: str, **_: object) -> str:
            return path

        def unary_stream(self, path: str, **_: object) -> str:
            return f"stream {path}"

    stub = wire.CoLinkStub(Channel())
    for name in wire.CoLinkStub.__annotations__:
        streams = name == "InterCoreSyncTaskWithReverseConnection"
        assert getattr(stub, name) == f"{'stream ' if streams else ''}/colink.CoLink/{name}"
    assert set(vars(stub)) == set(wire.CoLinkStub.__annotations__)
    extension = wire.ExtensionStub(Channel())
    assert extension.ReadTree == "/colink.engine.v1.Extension/ReadTree"
