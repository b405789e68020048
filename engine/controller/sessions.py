"""The users on whose behalf the engine acts: who they are, and their way into their core."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engine.colink.client import Client, Connections
from engine.colink.identity import claims
from engine.controller.cores import Cores
from engine.controller.identities import Identities
from engine.kits.clock import Clock
from engine.model.errors import EngineError, NotFoundError, UsageError
from engine.model.manifest import CoreSpec, UserSpec
from engine.model.secrets import resolve

TOKEN_LIFETIME = 31 * 86400
"""Seconds that the tokens of an engine's own users are valid; they are made anew at each start."""
SCHEDULER = "coflows_scheduler"


@dataclass(frozen=True)
class Session:
    """A user of ours, in touch with his core; `incarnation` tells the core's runs apart."""

    name: str
    user_id: str
    core: CoreSpec
    client: Client
    token: str = field(repr=False)
    incarnation: int
    own_scheduler: bool
    """True when the engine has to bring the coflows scheduler, because the core does not."""


class Sessions:
    """Sessions by core and user name. On the embedded core a name means one identity for ever."""

    def __init__(
        self, cores: Cores, connections: Connections, identities: Identities, clock: Clock
    ) -> None:
        self._cores = cores
        self._connections = connections
        self._identities = identities
        self._clock = clock
        self._sessions: dict[tuple[str, str], Session] = {}
        self._opening = asyncio.Lock()

    def user_id(self, core: CoreSpec, name: str) -> str | None:
        """Return the id of the user `name`, or None while he has none yet."""
        if core.embedded:
            pair = self._identities.find(name)
            return pair.user_id if pair else None
        session = self._sessions.get((core.address, name))
        return session.user_id if session else None

    def name_of(self, user_id: str) -> str:
        """Return the name of a user of ours by his id, "" for somebody else."""
        open_ones = {session.user_id: session.name for session in self._sessions.values()}
        own = {own_id: name for name, own_id in self.embedded().items()}
        return open_ones.get(user_id) or own.get(user_id, "")

    def find(self, core: CoreSpec, name: str) -> Session | None:
        """Return the open session of a user, or None; one of an earlier run of the core is gone."""
        session = self._sessions.get((core.address, name))
        if session is not None and core.embedded:
            current = self._cores.embedded_incarnation
            if session.incarnation != current:
                return None
        return session

    def get(self, core: CoreSpec, name: str) -> Session:
        """Return the open session of a user, or raise NotFoundError."""
        session = self.find(core, name)
        if session is None:
            raise NotFoundError(f"User {name} is not connected to a core.")
        return session

    async def open(
        self, core: CoreSpec, name: str, spec: UserSpec, environment: Mapping[str, str]
    ) -> Session:
        """Make sure that the user exists on his core, with a scheduler, and return his session.

        Raises CoreUnavailableError when the core does not answer, UsageError when the token of a
        real core is missing or no token.
        """
        async with self._opening:
            known = self.find(core, name)
            if known is not None:
                return known
            if core.embedded:
                session = await self._open_embedded(core, name)
            else:
                session = await self._open_remote(core, name, spec, environment)
            self._sessions[core.address, name] = session
            return session

    def embedded(self) -> dict[str, str]:
        """Return the ids of all users that have an identity here, by name."""
        found = {}
        for name in self._identities.names():
            pair = self._identities.find(name)
            if pair is not None:
                found[name] = pair.user_id
        return found

    async def open_embedded(self, name: str) -> Session:
        """Return the session of a user of the embedded core who has an identity already.

        Raises NotFoundError when he has none: naming a user does not make one.
        """
        if self._identities.find(name) is None:
            known = ", ".join(self._identities.names()) or "none yet"
            raise NotFoundError(f"There is no user {name}; known are: {known}.")
        return await self.open(CoreSpec(), name, UserSpec(), {})

    def forget(self, core: CoreSpec, name: str, *, purge: bool) -> None:
        """Drop the session; with `purge` also the identity, for ever."""
        self._sessions.pop((core.address, name), None)
        if purge and core.embedded:
            self._identities.forget(name)

    async def _open_embedded(self, core: CoreSpec, name: str) -> Session:
        pair = self._identities.make(name)
        host = self._cores.host()
        incarnation = self._cores.embedded_incarnation
        info = await host.request_info()
        expiration = int(self._clock.now()) + TOKEN_LIFETIME
        token = await host.import_user(pair.sign_consent(info.core_public_key, expiration))
        client = self._cores.client(core, token)
        await client.start_protocol_operator(SCHEDULER, pair.user_id)
        return Session(name, pair.user_id, core, client, token, incarnation, own_scheduler=False)

    async def _open_remote(
        self, core: CoreSpec, name: str, spec: UserSpec, environment: Mapping[str, str]
    ) -> Session:
        token = _token(name, spec, environment)
        try:
            user_id = claims(token).user_id
        except ValueError as error:
            raise UsageError(
                f"The jwt of user {name} is not a JSON web token: {error}.",
                "Take the one that the core's host gave to the user.",
            ) from error
        client = self._cores.client(core, token)
        try:
            await client.request_info()
        except EngineError as error:
            self._cores.remote[core.address] = str(error)
            raise
        self._cores.remote[core.address] = ""
        running = await client.read_tree(f"_internal:protocol_operator_groups:{SCHEDULER}")
        group = await client.read(f"_internal:protocol_operator_groups:{SCHEDULER}")
        return Session(
            name, user_id, core, client, token, 0, own_scheduler=not running and not group
        )


def _token(name: str, spec: UserSpec, environment: Mapping[str, str]) -> str:
    if spec.jwt:
        return str(resolve({"$env": spec.jwt}, environment)).strip()
    if spec.jwt_file:
        try:
            return Path(spec.jwt_file).expanduser().read_text().strip()
        except OSError as error:
            raise UsageError(
                f"The jwt_file of user {name}, {spec.jwt_file}, cannot be read: {error.strerror}."
            ) from error
    raise UsageError(
        f"User {name} has no token for the core.",
        "On a core that is not embedded each user needs `jwt` or `jwt_file`.",
    )
