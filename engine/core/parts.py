"""The parts of a core, joined: what the RPC handlers work with."""

from collections.abc import Callable
from dataclasses import dataclass

from engine.colink import keys
from engine.colink.identity import KeyPair
from engine.core.auth import Gate
from engine.core.effects import Effects
from engine.core.entries import Entries
from engine.core.initialisation import Initialisation
from engine.core.lists import Lists
from engine.core.operators.base import Desk
from engine.core.operators.policy_module import PolicyModule
from engine.core.operators.registry import REG_CONFIG, RegistryOperator
from engine.core.operators.remote_storage import RemoteStorage
from engine.core.operators.scheduler import Scheduler
from engine.core.peers.address_book import AddressBook
from engine.core.peers.outbox import Outbox
from engine.core.peers.peers import Peers, join_peers
from engine.core.pom import OperatorManager
from engine.core.queue.accounts import Account, Accounts
from engine.core.queue.publisher import Publisher, QueueServer
from engine.core.settings import Settings
from engine.core.store import Store
from engine.core.subscriptions import Subscriptions
from engine.core.task_entries import TaskEntries
from engine.core.task_table import TaskTable
from engine.core.tasks import Tasks
from engine.core.tokens import Tokens
from engine.core.users import Users


@dataclass(frozen=True)
class Parts:
    """Everything behind the RPCs."""

    store: Store
    subscriptions: Subscriptions
    entries: Entries
    tokens: Tokens
    users: Users
    gate: Gate
    tasks: Tasks
    peers: Peers
    effects: Effects
    operators: OperatorManager
    initialisation: Initialisation
    accounts: Accounts
    publisher: Publisher
    queue_uri: Callable[[Account], str]
    key_pair: KeyPair
    version: str


def join(
    settings: Settings,
    store: Store,
    accounts: Accounts,
    server: QueueServer,
    secret: bytes,
    key_pair: KeyPair,
    version: str,
    core_uri: Callable[[], str],
) -> Parts:
    """Build the parts on an open store. Nothing is started."""
    subscriptions = Subscriptions(store)
    lists = Lists(store)
    table = TaskTable(store, lists)
    presented = TaskEntries(store, lists, table)
    entries = Entries(store, subscriptions, presented)
    tokens, users = Tokens(secret), Users(store, key_pair)
    outbox, book = Outbox(store), AddressBook(entries)
    tasks = Tasks(store, subscriptions, lists, table, presented, users, outbox)
    effects = Effects(store)
    operators = OperatorManager(store, key_pair.user_id)
    tasks.on_entered.append(operators.entered)
    desk = Desk(store, entries, tasks, users, effects, tokens, operators.runs, core_uri, book)
    # The engine's own core keeps to its home; others meet at a file in $COLINK_HOME.
    shared = None if settings.child else settings.colink_home
    registry = RegistryOperator(desk, shared / REG_CONFIG if shared else None)
    operators.equip(desk, [PolicyModule(desk), RemoteStorage(desk), registry, Scheduler(desk)])
    peers = join_peers(settings, store, tasks, effects, book, outbox, registry.answers)
    store.on_rollback.append(operators.forget_all)
    publisher = Publisher(store, subscriptions, accounts, server)

    def queue_uri(account: Account) -> str:
        return account.uri(server.address, server.scheme)

    def refresh_uris() -> None:
        for owner_id, account in accounts.items():
            owner, uri = store.owner(owner_id), queue_uri(account).encode()
            if entries.get(owner, keys.MQ_URI) != uri:
                entries.update_silently(owner, keys.MQ_URI, uri)

    publisher.on_connected = refresh_uris
    folders = [settings.home, *([settings.colink_home] if settings.colink_home else [])]
    return Parts(
        store=store,
        subscriptions=subscriptions,
        entries=entries,
        tokens=tokens,
        users=users,
        gate=Gate(tokens, users),
        tasks=tasks,
        peers=peers,
        effects=effects,
        operators=operators,
        initialisation=Initialisation(entries, operators, folders),
        accounts=accounts,
        publisher=publisher,
        queue_uri=queue_uri,
        key_pair=key_pair,
        version=version,
    )
