"""Key pairs, consents and signed decisions: who somebody is, and proof of it (§3.1, §3.2, §6.5).

Signatures are ECDSA on secp256k1 over a SHA-256 digest, 64 bytes r||s, with low s and the
deterministic nonces of RFC 6979.
"""

import base64
import binascii
import hashlib
import json
import time
from dataclasses import dataclass

import coincurve
from coincurve.ecdsa import cdata_to_der, deserialize_compact

from engine.colink import wire
from engine.colink.keccak import keccak_256
from engine.model.errors import UsageError

_PUBLIC_KEY_SIZE = 33
_SECRET_SIZE = 32


@dataclass(frozen=True)
class Claims:
    """What a JWT says of its bearer. `exp` is in Unix seconds."""

    privilege: str
    user_id: str
    exp: int


def claims(jwt: str) -> Claims:
    """Return the claims of `jwt` without verifying it; ValueError when it is not such a token."""
    parts = jwt.split(".")
    if len(parts) != 3:
        raise ValueError("it does not have three parts")
    try:
        fields = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return Claims(str(fields["privilege"]), str(fields["user_id"]), int(fields["exp"]))
    except (binascii.Error, ValueError, TypeError, KeyError) as error:
        raise ValueError("its claims privilege, user_id and exp cannot be read") from error


class KeyPair:
    """A secp256k1 key pair: of a user, or of a core."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) != _SECRET_SIZE:
            raise ValueError(f"a private key has {_SECRET_SIZE} bytes, not {len(secret)}")
        self._private = coincurve.PrivateKey(secret)
        self.public_key: bytes = self._private.public_key.format(compressed=True)
        self.user_id: str = self.public_key.hex()

    def __repr__(self) -> str:
        return f"KeyPair({self.user_id})"

    @classmethod
    def generate(cls) -> "KeyPair":
        """Return a fresh random key pair."""
        return cls(coincurve.PrivateKey().secret)

    @classmethod
    def from_hex(cls, text: str) -> "KeyPair":
        """Return the pair whose private key is `text`, 64 hex digits; ValueError otherwise."""
        return cls(bytes.fromhex(text))

    def to_hex(self) -> str:
        """Return the private key as 64 hex digits."""
        return str(self._private.to_hex())

    def sign(self, content: bytes) -> bytes:
        """Return the 64-byte signature of the SHA-256 of `content`."""
        digest = hashlib.sha256(content).digest()
        recoverable: bytes = self._private.sign_recoverable(digest, hasher=None)
        return recoverable[:64]

    def sign_consent(
        self,
        core_public_key: bytes,
        expiration_timestamp: int,
        signature_timestamp: int | None = None,
    ) -> wire.UserConsent:
        """Return this user's consent to be served by a core, until `expiration_timestamp`.

        Timestamps are Unix seconds; the signature's is now unless given.
        """
        consent = wire.UserConsent(
            public_key=self.public_key,
            signature_timestamp=(
                int(time.time()) if signature_timestamp is None else signature_timestamp
            ),
            expiration_timestamp=expiration_timestamp,
        )
        consent.signature = self.sign(consent_bytes(consent, core_public_key))
        return consent


def verify(public_key: bytes, content: bytes, signature: bytes) -> bool:
    """Tell whether `signature` (64 bytes, low s) is `public_key`'s for the SHA-256 of `content`."""
    if len(signature) != 64:
        return False
    try:
        der = cdata_to_der(deserialize_compact(signature))
        key = coincurve.PublicKey(public_key)
    except ValueError:
        return False
    return bool(key.verify(der, hashlib.sha256(content).digest(), hasher=None))


def is_public_key(public_key: bytes) -> bool:
    """Tell whether `public_key` is a point of the curve in its compressed form, 33 bytes."""
    if len(public_key) != _PUBLIC_KEY_SIZE:
        return False
    try:
        coincurve.PublicKey(public_key)
    except ValueError:
        return False
    return True


def consent_bytes(consent: wire.UserConsent, core_public_key: bytes) -> bytes:
    """Return the 82 bytes that a consent's signature covers (§3.2, plain form)."""
    return b"".join(
        (
            consent.public_key,
            consent.signature_timestamp.to_bytes(8, "little", signed=True),
            consent.expiration_timestamp.to_bytes(8, "little", signed=True),
            core_public_key,
        )
    )


