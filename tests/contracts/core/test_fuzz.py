"""Malformed requests, tokens and bytes to every RPC: no crash, no hang, no foreign data (§2.3).

A few examples run with the suite; CONTRACT_FUZZ_EXAMPLES=100000 makes it as many for each test.
"""

import logging
import os
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.colink import identity, wire
from engine.core.server import Core
from tests.support.contract import mint, sign
from tests.support.core import CoreUser, make_user
from tests.support.rpc import Code, bearer

SECRET = b"nobody but the victim may ever see this"
_DEADLINE = 20.0
_STATUSES = frozenset(
    {
        *(Code.OK, Code.UNAUTHENTICATED, Code.PERMISSION_DENIED, Code.INVALID_ARGUMENT),
        *(Code.INTERNAL, Code.NOT_FOUND, Code.ABORTED, Code.FAILED_PRECONDITION),
        # Ours: limits, and a message queue that is just restarting.
        *(Code.RESOURCE_EXHAUSTED, Code.UNAVAILABLE),
    }
)
_FOUL_WORDS = ("The core failed", "Exception", "Traceback")
"""In no answer: they would tell of a mistake of the core's own."""
_fuzzed = settings(
    max_examples=int(os.environ.get("CONTRACT_FUZZ_EXAMPLES", "150")),
    deadline=None,
    # The core of a test goes on from one example to the next: all the better.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

# Requests

_NAMES = (
    "_internal:mq_uri",
    "_internal:user_consent",
    "_internal:tasks:status:started",
    "_internal:protocols:greet:waiting:latest",
    "_policy_module:settings",
    "_lock:a",
    "remote_storage.create",
    "policy_module",
    "requester",
    "provider",
    "initiator",
    "user",
    "guest",
    "host",
    "a:b",
    "::",
    "@",
    "a@0",
    "a" * 5000,
    ":" * 300,
)


def _texts(known: tuple[str, ...]) -> st.SearchStrategy[str]:
    characters = st.characters(exclude_categories=("Cs",))
    return st.one_of(st.sampled_from((*_NAMES, *known)), st.text(characters, max_size=30))


def _payloads() -> st.SearchStrategy[bytes]:
    """Bytes, among them encoded messages, as payloads that operators of the core decode."""
    inner = [wire.Settings, wire.CreateParams, wire.ReadParams, wire.UserRecord, wire.Task]
    encoded = st.one_of([_messages(kind.DESCRIPTOR, (), depth=2) for kind in inner])
    return st.one_of(st.binary(max_size=100), encoded.map(lambda m: m.SerializeToString()))


def _messages(descriptor: Any, known: tuple[str, ...], depth: int = 3) -> st.SearchStrategy[Any]:
    """Messages of any type, with `known` (ids of users and tasks) among their texts."""
    kind = getattr(wire, descriptor.name, None) or descriptor._concrete_class
    fields = {}
    for field in descriptor.fields:
        if field.type == FieldDescriptor.TYPE_MESSAGE and depth == 0:
            continue
        value = _values(field, known, depth)
        repeated = field.label == FieldDescriptor.LABEL_REPEATED
        fields[field.name] = st.lists(value, max_size=4) if repeated else value
    return st.fixed_dictionaries({}, optional=fields).map(lambda found: kind(**found))


def _values(field: Any, known: tuple[str, ...], depth: int) -> st.SearchStrategy[Any]:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return _messages(field.message_type, known, depth - 1)
    if field.type == FieldDescriptor.TYPE_STRING:
        return _texts(known)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=100) if depth < 3 else _payloads()
    if field.type == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    if field.type == FieldDescriptor.TYPE_INT32:
        return st.integers(-(2**31), 2**31 - 1)
    if field.type == FieldDescriptor.TYPE_ENUM:
        return st.integers(0, 3)
    # Seconds and nanoseconds: the ends, what is now, and anything.
    ends = st.sampled_from([-(2**63), -1, 0, 1, 2**31, 1_700_000_000, 2**63 - 1])
    return st.one_of(ends, st.integers(-(2**63), 2**63 - 1))


