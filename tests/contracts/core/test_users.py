"""§3: consents, tokens, privileges."""

import time

import coincurve
import jwt as pyjwt
import pytest

from engine.colink import identity, wire
from engine.core.server import Core
from tests.support.contract import becomes, mint, public_key
from tests.support.core import make_user
from tests.support.rpc import Code, bearer, refused
from tests.support.stock import blocking, sdk, stock


def _consent(core: Core, pair: identity.KeyPair, *, signed: float = 0, lasts: float = 3600):
    return pair.sign_consent(public_key(core), int(time.time() + lasts), int(time.time() + signed))


async def test_the_sdk_makes_a_user_and_finds_him_initialised(core: Core) -> None:
    host = stock(core, core.host_token)
    user = await blocking(host.switch_to_generated_user)
    claims = identity.claims(user.jwt)
    assert claims.privilege == "user"
    assert claims.exp == identity.claims(core.host_token).exp
    assert await blocking(user.read_entry, "_internal:_is_initialized") == b"\x01"
    stored = await blocking(user.read_entry, "_internal:user_consent")
    consent = wire.UserConsent.FromString(stored)
    assert consent.public_key.hex() == claims.user_id == user.get_user_id()
    host = stock(core, core.host_token)
    kept = await blocking(host.read_entry, f"users:{claims.user_id}:user_jwt")
    assert kept.decode() == user.jwt


async def test_a_token_has_exactly_the_claims_and_header_of_the_protocol(core: Core) -> None:
    secret = bytes.fromhex((core.settings.home / "init_state" / "jwt_secret.txt").read_text())
    token = (core.settings.home / "host_token.txt").read_text()
    assert token == core.host_token
    assert pyjwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT"}
    claims = pyjwt.decode(token, secret, algorithms=["HS256"])
    assert set(claims) == {"privilege", "user_id", "exp"}
    assert claims["user_id"] == public_key(core).hex()
    assert abs(claims["exp"] - time.time() - 31 * 86400) < 60


@pytest.mark.parametrize(
    ("signed", "lasts", "code"),
    [
        (-700, 3600, Code.UNAUTHENTICATED),
        (700, 3600, Code.UNAUTHENTICATED),
        (-10, -5, Code.INTERNAL),
    ],
)
async def test_stale_or_expired_consents_are_refused(core, stub, signed, lasts, code) -> None:
    consent = _consent(core, identity.KeyPair.generate(), signed=signed, lasts=lasts)
    assert await refused(stub.ImportUser(consent, metadata=bearer(core.host_token))) is code


async def test_malformed_or_forged_consents_are_refused(core: Core, stub) -> None:
    host = bearer(core.host_token)
    consent = _consent(core, identity.KeyPair.generate())
    consent.expiration_timestamp += 1
    assert await refused(stub.ImportUser(consent, metadata=host)) is Code.INVALID_ARGUMENT
    consent.signature = b"short"
    assert await refused(stub.ImportUser(consent, metadata=host)) is Code.INVALID_ARGUMENT
    consent.public_key = b"\x02" * 33
    assert await refused(stub.ImportUser(consent, metadata=host)) is Code.INVALID_ARGUMENT
    consent.public_key = b""
    assert await refused(stub.ImportUser(consent, metadata=host)) is Code.INVALID_ARGUMENT


def _metamask(core: Core, secret: bytes, lasts: float = 3600) -> wire.UserConsent:
    """Return a consent in MetaMask's form: no public key, a signature it is recovered from."""
    now = int(time.time())
    consent = wire.UserConsent(signature_timestamp=now, expiration_timestamp=int(now + lasts))
    digest = identity.consent_digest(consent, public_key(core))
    signature = coincurve.PrivateKey(secret).sign_recoverable(digest, hasher=None)
    consent.signature = signature[:64] + bytes((27 + signature[64],))
    return consent


