"""registry: how users find each other (§8.3).

A registry is a user in whose storage others leave public records of themselves, by remote_storage.
The requester's id is in the name of what he leaves, so nobody can leave another's record; beyond
that a record is only as good as its registry. What can be checked of it is: see `is_plausible`.
"""

import fcntl
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from google.protobuf.message import DecodeError

from engine.colink import keys, wire
from engine.colink.identity import claims
from engine.core.operators.base import Desk, Handler
from engine.core.peers.address_book import Address, Pair, is_token_of
from engine.core.task_table import TaskCopy
from engine.core.tokens import GUEST

log = logging.getLogger(__name__)
REG_CONFIG = "reg_config"
"""The file in $COLINK_HOME that names the registry of this machine: its address, its token."""
_REGISTRIES = "_registry:registries"
_FORWARDER = "_registry:forwarding_user_id"
_DEFAULT_ADDRESS = "_registry:init:default_registry_addr"
_DEFAULT_TOKEN = "_registry:init:default_registry_jwt"  # noqa: S105 - an entry's name
_RECORD = "_registry:user_record"
_GUEST_LIFETIME = 31 * 86400
_RENEWED_EVERY = 86400.0
_TASK_LIFETIME = 86400
_LOCKED_FOR = 0.05
"""Seconds until a file that another core has locked is looked at again."""
_ROUNDS = 3
_ROUND = 1.0
_ASKED_FOR = 30


