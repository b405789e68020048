"""policy_module: decides on waiting tasks by the user's rules (§8.1)."""

import logging
from collections.abc import Callable, Mapping

import re2
from google.protobuf.message import DecodeError

from engine.colink import keys, wire
from engine.colink.payloads import nanoseconds_bytes
from engine.core.operators.base import Desk, Handler
from engine.core.refusals import Refusal
from engine.core.task_table import TaskCopy

log = logging.getLogger(__name__)
_APPLIED = "_policy_module:applied_settings_timestamp"
_ACCEPT_ALL = "_policy_module:init:accept_all_tasks"
_ACCEPT_ALL_PRIORITY = 1
_TASK = "policy_module:local"
_ACTIONS = frozenset({"approve", "reject", "ignore", "forward"})
"""Rules with any other action, or none, decide nothing."""


class PolicyModule:
    """Approves, rejects, ignores or forwards; leaves alone what no rule, or no one rule, covers."""

    package = "policy_module"
    protocols: tuple[str, ...] = ("policy_module",)

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._settings: dict[str, wire.Settings] = {}
        self.handlers: Mapping[str, Handler] = {_TASK: self._follow}
        desk.entries.on_write(keys.POLICY_SETTINGS, self._settings_written)

    def start(self, user_id: str) -> None:
        """Enable the module, with a rule that accepts all tasks if the init file asks for it."""
        settings = self._read(user_id)
        settings.enable = True
        if self._desk.entries.get(user_id, _ACCEPT_ALL) == b"true":
            rule = wire.Rule(
                rule_id="accept_all_tasks",
                action=wire.Action(type="approve"),
                priority=_ACCEPT_ALL_PRIORITY,
            )
            if all(known.rule_id != rule.rule_id for known in settings.rules):
                settings.rules.append(rule)
        self._desk.entries.update(user_id, keys.POLICY_SETTINGS, settings.SerializeToString())

    def resume(self, user_id: str) -> None:
        """Decide on what waits."""
        for copy in self._desk.tasks.in_status(user_id, "waiting"):
            self._decide(copy)

    def forget(self, user_id: str) -> None:
        """Read the settings again at the next task."""
        self._settings.pop(user_id, None)

    def forget_all(self) -> None:
        """Do so for all users."""
        self._settings.clear()

    def on_task(self, copy: TaskCopy) -> Handler | None:
        """Decide on waiting tasks."""
        return self._decide if copy.status == "waiting" else None

    def _decide(self, copy: TaskCopy) -> None:
        settings = self._settings.get(copy.owner)
        if settings is None:
            settings = self._settings[copy.owner] = self._read(copy.owner)

        def parent() -> TaskCopy | None:
            return self._desk.tasks.get(copy.owner, copy.task.parent_task)

        action = choose(settings, copy, parent) if settings.enable else None
        if action is None or copy.status != "waiting" or action.type not in _ACTIONS:
            return
        task_id = copy.task.task_id
        try:
            if action.type == "forward":
                self._forward(copy.owner, task_id, action.forward_target_keyname)
            else:
                decision = wire.Decision(
                    is_approved=action.type == "approve", is_rejected=action.type == "reject"
                )
                self._desk.tasks.confirm(copy.owner, task_id, decision)
        except Refusal as refusal:
            # Too late, or its initiator cannot be told: it stays as it is.
            log.info("the task %s cannot be decided on: %s", task_id, refusal.message)

    def _forward(self, owner: str, task_id: str, name: str) -> None:
        """Leave the decision to whoever listens to the user's entry `name`."""
        payload = wire.Task(task_id=task_id).SerializeToString()
        self._desk.check_write(name, payload)
        self._desk.entries.update(owner, name, payload)

    def _follow(self, copy: TaskCopy) -> None:
        """End the task by which the SDK starts the module, once the module is not enabled."""
        if not self._read(copy.owner).enable:
            self._desk.finish(copy)

    def _settings_written(self, owner: str, timestamp: int, payload: bytes | None) -> None:
        self._settings.pop(owner, None)
        if not self._desk.runs(owner, self.package):
            return
        self._desk.entries.update(owner, _APPLIED, nanoseconds_bytes(timestamp))
        if not self._read(owner).enable:
            for copy in self._desk.tasks.in_status(owner, "started"):
                if f"{copy.task.protocol_name}:{copy.role}" == _TASK:
                    self._desk.finish(copy)

    def _read(self, user_id: str) -> wire.Settings:
        payload = self._desk.entries.get(user_id, keys.POLICY_SETTINGS) or b""
        try:
            return wire.Settings.FromString(payload)
        except DecodeError:
            log.warning("the policy settings of %s cannot be read: nothing is decided", user_id)
            return wire.Settings()


def choose(
    settings: wire.Settings, copy: TaskCopy, parent: Callable[[], TaskCopy | None]
) -> wire.Action | None:
    """Return the action of the matching rule with the smallest priority.

    `parent` gives the same user's copy of the task that this one was created in, if he has one.
    None when no rule matches, or when several of that priority want different things.
    """
    matching = [rule for rule in settings.rules if _matches(rule.task_filter, copy, parent)]
    if not matching:
        return None
    first = min(rule.priority for rule in matching)
    actions = [rule.action for rule in matching if rule.priority == first]
    return actions[0] if all(action == actions[0] for action in actions) else None


def _matches(
    task_filter: wire.TaskFilter, copy: TaskCopy, parent: Callable[[], TaskCopy | None]
) -> bool:
    """Tell whether a filter covers a task; fields that are not set cover all."""
    task, participants = copy.task, set(task_filter.participants)
    return (
        task_filter.task_id in ("", task.task_id)
        and task_filter.protocol_name in ("", task.protocol_name)
        and (not participants or {p.user_id for p in task.participants} <= participants)
        and (not task_filter.role or _found(task_filter.role, copy.role))
        and (
            not task_filter.HasField("require_agreement")
            or task_filter.require_agreement.value == task.require_agreement
        )
        and (
            not task_filter.HasField("parent_task_filter")
            or _parent_matches(task_filter.parent_task_filter, parent())
        )
    )


def _parent_matches(task_filter: wire.TaskFilter, parent: TaskCopy | None) -> bool:
    """Tell whether a filter covers a parent task; upstream looks at the child instead (§12)."""
    return parent is not None and _matches(task_filter, parent, lambda: None)


def _found(pattern: str, role: str) -> bool:
    """Search for a user's pattern. RE2, as upstream's, takes linear time: `re` might take ages."""
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.search(pattern, role, options=options) is not None
    except re2.error:
        return False
