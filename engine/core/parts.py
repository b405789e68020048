"""The parts of a core, joined: what the RPC handlers work with."""

from collections.abc import Callable
from dataclasses import dataclass

from engine.colink import keys
from engine.colink.identity import KeyPair
from engine.core.auth import Gate
from engine.core.effects import Effects
from engine.core.entries import Entries
from engine.core.external import ExternalOperators
from engine.core.guard import Guard
from engine.core.initialisation import Initialisation
from engine.core.lists import Lists
from engine.core.operators.base import Desk
from engine.core.operators.inboxes import Inboxes
from engine.core.operators.policy_module import PolicyModule
from engine.core.operators.registry import REG_CONFIG, RegistryOperator
from engine.core.operators.remote_storage import RemoteStorage
from engine.core.operators.scheduler import Scheduler
from engine.core.peers.address_book import AddressBook
from engine.core.peers.outbox import Outbox
from engine.core.peers.peers import Peers, join_peers
from engine.core.pom import OperatorManager
from engine.core.queue.accounts import Account, Accounts
from engine.core.queue.port import MessageQueue
from engine.core.queue.publisher import Publisher
from engine.core.reserved import check_writable
from engine.core.settings import Settings
from engine.core.store import Store
from engine.core.subscriptions import Subscriptions
from engine.core.task_entries import TaskEntries
from engine.core.task_table import TaskTable
from engine.core.tasks import Tasks
from engine.core.tokens import Tokens
from engine.core.users import Users
from engine.serving.audit import Audit


@dataclass(frozen=True)
class Parts:
    """Everything behind the RPCs."""

    store: Store
    subscriptions: Subscriptions
    entries: Entries
    tokens: Tokens
    users: Users
    gate: Gate
    guard: Guard
    tasks: Tasks
    peers: Peers
    effects: Effects
    operators: OperatorManager
    external: ExternalOperators
    initialisation: Initialisation
    accounts: Accounts
    publisher: Publisher
    queue_uri: Callable[[Account], str]
    inboxes: Inboxes
    key_pair: KeyPair
    version: str
    settings: Settings


def join(
    settings: Settings,
    store: Store,
    accounts: Accounts,
    message_queue: MessageQueue,
    secret: bytes,
    key_pair: KeyPair,
    version: str,
    core_uri: Callable[[], str],
    audit: Audit,
) -> Parts:
    """Build the parts on an open store. Nothing is started."""
    subscriptions = Subscriptions(store)
    lists = Lists(store)
    table = TaskTable(store, lists)
    presented = TaskEntries(store, lists, table)
    entries = Entries(store, subscriptions, presented)
    tokens = Tokens(secret, settings.limits.max_token_days * 86400)
    users, guard = Users(store, key_pair), Guard(settings.limits)
    outbox, book = Outbox(store), AddressBook(entries)
    tasks = Tasks(store, subscriptions, lists, table, presented, users, outbox)
    effects = Effects(store)
    operators = OperatorManager(store, key_pair.user_id)
    tasks.on_entered.append(operators.entered)
    inboxes = Inboxes()

    def check_write(name: str, payload: bytes) -> None:
        guard.check(name, payload)
        check_writable(name, protect=not settings.allow_internal_writes)

    desk = Desk(
        *(store, entries, tasks, users, effects, tokens, operators.runs, core_uri, book),
        *(check_write, inboxes, audit),
    )
    # The engine's own core keeps to its home; others meet at a file in $COLINK_HOME.
    shared = None if settings.child else settings.colink_home
    registry = RegistryOperator(desk, shared / REG_CONFIG if shared else None)
    scheduler = Scheduler(desk)
    operators.equip(
        desk,
        [
            *(PolicyModule(desk), RemoteStorage(desk, scheduler.on_inbox)),
            *(registry, scheduler),
        ],
    )
    peers = join_peers(settings, store, tasks, effects, book, outbox, registry.answers)
    store.on_rollback.append(operators.forget_all)
    publisher = Publisher(
        *(store, subscriptions, accounts, message_queue),
        settings.limits.max_queue_messages,
    )

    def refresh_uris() -> None:
        for owner_id, account in accounts.items():
            owner, uri = store.owner(owner_id), message_queue.uri(account).encode()
            if entries.get(owner, keys.MQ_URI) != uri:
                entries.update_silently(owner, keys.MQ_URI, uri)

    def tell_again(queue: str) -> None:
        found = subscriptions.find(queue)
        if found is not None:
            for version in entries.present(store.owner(found[0]), found[1]):
                subscriptions.send(queue, *found, "in-storage", *version)

    publisher.on_connected = refresh_uris
    publisher.on_queue_lost = tell_again
    external = ExternalOperators(settings, key_pair.user_id, entries, effects, operators, core_uri)
    folders = [settings.home, *([settings.colink_home] if settings.colink_home else [])]
    return Parts(
        store=store,
        subscriptions=subscriptions,
        entries=entries,
        tokens=tokens,
        users=users,
        gate=Gate(tokens, users),
        guard=guard,
        tasks=tasks,
        peers=peers,
        effects=effects,
        operators=operators,
        external=external,
        initialisation=Initialisation(entries, operators, external, effects, folders),
        accounts=accounts,
        publisher=publisher,
        queue_uri=message_queue.uri,
        inboxes=inboxes,
        key_pair=key_pair,
        version=version,
        settings=settings,
    )