_METHODS = {
    f"/{service}/{name}": (streams, request, reply)
    for service, methods in (
        ("colink.CoLink", wire._METHODS),
        (wire.EXTENSION_SERVICE, {n: (False, *m) for n, m in wire._EXTENSION.items()}),
    )
    for name, (streams, request, reply) in methods.items()
}
_STRANGER = identity.KeyPair(b"\x07" * 32).user_id


class Target:
    """A core with a user who is attacked, and one (with a guest) who attacks."""

    def __init__(self, core: Core, channel: Any, victim: CoreUser, attacker: CoreUser) -> None:
        self.core = core
        self._channel = channel
        self.victim = victim
        self.attacker = attacker
        self.tokens = {
            "user": attacker.jwt,
            "guest": mint(core, "guest", attacker.user_id),
            "nobody": "",
        }
        self.known = (
            *(attacker.user_id, victim.user_id, _STRANGER, core.host_id),
            *(f"{victim.user_id}:", f"{victim.user_id}::secret", f"{attacker.user_id}::"),
            *("secret", "secret:deep", f"{victim.user_id}::secret@1", core.host_token),
        )

    @classmethod
    async def prepare(cls, core: Core, channel: Any) -> "Target":
        """Make the users, and give the victim something to lose."""
        operators = ("coflows_scheduler",) if isinstance(core, Core) else ()
        target = cls(core, channel, *[await make_user(core, operators) for _ in range(2)])
        private = f"_remote_storage:private:{target.victim.user_id}:k"
        for name in ("secret", "secret:deep", private):
            entry = wire.StorageEntry(key_name=name, payload=SECRET)
            await target.call("/colink.CoLink/CreateEntry", entry, target.victim.jwt)
        return target

    async def call(
        self, path: str, request: Any, token: str | None, *more: tuple[str, str]
    ) -> tuple[Code, str, bytes]:
        """Return status, details and the reply's bytes; the request may be bytes itself."""
        metadata = (*(() if token is None else bearer(token)), *more)
        encoded = request if isinstance(request, bytes) else request.SerializeToString()
        streams = _METHODS[path][0]
        connect = self._channel.unary_stream if streams else self._channel.unary_unary
        call = connect(path)(encoded, metadata=metadata, timeout=_DEADLINE)
        try:
            reply = await (call.read() if streams else call)
        except grpc.aio.AioRpcError as error:
            return error.code(), error.details() or "", b""
        finally:
            call.cancel()
        return Code.OK, "", reply if isinstance(reply, bytes) else b""

    async def attack(self, path: str, request: Any, token: str | None) -> None:
        """Send something, and see that it was refused or answered as it should be."""
        code, details, reply = await self.call(path, request, token)
        if path.endswith("ReverseConnection") and code is Code.UNIMPLEMENTED:
            return
        assert code in _STATUSES, (code, details)
        assert not [word for word in _FOUL_WORDS if word in details], details
        assert SECRET not in reply

    async def is_unharmed(self) -> None:
        """Assert that the core lives and the victim has what he had."""
        names = [wire.StorageEntry(key_name=name) for name in ("secret", "secret:deep")]
        request = wire.StorageEntries(entries=names)
        path = "/colink.CoLink/ReadEntries"
        code, details, reply = await self.call(path, request, self.victim.jwt)
        assert code is Code.OK, details
        payloads = [entry.payload for entry in wire.StorageEntries.FromString(reply).entries]
        assert payloads == [SECRET, SECRET]

    async def knows_no_secret(self) -> None:
        """Assert that nothing of the victim's has come into the attacker's storage."""
        request = wire.ReadKeysRequest(prefix="")
        _, _, reply = await self.call(
            f"/{wire.EXTENSION_SERVICE}/ReadTree", request, self.attacker.jwt
        )
        assert SECRET not in reply


@pytest.fixture
async def target(core: Core, caplog: pytest.LogCaptureFixture) -> Any:
    """The core under attack. At the end, it must not have logged a mistake of its own."""
    options = [("grpc.max_receive_message_length", -1)]
    address = core.address.removeprefix("http://")
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield await Target.prepare(core, channel)
    failures = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert not failures, failures[0].exc_text