class RegistryOperator:
    """Both roles of the protocol `registry`, and what a user tells registries of himself."""

    package = "registry"
    protocols: tuple[str, ...] = ("registry",)

    def __init__(self, desk: Desk, reg_config: Path | None) -> None:
        """`reg_config` is the file by which cores of one machine find their registry, if any."""
        self._desk = desk
        self._reg_config = reg_config
        self._renewed: set[str] = set()
        self.handlers: Mapping[str, Handler] = {
            "registry:update_registries": self._update,
            "registry:query_from_registries": self._query,
        }

    def start(self, user_id: str) -> None:
        """Nothing is to be written before `resume`."""

    def resume(self, user_id: str) -> None:
        """Find the registries, and tell them where this user is now."""
        self._join(user_id)
        if user_id not in self._renewed:
            self._renewed.add(user_id)
            self._desk.effects.later(_RENEWED_EVERY, partial(self._renew, user_id))

    def forget(self, user_id: str) -> None:
        """Nothing is kept in memory that matters."""

    def forget_all(self) -> None:
        """Nothing is kept in memory that matters."""

    def on_task(self, copy: TaskCopy) -> Handler | None:
        """Only started tasks matter."""
        return None

    def answers(self, user_id: str) -> bool:
        """Tell whether a query of a user is answered: by this, or by an operator outside."""
        outside = keys.operator_mq("registry", "query_from_registries")
        return (
            self._desk.runs(user_id, self.package)
            or self._desk.entries.get(user_id, outside) is not None
        )

    # Where a user is told of

    def _renew(self, user_id: str) -> None:
        """Do it all again before the tokens in the records are over."""
        self._renewed.discard(user_id)
        if self._desk.runs(user_id, self.package):
            self.resume(user_id)

    def _join(self, user_id: str) -> None:
        try:
            registries = self._current(user_id)
        except BlockingIOError:
            self._desk.effects.later(_LOCKED_FOR, partial(self._join, user_id))
            return
        if registries:
            self._publish(user_id, registries)

    def _join_again(self, user_id: str) -> None:
        """Follow a registry that moved."""
        try:
            registries = self._current(user_id)
        except BlockingIOError:
            return
        if registries != self._registries(user_id):
            self._publish(user_id, registries)

    def _current(self, user_id: str) -> list[wire.Registry]:
        """Return the user's registries, where they are now.

        Who has none yet gets the one of the shared file, or else the default one.
        """
        known = self._registries(user_id)
        shared = self._shared(user_id, become=not known)
        if not known:
            first = shared or self._default(user_id)
            return [first] if first is not None else []
        moved = _user_of(shared.guest_jwt) if shared is not None else ""
        return [
            shared if shared is not None and _user_of(one.guest_jwt) == moved else one
            for one in known
        ]

    def _shared(self, user_id: str, *, become: bool) -> wire.Registry | None:
        """Return the registry that the shared file names, if any.

        With `become`, this user's name is put into an empty file; his own name is renewed. Raises
        BlockingIOError when another core has the file.
        """
        if self._reg_config is None:
            return None
        try:
            with self._reg_config.open("r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                address, token = [*file.read().splitlines(), "", ""][:2]
                if _user_of(token) == user_id or (become and not address):
                    address, token = self._desk.core_uri(), self._guest_token(user_id)
                    self._reg_config.chmod(0o600)
                    file.seek(0)
                    file.truncate()
                    file.write(f"{address}\n{token}\n")
        except BlockingIOError:
            raise
        except OSError:
            return None
        return wire.Registry(address=address, guest_jwt=token) if address else None

    def _default(self, user_id: str) -> wire.Registry | None:
        address, token = (
            self._desk.entries.get(user_id, name) for name in (_DEFAULT_ADDRESS, _DEFAULT_TOKEN)
        )
        if not address or not token:
            return None
        return wire.Registry(
            address=address.decode(errors="replace"), guest_jwt=token.decode(errors="replace")
        )

    def _registries(self, user_id: str) -> list[wire.Registry]:
        payload = self._desk.entries.get(user_id, _REGISTRIES) or b""
        try:
            return list(wire.Registries.FromString(payload).registries)
        except DecodeError:
            log.warning("the registries of %s cannot be read", user_id)
            return []

    def _publish(self, user_id: str, registries: Iterable[wire.Registry]) -> None:
        """Keep which registries there are, and leave a record of the user with each."""
        entries = self._desk.entries
        kept = wire.Registries(registries=registries).SerializeToString()
        if entries.get(user_id, _REGISTRIES) != kept:
            entries.update(user_id, _REGISTRIES, kept)
        record = wire.UserRecord(
            user_id=user_id,
            core_addr=self._desk.core_uri(),
            guest_jwt=self._guest_token(user_id),
            forwarding_user_id=(entries.get(user_id, _FORWARDER) or b"").decode(errors="replace"),
        ).SerializeToString()
        params = wire.UpdateParams(remote_key_name=_RECORD, is_public=True, payload=record)
        for registry in registries:
            registry_id = self._known(user_id, registry)
            if registry_id == user_id:
                entries.update(user_id, _record_of(user_id), record)
            elif registry_id:
                self._ask(user_id, registry_id, "update", params.SerializeToString())

    def _known(self, user_id: str, registry: wire.Registry) -> str:
        """Put a registry into the user's address book and return its id; "" if it is none."""
        registry_id = _user_of(registry.guest_jwt)
        if registry_id and registry_id not in self._desk.users:
            address = Address(registry.address, registry.guest_jwt)
            self._desk.book.write(Pair(user_id, registry_id), address)
        elif not registry_id:
            log.warning("%s has a registry without a token: %s", user_id, registry.address)
        return registry_id

    def _update(self, copy: TaskCopy) -> None:
        """§8.3, `update_registries`: leave the old ones, and tell the new ones."""
        user_id = copy.owner
        try:
            registries = wire.Registries.FromString(copy.task.protocol_param).registries
        except DecodeError:
            log.warning("the task %s names no registries", copy.task.task_id)
            self._desk.finish(copy)
            return
        new = {_user_of(registry.guest_jwt) for registry in registries}
        params = wire.DeleteParams(remote_key_name=_RECORD, is_public=True).SerializeToString()
        for registry in self._registries(user_id):
            registry_id = _user_of(registry.guest_jwt)
            if registry_id == user_id and user_id not in new:
                self._desk.entries.delete_all(user_id, [_record_of(user_id)])
            elif registry_id and registry_id not in new:
                self._ask(user_id, registry_id, "delete", params)
        self._publish(user_id, list(registries))
        self._desk.finish(copy)

    # Where a user looks for others

    def _query(self, copy: TaskCopy) -> None:
        """§8.3, `query_from_registries`: the task ends when the record is found, or nowhere."""
        try:
            wanted = wire.UserRecord.FromString(copy.task.protocol_param).user_id
        except DecodeError:
            wanted = ""
        if wanted in self._desk.users:
            here = Address(self._desk.core_uri(), self._guest_token(wanted))
            self._desk.book.write(Pair(copy.owner, wanted), here)
            self._desk.finish(copy)
            return
        self._join_again(copy.owner)
        known = [self._known(copy.owner, registry) for registry in self._registries(copy.owner)]
        if wanted in known:
            self._desk.finish(copy)
        else:
            self._round(copy, wanted, set(), 0)

    def _round(self, copy: TaskCopy, wanted: str, asked: set[str], number: int) -> None:
        """Ask all registries that are not being asked, and look again after a while.

        A record may be on its way to them while it is already asked for.
        """
        registries = self._registries(copy.owner)
        if not registries or number == _ROUNDS or not wanted:
            self._desk.finish(copy)
        if not self._is_open(copy):
            return
        for registry in registries:
            registry_id = self._known(copy.owner, registry)
            if registry_id in self._desk.users:
                found = self._desk.entries.get(registry_id, _record_of(wanted))
                self._answered(copy, wanted, found)
            elif registry_id and registry_id not in asked:
                asked.add(registry_id)
                self._read(copy, registry_id, wanted, partial(asked.discard, registry_id))
        if self._is_open(copy):
            again = partial(self._round, copy, wanted, asked, number + 1)
            self._desk.effects.later(_ROUND, again)

    def _read(
        self, copy: TaskCopy, registry_id: str, wanted: str, done: Callable[[], object]
    ) -> None:
        params = wire.ReadParams(remote_key_name=_RECORD, is_public=True, holder_id=wanted)
        task_id = self._ask(
            *(copy.owner, registry_id, "read", params.SerializeToString(), _ASKED_FOR)
        )
        output, status = keys.task_output(task_id), keys.task_status(task_id)

        def read() -> None:
            done()
            found = self._desk.entries.get(copy.owner, output)
            self._desk.entries.delete_all(copy.owner, [output, status])
            self._answered(copy, wanted, found)

        self._desk.entries.watch(copy.owner, status, lambda _: self._desk.effects.add(read))

    def _answered(self, copy: TaskCopy, wanted: str, found: bytes | None) -> None:
        """Take a record into the address book, if it is one, and end the query."""
        if found is None or not self._is_open(copy):
            return
        try:
            record = wire.UserRecord.FromString(found)
        except DecodeError:
            record = wire.UserRecord()
        if not is_plausible(record, wanted):
            log.warning("a registry of %s has a wrong record of %s", copy.owner, wanted)
            return
        address = Address(record.core_addr, record.guest_jwt, record.forwarding_user_id)
        self._desk.book.write(Pair(copy.owner, wanted), address)
        self._desk.finish(copy)

    # Inside

    def _is_open(self, copy: TaskCopy) -> bool:
        now = self._desk.tasks.get(copy.owner, copy.task.task_id)
        return now is not None and now.status == "started"

    def _guest_token(self, user_id: str) -> str:
        return self._desk.tokens.mint(GUEST, user_id, int(time.time()) + _GUEST_LIFETIME)

    def _ask(
        self,
        user_id: str,
        registry_id: str,
        operation: str,
        params: bytes,
        lifetime: int = _TASK_LIFETIME,
    ) -> str:
        """Create a remote_storage task of a user with a registry, and return its id."""
        task = wire.Task(
            protocol_name=f"remote_storage.{operation}",
            protocol_param=params,
            participants=[
                wire.Participant(user_id=user_id, role="requester"),
                wire.Participant(user_id=registry_id, role="provider"),
            ],
            expiration_time=int(time.time()) + lifetime,
        )
        return self._desk.tasks.create(user_id, task)


def is_plausible(record: wire.UserRecord, wanted: str) -> bool:
    """Tell whether a record can be one of `wanted`: his id, a token that leads to him, a URL."""
    try:
        place = urlsplit(record.core_addr)
        reachable = place.scheme in ("http", "https") and bool(place.hostname) and place.port != 0
    except ValueError:
        reachable = False
    return (
        record.user_id == wanted
        and reachable
        and is_token_of(record.guest_jwt, wanted)
        and record.forwarding_user_id != wanted
    )


def _record_of(user_id: str) -> str:
    return keys.remote_storage(user_id, _RECORD, public=True)


def _user_of(token: str) -> str:
    try:
        return claims(token).user_id
    except ValueError:
        return ""
