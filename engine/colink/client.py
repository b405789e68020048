"""The client: everything that a user, or the host, of a core may call, over pooled connections."""

from collections import OrderedDict

from engine.colink import wire
from engine.colink.connections import ConnectionPool
from engine.colink.identity import claims
from engine.colink.rpc import Caller
from engine.colink.variables import VariableCalls
from engine.model.errors import NotFoundError, UsageError
from engine.model.manifest import TlsSpec


class Connections(ConnectionPool):
    """Where clients come from: `async with Connections() as connections: ...`."""

    async def __aenter__(self) -> "Connections":
        return self

    def client(self, address: str, jwt: str, tls: TlsSpec | None = None) -> "Client":
        """Return a client of the core at `address` for the bearer of `jwt` ("" for nobody).

        Nothing is connected yet. Raises UsageError when one of them is malformed.
        """
        return Client(self, address, jwt, tls or TlsSpec())


class Client(VariableCalls):
    """One bearer of a JWT at one core. Cheap to make: what is connected belongs to `Connections`.

    Every call has a deadline and raises CoreUnavailableError, AccessDeniedError, NotFoundError or
    UsageError; see the parts (`storage`, `tasks`, `waiting`, `variables`) for the rest.
    """

    def __init__(self, connections: Connections, address: str, jwt: str, tls: TlsSpec) -> None:
        self.address = address
        self.jwt = jwt
        self.tls = tls
        self.user_id = _user_id(jwt)
        self._pool = connections
        self._connections = connections
        self._caller = Caller(connections.channel(address, tls), jwt)
        self._inboxes_sent: OrderedDict[tuple[str, str], None] = OrderedDict()

    def __repr__(self) -> str:
        return f"Client({self.user_id or 'nobody'} at {self.address})"

    def as_user(self, jwt: str) -> "Client":
        """Return a client of the same core for the bearer of another JWT."""
        return self._connections.client(self.address, jwt, self.tls)

    async def request_info(self) -> wire.RequestInfoResponse:
        """Return the core's `core_public_key` (33 bytes), `version` and `mq_uri`."""
        return await self._caller.call("RequestInfo", wire.Empty())

    async def generate_token(
        self,
        privilege: str,
        expiration_time: int,
        user_consent: wire.UserConsent | None = None,
    ) -> str:
        """Return a JWT of this user, or of who signed `user_consent`.

        `privilege` is `user` or `guest`; it is valid until the Unix second `expiration_time`.
        """
        request = wire.GenerateTokenRequest(
            privilege=privilege, expiration_time=expiration_time, user_consent=user_consent
        )
        reply = await self._caller.call("GenerateToken", request)
        return str(reply.jwt)

    async def import_user(self, consent: wire.UserConsent) -> str:
        """Make the core serve the user who signed `consent`, and return his JWT. For the host."""
        reply = await self._caller.call("ImportUser", consent)
        return str(reply.jwt)

    async def start_protocol_operator(self, name: str, user_id: str) -> str:
        """Let the core start the protocol operator `name` for a user; return the instance's id."""
        request = wire.StartProtocolOperatorRequest(protocol_name=name, user_id=user_id)
        reply = await self._caller.call("StartProtocolOperator", request, about=name)
        return str(reply.instance_id)

    async def stop_protocol_operator(self, instance_id: str) -> None:
        """Let the core stop a protocol operator; NotFoundError when it runs none of that id."""
        request = wire.ProtocolOperatorInstanceId(instance_id=instance_id)
        await self._caller.call(
            "StopProtocolOperator", request, about=instance_id, internal=NotFoundError
        )


def _user_id(jwt: str) -> str:
    if not jwt:
        return ""
    try:
        return claims(jwt).user_id
    except ValueError as error:
        raise UsageError(f"This is not a JSON web token: {error}.") from error