def consent_digest(consent: wire.UserConsent, core_public_key: bytes) -> bytes:
    """Return the 32-byte digest that a consent's signature signs, in the form the consent has."""
    if consent.public_key:
        return hashlib.sha256(consent_bytes(consent, core_public_key)).digest()
    text = (
        f"sigTime: {consent.signature_timestamp}\n"
        f"expTime: {consent.expiration_timestamp}\n"
        f"corePubKey: {core_public_key.hex()}\n"
    ).encode()
    return keccak_256(b"\x19Ethereum Signed Message:\n" + str(len(text)).encode() + text)


def verify_consent(consent: wire.UserConsent, core_public_key: bytes) -> str:
    """Return the user id of who signed `consent` for the core with `core_public_key`.

    Raises UsageError when it is malformed or the signature is wrong. Whether it is expired or
    fresh is the caller's question: the core answers those with other codes.
    """
    if not consent.public_key:
        return _recover_consent(consent, core_public_key)
    if not is_public_key(consent.public_key):
        raise UsageError("The consent's public key is not a compressed secp256k1 key.")
    content = consent_bytes(consent, core_public_key)
    if not verify(consent.public_key, content, consent.signature):
        raise UsageError("The consent's signature is wrong.")
    return str(consent.public_key.hex())


def _recover_consent(consent: wire.UserConsent, core_public_key: bytes) -> str:
    signature = consent.signature
    if len(signature) != 65 or not 27 <= signature[64] <= 30:
        raise UsageError("The consent's signature is not 65 bytes with a recovery id.")
    recoverable = signature[:64] + bytes((signature[64] - 27,))
    try:
        key = coincurve.PublicKey.from_signature_and_message(
            recoverable, consent_digest(consent, core_public_key), hasher=None
        )
    except Exception as error:  # coincurve raises bare Exception for a signature of nobody
        raise UsageError("The consent's signature is wrong.") from error
    return str(key.format(compressed=True).hex())


def decision_bytes(task: wire.Task, decision: wire.Decision, consent: wire.UserConsent) -> bytes:
    """Return the bytes A||B||C that a decision's signature covers (§6.5)."""
    bare_task = wire.Task()
    bare_task.CopyFrom(task)
    bare_task.ClearField("decisions")
    bare_task.ClearField("status")
    bare_decision = wire.Decision(
        is_approved=decision.is_approved, is_rejected=decision.is_rejected, reason=decision.reason
    )
    content: bytes = (
        bare_task.SerializeToString()
        + bare_decision.SerializeToString()
        + consent.SerializeToString()
    )
    return content


def sign_decision(
    core: KeyPair,
    task: wire.Task,
    consent: wire.UserConsent,
    *,
    is_approved: bool = False,
    is_rejected: bool = False,
    reason: str = "",
) -> wire.Decision:
    """Return the decision on `task` of the user who gave `consent`, signed by his core's key."""
    decision = wire.Decision(
        is_approved=is_approved,
        is_rejected=is_rejected,
        reason=reason,
        core_public_key=core.public_key,
        user_consent=consent,
    )
    decision.signature = core.sign(decision_bytes(task, decision, consent))
    return decision


def verify_decision(task: wire.Task, decision: wire.Decision, user_id: str, now: float) -> None:
    """Check that `decision` on `task` is that of the user `user_id`; `now` in Unix seconds.

    Raises UsageError saying what is wrong.
    """
    if not decision.signature:
        raise UsageError("The decision is not signed.")
    consent, core_public_key = decision.user_consent, decision.core_public_key
    if not is_public_key(core_public_key):
        raise UsageError("The decision's core key is not a compressed secp256k1 key.")
    if not verify(core_public_key, decision_bytes(task, decision, consent), decision.signature):
        raise UsageError("The decision's signature is wrong.")
    if consent.expiration_timestamp < now:
        raise UsageError("The consent in the decision has expired.")
    if verify_consent(consent, core_public_key) != user_id:
        raise UsageError("The consent in the decision is not the participant's.")
    if decision.is_approved and decision.is_rejected:
        raise UsageError("The decision both approves and rejects.")
