import base64
import hashlib
import json

import pytest

from engine.colink import identity, wire
from engine.colink.identity import KeyPair
from engine.colink.keccak import keccak_256
from engine.model.errors import UsageError

USER = KeyPair(b"\x01" * 32)
CORE = KeyPair(b"\x02" * 32)
SIGNED_AT, EXPIRES_AT = 1700000000, 1700086400


@pytest.fixture
def consent() -> wire.UserConsent:
    return USER.sign_consent(CORE.public_key, EXPIRES_AT, SIGNED_AT)


@pytest.fixture
def task() -> wire.Task:
    return wire.Task(
        task_id="00000000-0000-4000-8000-000000000000",
        protocol_name="greetings",
        protocol_param=b"hello",
        participants=[
            wire.Participant(user_id=USER.user_id, role="initiator"),
            wire.Participant(user_id=CORE.user_id, role="receiver"),
        ],
        require_agreement=True,
        expiration_time=EXPIRES_AT,
    )


def test_user_ids_are_compressed_public_keys():
    assert USER.user_id == "031b84c5567b126440995d3ed5aaba0565d71e1834604819ff9c17f5e9d5dd078f"
    assert CORE.user_id == "024d4b6cd1361032ca9bd2aeb9d900aa4d45d9ead80ac9423374c451a7254d0766"


def test_consent_has_the_bytes_of_the_protocol_sheet(consent):
    digest = identity.consent_digest(consent, CORE.public_key).hex()
    assert digest == "5eea03e4d3c454643b7951398d25093eea3edfaa641d562e4326d5d81ba45d78"
    assert consent.signature.hex() == (
        "8b1062b09012acf529d4842286918f5c79e90aaab3280d648d0fd3497e68ecd0"
        "47496733b9fb20da21ca58c5b67c864f4bde342889ffd14e44de9e6540656d70"
    )
    encoded = consent.SerializeToString()
    assert len(encoded) == 113
    assert hashlib.sha256(encoded).hexdigest() == (
        "0ec48132042872f61f4b7f66909ab0ad453e847587ca69a3d7139ed6016b46d3"
    )
    assert identity.verify_consent(consent, CORE.public_key) == USER.user_id


def test_consent_of_metamask_has_the_bytes_of_the_protocol_sheet():
    consent = wire.UserConsent(
        signature_timestamp=SIGNED_AT,
        expiration_timestamp=EXPIRES_AT,
        signature=bytes.fromhex(
            "c43bb93efb96b067831f4a0b8497b092950ed5dd2a76a167edf2d33555c848fc"
            "2241135c2bc4f9283ae99d56ea8c67e52ebed7d3402fdbd19c265746471cab101b"
        ),
    )
    digest = identity.consent_digest(consent, CORE.public_key).hex()
    assert digest == "0cc67678dff79c9eee33dce2acd9efa82337fbcac9577ddbad3b1c5b97fd1d42"
    assert identity.verify_consent(consent, CORE.public_key) == USER.user_id


@pytest.mark.parametrize(
    "signature", [b"", b"\x00" * 64, b"\x00" * 64 + b"\x1b", b"\x01" * 64 + b"\x00", b"\xff" * 65]
)
def test_malformed_signatures_of_metamask_are_refused(signature):
    consent = wire.UserConsent(
        signature_timestamp=SIGNED_AT, expiration_timestamp=EXPIRES_AT, signature=signature
    )
    with pytest.raises(UsageError):
        identity.verify_consent(consent, CORE.public_key)


def test_consent_for_another_core_or_time_is_refused(consent):
    with pytest.raises(UsageError):
        identity.verify_consent(consent, USER.public_key)
    consent.expiration_timestamp += 1
    with pytest.raises(UsageError):
        identity.verify_consent(consent, CORE.public_key)


@pytest.mark.parametrize("public_key", [b"\x00", b"\x05" * 33, b"\x02" + b"\xff" * 32])
def test_consent_with_a_bad_public_key_is_refused(consent, public_key):
    consent.public_key = public_key
    with pytest.raises(UsageError):
        identity.verify_consent(consent, CORE.public_key)