async def test_a_consent_in_metamasks_form_is_as_good(core: Core, stub, bob) -> None:
    secret = b"\x03" * 32
    user_id = identity.KeyPair(secret).user_id
    token = (await stub.ImportUser(_metamask(core, secret), metadata=bearer(core.host_token))).jwt
    assert identity.claims(token).user_id == user_id
    request = wire.GenerateTokenRequest(
        expiration_time=2**31, privilege="user", user_consent=_metamask(core, secret, 5000)
    )
    renewed = (await stub.GenerateToken(request, metadata=bearer(""))).jwt
    user = stock(core, renewed)
    assert user.get_user_id() == user_id
    two = [
        sdk.Participant(user_id=user_id, role="initiator"),
        sdk.Participant(user_id=bob.get_user_id(), role="receiver"),
    ]
    task_id = await blocking(user.run_task, "p", b"", two, True)

    async def status() -> str:
        payload = await blocking(bob.read_entry, f"_internal:tasks:{task_id}")
        return wire.Task.FromString(payload).status

    await becomes(status, "started")


@pytest.mark.parametrize(
    "signature", [b"", b"x" * 64, b"\x01" * 64 + b"\x1a", b"\xff" * 64 + b"\x1b"]
)
@pytest.mark.ours  # upstream crashes on most of them
async def test_a_signature_nothing_is_recovered_from_is_malformed(core, stub, signature) -> None:
    consent = _metamask(core, b"\x04" * 32)
    consent.signature = signature
    call = stub.ImportUser(consent, metadata=bearer(core.host_token))
    assert await refused(call) is Code.INVALID_ARGUMENT


async def test_only_the_host_imports_users(core: Core, stub) -> None:
    user = await make_user(core)
    consent = _consent(core, identity.KeyPair.generate())
    call = stub.ImportUser(consent, metadata=bearer(user.jwt))
    assert await refused(call) is Code.PERMISSION_DENIED


@pytest.mark.ours
async def test_importing_again_keeps_the_user_and_his_operators(core: Core) -> None:
    user = await make_user(core)
    client = stock(core, user.jwt)
    await blocking(client.create_entry, "kept", b"1")
    group = await blocking(client.read_entry, "_internal:protocol_operator_groups:policy_module")
    again = await make_user(core, key_pair=user.key_pair)
    assert again.user_id == user.user_id
    client = stock(core, again.jwt)
    assert await blocking(client.read_entry, "kept") == b"1"
    key = "_internal:protocol_operator_groups:policy_module"
    assert await blocking(client.read_entry, key) == group
    assert await blocking(client.read_entry, "_internal:_is_initialized") == b"\x01"


async def test_the_header_must_be_there_and_may_be_empty(core: Core, stub) -> None:
    assert await refused(stub.RequestInfo(wire.Empty())) is Code.UNAUTHENTICATED
    info = await stub.RequestInfo(wire.Empty(), metadata=bearer(""))
    assert info.core_public_key == public_key(core)
    assert info.mq_uri == ""
    assert info.requestor_ip == "127.0.0.1"
    assert info.version


async def test_the_requestors_address_is_the_one_that_proxies_tell(stub) -> None:
    async def told(*headers: tuple[str, str]) -> str:
        info = await stub.RequestInfo(wire.Empty(), metadata=(*bearer(""), *headers))
        return info.requestor_ip

    forwarded, real = ("x-forwarded-for", "10.0.0.1, 10.0.0.2"), ("x-real-ip", "10.0.0.3")
    assert await told(forwarded, real) == "10.0.0.1"
    assert await told(real) == "10.0.0.3"


async def test_forged_and_expired_tokens_are_refused_before_anything(core: Core, stub) -> None:
    forged = pyjwt.encode(
        {"privilege": "host", "user_id": core.host_id, "exp": 2**31}, b"x" * 32, algorithm="HS256"
    )
    assert await refused(stub.RequestInfo(wire.Empty(), metadata=bearer(forged))) is (
        Code.UNAUTHENTICATED
    )
    expired = mint(core, "host", core.host_id, int(time.time()) - 1)
    assert await refused(stub.RequestInfo(wire.Empty(), metadata=bearer(expired))) is (
        Code.UNAUTHENTICATED
    )
    assert await refused(stub.RequestInfo(wire.Empty(), metadata=bearer("no.token"))) is (
        Code.UNAUTHENTICATED
    )


async def test_users_who_were_not_imported_are_denied(core: Core, stub) -> None:
    stranger = identity.KeyPair.generate()
    for privilege in ("user", "guest"):
        token = mint(core, privilege, stranger.user_id, 2**31)
        call = stub.RequestInfo(wire.Empty(), metadata=bearer(token))
        assert await refused(call) is Code.PERMISSION_DENIED


