"""Identities and names: what a user id, an endpoint and a manifest name may look like."""

import re
import uuid

LOCAL = "local"
DEFAULT_DISPATCH_POINT = "coflows_dispatch"

_USER_ID = re.compile(r"0[23][0-9a-f]{64}")
_ENDPOINT = re.compile(r"[^:@\s/]+")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def is_user_id(text: str) -> bool:
    """Tell whether `text` is the hex of a compressed secp256k1 public key, 66 lower-case digits."""
    return _USER_ID.fullmatch(text) is not None


def is_flow_endpoint(text: str) -> bool:
    """Tell whether `text` can be a flow endpoint: no `:`, `@`, `/` or blank in it."""
    return _ENDPOINT.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Tell whether `text` can name a manifest, a user or a mount."""
    return _NAME.fullmatch(text) is not None


def new_id() -> str:
    """Return a fresh UUID v4 as text: a flow id, message id or request id."""
    return str(uuid.uuid4())


def derived_id(*parts: str) -> str:
    """Return the UUID v5 text that `parts` always give: the same turn sends under the same ids."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, "\x00".join(parts)))
