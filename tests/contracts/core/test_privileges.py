"""§2.2: who may call which RPC; §3.1: what an `authorization` header has to be."""

import time
from typing import Any

import grpc.aio
import pytest

from engine.colink import identity, wire
from engine.core.server import Core
from tests.support.contract import mint
from tests.support.core import make_user
from tests.support.rpc import Code, bearer

_ALLOWED: dict[str, tuple[wire.Empty, str]] = {
    # A request that harms nobody, and the initials of whom it is answered.
    "RequestInfo": (wire.Empty(), "HUGA"),
    "GenerateToken": (wire.GenerateTokenRequest(privilege="guest", expiration_time=2**31), "U"),
    "ImportUser": (wire.UserConsent(), "H"),
    "CreateEntry": (wire.StorageEntry(key_name="a", payload=b"1"), "HU"),
    "ReadEntries": (wire.StorageEntries(), "HU"),
    "UpdateEntry": (wire.StorageEntry(key_name="a", payload=b"1"), "HU"),
    "DeleteEntry": (wire.StorageEntry(key_name="a"), "HU"),
    "ReadKeys": (wire.ReadKeysRequest(prefix=""), "HU"),
    "CreateTask": (wire.Task(protocol_name="p"), "U"),
    "ConfirmTask": (wire.ConfirmTaskRequest(), "U"),
    "FinishTask": (wire.Task(task_id="none"), "U"),
    "Subscribe": (wire.SubscribeRequest(key_name="a"), "HU"),
    "Unsubscribe": (wire.MQQueueName(queue_name="none"), "HU"),
    "StartProtocolOperator": (wire.StartProtocolOperatorRequest(protocol_name="a/b"), "HU"),
    "StopProtocolOperator": (wire.ProtocolOperatorInstanceId(instance_id="none"), "HU"),
    "InterCoreSyncTask": (wire.Task(task_id="none"), "UG"),
    "InterCoreSyncTaskWithReverseConnection": (wire.Task(task_id="none"), "UG"),
}
_OTHERWISE_CREATED = {"CreateTask"}
"""Upstream crashes on a task of nobody, so only who may not is asked there."""


async def _code(call: Any) -> grpc.StatusCode:
    """Return the status of a call, also of one that streams replies."""
    try:
        await (call.read() if hasattr(call, "read") else call)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return Code.OK


@pytest.fixture
async def tokens(core: Core) -> dict[str, str]:
    """A token of each privilege, by its initial; the guest's and the user's of one user."""
    user = await make_user(core)
    guest = mint(core, "guest", user.user_id)
    return {"H": core.host_token, "U": user.jwt, "G": guest, "A": ""}


@pytest.mark.parametrize("method", _ALLOWED)
async def test_each_rpc_answers_whom_it_should(stub, tokens, method) -> None:
    request, allowed = _ALLOWED[method]
    # An operator is started for somebody, here for the caller.
    for initial, token in tokens.items():
        if isinstance(request, wire.StartProtocolOperatorRequest) and token:
            request.user_id = identity.claims(token).user_id
        if initial in allowed and method in _OTHERWISE_CREATED:
            continue
        code = await _code(getattr(stub, method)(request, metadata=bearer(token), timeout=20))
        assert (code is not Code.PERMISSION_DENIED) == (initial in allowed), (initial, code)
        assert code is not Code.UNAUTHENTICATED or method == "ImportUser"


@pytest.mark.parametrize("method", _ALLOWED)
async def test_each_rpc_wants_a_valid_token(core: Core, stub, method) -> None:
    request, _ = _ALLOWED[method]
    forged = f"{core.host_token[:-4]}AAAA"
    expired = mint(core, "host", core.host_id, time.time() - 1)
    stranger = mint(core, "user", identity.KeyPair.generate().user_id)
    call = getattr(stub, method)
    assert await _code(call(request)) is Code.UNAUTHENTICATED, "no header"
    for token in (forged, expired, "no.token", "x"):
        code = await _code(call(request, metadata=bearer(token)))
        assert code is Code.UNAUTHENTICATED
    assert await _code(call(request, metadata=bearer(stranger))) is Code.PERMISSION_DENIED


async def test_nobody_gains_by_internal_metadata(stub, core: Core) -> None:
    # The upstream's interceptor hands these on by itself; on the wire they mean nothing.
    metadata = (*bearer(""), ("privilege", "host"), ("user_id", core.host_id))
    code = await _code(stub.ReadEntries(wire.StorageEntries(), metadata=metadata))
    assert code is Code.PERMISSION_DENIED