async def test_guests_and_nobody_reach_no_storage(core: Core, stub) -> None:
    user = await make_user(core)
    guest = mint(core, "guest", user.user_id, 2**31)
    entry = wire.StorageEntry(key_name="a", payload=b"1")
    for token in (guest, ""):
        for call in (
            stub.CreateEntry(entry, metadata=bearer(token)),
            stub.UpdateEntry(entry, metadata=bearer(token)),
            stub.DeleteEntry(entry, metadata=bearer(token)),
            stub.ReadEntries(wire.StorageEntries(), metadata=bearer(token)),
            stub.ReadKeys(wire.ReadKeysRequest(prefix=user.user_id), metadata=bearer(token)),
            stub.Subscribe(wire.SubscribeRequest(key_name="a"), metadata=bearer(token)),
            stub.CreateTask(wire.Task(), metadata=bearer(token)),
            stub.StartProtocolOperator(
                wire.StartProtocolOperatorRequest(protocol_name="registry", user_id=user.user_id),
                metadata=bearer(token),
            ),
        ):
            assert await refused(call) is Code.PERMISSION_DENIED
    info = await stub.RequestInfo(wire.Empty(), metadata=bearer(guest))
    assert info.mq_uri == ""


async def test_a_user_gets_tokens_for_himself(core: Core) -> None:
    user = await make_user(core)
    client = stock(core, user.jwt)
    guest = identity.claims(await blocking(client.generate_token, "guest"))
    assert (guest.privilege, guest.user_id) == ("guest", user.user_id)
    assert abs(guest.exp - time.time() - 86400) < 60
    month = int(time.time()) + 31 * 86400
    far = await blocking(client.generate_token_with_expiration_time, month, "user")
    assert identity.claims(far).exp == month
    assert await blocking(stock(core, far).read_entry, "_internal:_is_initialized") == b"\x01"


@pytest.mark.ours
async def test_a_token_lasts_no_longer_than_the_core_allows(core: Core) -> None:
    client = stock(core, (await make_user(core)).jwt)
    endless = await blocking(client.generate_token_with_expiration_time, 2**33, "guest")
    assert abs(identity.claims(endless).exp - time.time() - 366 * 86400) < 60


async def test_a_consent_brings_a_token_to_nobody_in_particular(core: Core, stub) -> None:
    user = await make_user(core)
    later = _consent(core, user.key_pair, signed=-5000, lasts=10**6)
    request = wire.GenerateTokenRequest(expiration_time=2**31, privilege="user", user_consent=later)
    token = (await stub.GenerateToken(request, metadata=bearer(""))).jwt
    assert identity.claims(token).user_id == user.user_id
    stored = await blocking(stock(core, token).read_entry, "_internal:user_consent")
    assert stored == later.SerializeToString()


async def test_tokens_by_consent_are_refused_as_the_sheet_says(core: Core, stub) -> None:
    user = await make_user(core)
    stranger = _consent(core, identity.KeyPair.generate())

    def ask(consent: wire.UserConsent | None, privilege: str = "user", token: str = ""):
        request = wire.GenerateTokenRequest(
            expiration_time=2**31, privilege=privilege, user_consent=consent
        )
        return refused(stub.GenerateToken(request, metadata=bearer(token)))

    assert await ask(stranger) is Code.PERMISSION_DENIED
    assert await ask(None) is Code.PERMISSION_DENIED
    assert await ask(None, "host", user.jwt) is Code.PERMISSION_DENIED
    assert await ask(_consent(core, user.key_pair, lasts=-1)) is Code.INTERNAL
    forged = _consent(core, user.key_pair)
    forged.signature = b"\x01" * 64
    assert await ask(forged) is Code.INVALID_ARGUMENT


async def test_the_sdk_renews_a_token_by_signature(core: Core) -> None:
    user = await make_user(core)
    consent = _consent(core, user.key_pair)
    nobody = stock(core, "")
    token = await blocking(
        nobody.generate_token_with_signature,
        sdk.application.coincurve.PublicKey(consent.public_key),
        consent.signature_timestamp,
        consent.expiration_timestamp,
        consent.signature,
    )
    assert identity.claims(token).user_id == user.user_id
