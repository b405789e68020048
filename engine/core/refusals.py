"""How a call is refused: the gRPC status codes of §2.3, one function per situation."""

import grpc

_Code = grpc.StatusCode


class Refusal(Exception):  # noqa: N818 - a refusal is an answer, not a fault of the core
    """The call is answered by a status code; `message` tells the caller why."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def unauthenticated(message: str) -> Refusal:
    """Return the answer to who does not prove who he is."""
    return Refusal(_Code.UNAUTHENTICATED, message)


def denied(message: str) -> Refusal:
    """Return the answer to who may not do this."""
    return Refusal(_Code.PERMISSION_DENIED, message)


def malformed(message: str) -> Refusal:
    """Return the answer to a request that makes no sense by itself."""
    return Refusal(_Code.INVALID_ARGUMENT, message)


def conflict(message: str) -> Refusal:
    """Return the answer to a request that the stored state does not allow: INTERNAL upstream."""
    return Refusal(_Code.INTERNAL, message)


def not_found(message: str) -> Refusal:
    """Return the answer to who wants an operator that there is not."""
    return Refusal(_Code.NOT_FOUND, message)


def aborted(message: str) -> Refusal:
    """Return the answer to an upgrade of what is running."""
    return Refusal(_Code.ABORTED, message)


def unreachable(message: str) -> Refusal:
    """Return the answer to forwarding over a connection that there is not."""
    return Refusal(_Code.FAILED_PRECONDITION, message)


def exhausted(message: str) -> Refusal:
    """Return the answer to who asks for more than a limit allows."""
    return Refusal(_Code.RESOURCE_EXHAUSTED, message)


def not_offered(message: str) -> Refusal:
    """Return the answer to a part of the protocol that this core does not have."""
    return Refusal(_Code.UNIMPLEMENTED, message)
