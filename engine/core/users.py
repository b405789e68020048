"""The users of this core: their consents, and what it signs in their name (§3.2-§3.4, §6.5)."""

import time

from engine.colink import identity, keys, wire
from engine.core.entries import Entries
from engine.core.refusals import conflict, denied, malformed, unauthenticated
from engine.core.store import Store
from engine.model.errors import UsageError

FRESH = 600
"""Seconds that a consent's signature may be away from now at import."""


class Users:
    """Imported users. They stay imported over restarts."""

    def __init__(self, store: Store, core: identity.KeyPair) -> None:
        self._store = store
        self._core = core
        self._consents: dict[str, wire.UserConsent] = {
            store.owner(owner): wire.UserConsent.FromString(consent)
            for owner, consent in store.execute("SELECT owner, consent FROM users")
        }

    def __contains__(self, user_id: object) -> bool:
        return user_id in self._consents

    def all(self) -> list[str]:
        """Return the ids of all users, in the order of their import."""
        rows = self._store.execute("SELECT owner FROM users ORDER BY imported")
        return [self._store.owner(row[0]) for row in rows]

    def check_import(self, consent: wire.UserConsent) -> str:
        """Return the id of who gave a fresh, valid consent; refused otherwise (§2.3)."""
        if abs(time.time() - consent.signature_timestamp) > FRESH:
            raise unauthenticated("The consent was not signed within the last ten minutes.")
        return self.check_consent(consent)

    def check_consent(self, consent: wire.UserConsent) -> str:
        """Return the id of who gave a consent for this core that is still valid."""
        if time.time() > consent.expiration_timestamp:
            raise conflict("The consent has expired.")
        try:
            return identity.verify_consent(consent, self._core.public_key)
        except UsageError as error:
            raise malformed(str(error)) from error

    def add(self, user_id: str, consent: wire.UserConsent, entries: Entries) -> None:
        """Make somebody a user of this core, or renew his consent."""
        encoded = consent.SerializeToString()
        entries.update(user_id, keys.USER_CONSENT, encoded)
        self._store.write(
            "INSERT INTO users(owner, consent, imported) VALUES(?, ?, ?)"
            " ON CONFLICT(owner) DO UPDATE SET consent=excluded.consent",
            (self._store.owner_id(user_id), encoded, self._store.tick()),
        )
        self._consents[user_id] = wire.UserConsent.FromString(encoded)

    def check_renewal(self, consent: wire.UserConsent, entries: Entries) -> str:
        """Return the id of the user who gave a consent; keep it when it lasts longer (§3.3)."""
        user_id = self.check_consent(consent)
        stored = self._consents.get(user_id)
        if stored is None:
            raise denied(f"The user {user_id} was not imported.")
        if consent.expiration_timestamp > stored.expiration_timestamp:
            self.add(user_id, consent, entries)
        return user_id

    def decide(
        self,
        user_id: str,
        task: wire.Task,
        *,
        is_approved: bool = False,
        is_rejected: bool = False,
        reason: str = "",
    ) -> wire.Decision:
        """Return a user's decision on a task, signed by this core."""
        return identity.sign_decision(
            self._core,
            task,
            self._consents[user_id],
            is_approved=is_approved,
            is_rejected=is_rejected,
            reason=reason,
        )

    def check_decision(self, task: wire.Task, decision: wire.Decision, user_id: str) -> None:
        """Refuse a decision that is not the signed one of `user_id`."""
        try:
            identity.verify_decision(task, decision, user_id, time.time())
        except UsageError as error:
            raise malformed(str(error)) from error