@_fuzzed
@given(data=st.data())
async def test_strange_requests_are_answered_in_order(target: Target, data) -> None:
    path = data.draw(st.sampled_from([*_METHODS]), "method")
    request = data.draw(_messages(_METHODS[path][1].DESCRIPTOR, target.known), "request")
    await target.attack(path, request, data.draw(st.sampled_from([*target.tokens.values()]), "as"))
    await target.is_unharmed()


@_fuzzed
@given(path=st.sampled_from([*_METHODS]), noise=st.binary(max_size=200))
async def test_bytes_that_are_no_message(target: Target, path: str, noise: bytes) -> None:
    await target.attack(path, noise, target.attacker.jwt)
    await target.is_unharmed()


_OPERATED = {
    "remote_storage.create": (wire.CreateParams, ("requester", "provider")),
    "remote_storage.update": (wire.UpdateParams, ("requester", "provider")),
    "remote_storage.read": (wire.ReadParams, ("requester", "provider")),
    "remote_storage.delete": (wire.DeleteParams, ("requester", "provider")),
    "registry": (wire.UserRecord, ("query_from_registries", "update_registries")),
    "policy_module": (wire.Settings, ("local", "local")),
    "coflows_push": (wire.Task, ("initiator", "receiver")),
    "coflows_scheduler": (wire.Task, ("local", "local")),
    "any_dispatch": (wire.Task, ("local", "local")),
}


@_fuzzed
@given(data=st.data())
async def test_strange_tasks_for_built_in_operators(target: Target, data) -> None:
    protocol = data.draw(st.sampled_from([*_OPERATED]), "protocol")
    kind, roles = _OPERATED[protocol]
    known = (*target.known, "k", "_variable_transfer:x:status")
    strange = st.one_of(
        _messages(kind.DESCRIPTOR, known, depth=2).map(lambda m: m.SerializeToString()),
        st.binary(max_size=50),
        st.sampled_from([b"{}", b"[]", b'{"flow_id": "f", "message_ids": ["secret"]}', b"null"]),
    )
    users = [target.attacker.user_id, target.victim.user_id][: data.draw(st.integers(1, 2))]
    task = wire.Task(
        protocol_name=protocol,
        protocol_param=data.draw(strange, "parameter"),
        participants=[
            wire.Participant(user_id=user, role=data.draw(st.sampled_from([*roles, ""])))
            for user in users
        ],
        require_agreement=data.draw(st.booleans()),
        expiration_time=data.draw(st.sampled_from([0, 2**62])),
    )
    await target.attack("/colink.CoLink/CreateTask", task, target.attacker.jwt)
    await target.is_unharmed()
    await target.knows_no_secret()


_VISIBLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200)


@_fuzzed
@given(
    token=st.one_of(
        _VISIBLE,
        st.lists(_VISIBLE, min_size=3, max_size=3).map(".".join),
        st.builds(lambda n, c: (n, c), st.integers(0, 200), st.characters(codec="ascii")),
    ),
    path=st.sampled_from([*_METHODS]),
)
async def test_tokens_that_are_none_are_never_accepted(target: Target, token, path: str) -> None:
    if isinstance(token, tuple):
        # One character of a good one changed.
        at, new = token
        good = target.core.host_token
        at %= len(good)
        token = good[:at] + (new if new.isalnum() else "-") + good[at + 1 :]
        if token == good or at == len(good) - 1:  # its last bits mean nothing
            return
    token = token.strip()
    code, _, _ = await target.call(path, b"", token)
    assert code is Code.UNAUTHENTICATED if token else code in _STATUSES
    await target.is_unharmed()


@_fuzzed
@given(
    claims=st.dictionaries(
        st.sampled_from(["privilege", "user_id", "exp", "aud", "nbf"]),
        st.one_of(
            *(st.none(), st.booleans(), st.floats(), st.integers(), st.text(max_size=10)),
            *(st.sampled_from(["host", "user", "guest"]), st.lists(st.integers(), max_size=2)),
        ),
    )
)
async def test_signed_tokens_with_strange_claims_do_no_harm(target: Target, claims) -> None:
    for path in ("/colink.CoLink/RequestInfo", "/colink.CoLink/ReadEntries"):
        token = sign(target.core, claims)
        code, details, _ = await target.call(path, b"", token)
        assert code in _STATUSES, details
    await target.is_unharmed()