def test_signature_with_high_s_is_refused():
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    signature = USER.sign(b"content")
    high = order - int.from_bytes(signature[32:])
    assert identity.verify(USER.public_key, b"content", signature)
    assert not identity.verify(USER.public_key, b"content", signature[:32] + high.to_bytes(32))
    assert not identity.verify(USER.public_key, b"other", signature)
    assert not identity.verify(USER.public_key, b"content", signature[:63])


def test_decision_has_the_bytes_of_the_protocol_sheet(task, consent):
    encoded = task.SerializeToString()
    assert len(encoded) == 225
    assert hashlib.sha256(encoded).hexdigest() == (
        "1cbeb876cf0129b1df637c287ccc7db5be24f60dcb94e6de9679354bff43e291"
    )
    decision = identity.sign_decision(CORE, task, consent, is_approved=True)
    content = identity.decision_bytes(task, decision, consent)
    assert hashlib.sha256(content).hexdigest() == (
        "e46a82f5bb3b6ed59a2ef97ebd9ca27a011cf2d74c40f8c2b2748498ace90238"
    )
    assert decision.signature.hex() == (
        "bc759dc836aa3ee568373b4e7e0bdf4cb1f8045bab5dedee50c8bb8c3524e154"
        "5e0fd81c7078062ff88805628c7234cba30b617afaeb24cbdf016bcee0b9a9e3"
    )


def test_decision_does_not_cover_status_and_other_decisions(task, consent):
    decision = identity.sign_decision(CORE, task, consent, is_approved=True)
    task.status = "waiting"
    task.decisions.add().CopyFrom(decision)
    identity.verify_decision(task, decision, USER.user_id, now=EXPIRES_AT)


def test_decision_that_was_changed_is_refused(task, consent):
    decision = identity.sign_decision(CORE, task, consent, is_approved=True)
    with pytest.raises(UsageError, match="expired"):
        identity.verify_decision(task, decision, USER.user_id, now=EXPIRES_AT + 1)
    with pytest.raises(UsageError, match="participant"):
        identity.verify_decision(task, decision, CORE.user_id, now=SIGNED_AT)
    with pytest.raises(UsageError, match="not signed"):
        identity.verify_decision(task, wire.Decision(), USER.user_id, now=SIGNED_AT)
    decision.reason = "other"
    with pytest.raises(UsageError, match="signature"):
        identity.verify_decision(task, decision, USER.user_id, now=SIGNED_AT)


def test_decision_of_both_kinds_is_refused(task, consent):
    both = identity.sign_decision(CORE, task, consent, is_approved=True, is_rejected=True)
    with pytest.raises(UsageError, match="both"):
        identity.verify_decision(task, both, USER.user_id, now=SIGNED_AT)


def test_key_pair_survives_its_hex_form_and_keeps_its_secret():
    pair = KeyPair.generate()
    assert KeyPair.from_hex(pair.to_hex()).user_id == pair.user_id
    assert pair.to_hex() not in repr(pair)
    for damaged in ("", "00" * 31, "zz" * 32, "00" * 32, "ff" * 32):
        with pytest.raises(ValueError):
            KeyPair.from_hex(damaged)


def token(fields: object) -> str:
    middle = base64.urlsafe_b64encode(json.dumps(fields).encode()).rstrip(b"=").decode()
    return f"e30.{middle}.c2ln"


def test_claims_are_read_without_verifying():
    read = identity.claims(token({"privilege": "user", "user_id": "03ab", "exp": 17}))
    assert read == identity.Claims("user", "03ab", 17)


@pytest.mark.parametrize("jwt", ["", "a.b", "a.b.c", "é.é.é", token([]), token({"exp": 1})])
def test_what_is_no_token_is_refused(jwt):
    with pytest.raises(ValueError):
        identity.claims(jwt)


def test_keccak_of_known_contents():
    assert keccak_256(b"").hex() == (
        "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    )
    assert keccak_256(b"abc").hex() == (
        "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45"
    )
    assert len({keccak_256(b"a" * size) for size in (134, 135, 136, 137, 272)}) == 5
