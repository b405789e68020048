"""Names of storage entries: the protocol's, coflows', and our own. Each returns a key *name*.

Section numbers are those of the protocol sheet.
"""

import re

from engine.model.errors import UsageError

USER_IS_INITIALIZED = "_internal:_is_initialized"
USER_CONSENT = "_internal:user_consent"
MQ_URI = "_internal:mq_uri"
FLOWS = "flows"
INSTANCE_METADATA = "instance_metadata"
PUSH_TASKS = "push_tasks"
GET_INSTANCE_TASKS = "get_instance_tasks"
SCHEDULER_QUEUE = "coflows_scheduler:finished_task_queue_name"
POLICY_SETTINGS = "_policy_module:settings"
ENGINE_FLOWS = "engine:flows"
ENGINE_MOUNTS = "engine:mounts"
ENGINE_INSTANCES = "engine:instances"
ENGINE_SINGLETONS = "engine:singletons"
ENGINE_DEAD = "engine:dead"
ENGINE_CANCELLED = "engine:cancelled"
ENGINE_STARTS = "engine:starts"

_PUSH_KEY = re.compile(r"push_tasks:([A-Za-z0-9_-]{1,64}):(msg|response)")


# Core (§3-§7)


def user_jwt(user_id: str) -> str:
    """Return the host's entry that keeps the JWT of an imported user."""
    return f"users:{user_id}:user_jwt"


def task(task_id: str) -> str:
    """Return the entry of a task's record, an encoded Task (§6.4)."""
    return f"_internal:tasks:{task_id}"


def status_list(status: str) -> str:
    """Return the entry of the list of all tasks with `status` (§6.4)."""
    return f"_internal:tasks:status:{status}"


def status_latest(status: str) -> str:
    """Return the entry of the task that last came to `status` (§6.4)."""
    return f"{status_list(status)}:latest"


def protocol_list(protocol_name: str, status: str, role: str = "") -> str:
    """Return the entry of the list of a protocol's tasks with `status` (§6.4).

    `role` is given for the status `started` only, as the core does.
    """
    name = f"{protocol_name}:{role}" if role else protocol_name
    return f"_internal:protocols:{name}:{status}"


def protocol_latest(protocol_name: str, status: str, role: str = "") -> str:
    """Return the entry of the protocol's task that last came to `status` (§6.4)."""
    return f"{protocol_list(protocol_name, status, role)}:latest"


def protocol_is_initialized(protocol_name: str) -> str:
    """Return the one-byte entry telling that the protocol's operator ran its init (§7.1)."""
    return f"_internal:protocols:{protocol_name}:_is_initialized"


def operator_mq(protocol_name: str, role: str) -> str:
    """Return the entry with the queue that all operators of a protocol's role share (§7.1)."""
    return f"_internal:protocols:{protocol_name}:{role}:operator_mq"


def task_po_mapping(task_id: str) -> str:
    """Return the entry telling which operator took a task (§6.4)."""
    return f"_internal:task_po_mapping:{task_id}"


def lock(key: str) -> str:
    """Return the entry that is the lock of `key` (§7.3)."""
    return f"_lock:{key}"


def known_user_address(user_id: str) -> str:
    """Return the address book's entry of a user's core (§6.5)."""
    return f"_internal:known_users:{user_id}:core_addr"


def known_user_token(user_id: str) -> str:
    """Return the address book's entry of a user's guest JWT (§6.5)."""
    return f"_internal:known_users:{user_id}:guest_jwt"


def known_user_forwarder(user_id: str) -> str:
    """Return the address book's entry of the user through whom another is reached (§6.6)."""
    return f"_internal:known_users:{user_id}:forwarding_user_id"


def operator_group(protocol_name: str) -> str:
    """Return the entry listing the running operator instances of a protocol (§7.4)."""
    return f"_internal:protocol_operator_groups:{protocol_name}"


def operator_instance(instance_id: str, field: str) -> str:
    """Return an entry of an operator instance: `pid`, `protocol_name` and so on (§7.4)."""
    return f"_internal:protocol_operator_instances:{instance_id}:{field}"


def operator_instance_user(instance_id: str) -> str:
    """Return the host's entry telling whose an operator instance is (§7.4)."""
    return f"protocol_operator_instance_users:{instance_id}"


# Built-in protocols (§8)


def remote_storage(requester_id: str, name: str, *, public: bool = False) -> str:
    """Return the provider's entry for what `requester_id` stored under `name` (§8.2)."""
    return f"_remote_storage:{'public' if public else 'private'}:{requester_id}:{name}"


def variable_name(task_id: str, key: str) -> str:
    """Return the remote-storage name of a variable sent inside a task (§8.4)."""
    return f"_variable_transfer:{task_id}:{key}"


def variable(sender_id: str, task_id: str, key: str) -> str:
    """Return the receiver's entry of a variable sent inside a task (§8.4)."""
    return remote_storage(sender_id, variable_name(task_id, key))


def task_output(task_id: str) -> str:
    """Return the entry where a task's result is left by habit (§6.3)."""
    return f"tasks:{task_id}:output"


def task_status(task_id: str) -> str:
    """Return the entry of a remote-storage read's outcome, one byte (§8.2)."""
    return f"tasks:{task_id}:status"


# coflows (§9)


def flow(flow_endpoint: str, field: str) -> str:
    """Return an entry of a served flow, such as its `init` (§9.1)."""
    return f"flows:{flow_endpoint}:{field}"


def flow_mounts(flow_endpoint: str) -> str:
    """Return the prefix of all mounts of a served flow."""
    return f"flows:{flow_endpoint}:mounts"


def mount(flow_endpoint: str, client_id: str, flow_id: str) -> str:
    """Return the prefix of one instance's entries; `client_id` is `local` for the server itself."""
    return f"flows:{flow_endpoint}:mounts:{client_id}:{flow_id}"


def mount_field(flow_endpoint: str, client_id: str, flow_id: str, field: str) -> str:
    """Return an entry of an instance, such as its `state` (§9.1)."""
    return f"{mount(flow_endpoint, client_id, flow_id)}:{field}"


def instance_metadata(flow_id: str) -> str:
    """Return the entry telling which endpoint an instance is of, and for whom (§9.1)."""
    return f"instance_metadata:{flow_id}"


def push_message(message_id: str) -> str:
    """Return the entry of a pushed message (§9.1)."""
    return f"push_tasks:{message_id}:msg"


def push_response(message_key: str) -> str:
    """Return the entry of the reply to the message at `message_key`: its last segment replaced."""
    return f"{message_key.rpartition(':')[0]}:response"


def is_push_key(key: str) -> bool:
    """Tell whether `key` is of the form that a message or reply of coflows has, and no other.

    Others name the key of what they send us: nothing else may be created at their wish.
    """
    return _PUSH_KEY.fullmatch(key) is not None


def message_id(push_key: str) -> str:
    """Return the id in the key of a message or reply; "" for any other key."""
    found = _PUSH_KEY.fullmatch(push_key)
    return found.group(1) if found else ""


def is_response_key(key: str) -> bool:
    """Tell whether `key` is that of a reply in storage."""
    return is_push_key(key) and key.endswith(":response")


def message_of_response(response_key: str) -> str:
    """Return the key of the message that the reply at `response_key` answers."""
    return f"{response_key.rpartition(':')[0]}:msg"


def get_instance_calls(request_id: str) -> str:
    """Return the entry of what a `coflows_get_instances` task asks for (§9.4)."""
    return f"get_instance_tasks:{request_id}:get_instance_calls"


def get_instances_results(request_id: str) -> str:
    """Return the entry of what a `coflows_get_instances` task brought (§9.4)."""
    return f"get_instance_tasks:{request_id}:get_instances_results"


# Ours


def engine_flow(flow_endpoint: str) -> str:
    """Return the entry of our record of a served flow."""
    return f"{ENGINE_FLOWS}:{flow_endpoint}"


def engine_mount(name: str) -> str:
    """Return the entry of our record of a declared mount."""
    return f"{ENGINE_MOUNTS}:{name}"


def engine_instance(flow_id: str) -> str:
    """Return the entry of what a caller asked for when he got an instance."""
    return f"{ENGINE_INSTANCES}:{flow_id}"


def engine_singleton(flow_endpoint: str) -> str:
    """Return the entry that claims the one instance of a singleton flow."""
    return f"{ENGINE_SINGLETONS}:{flow_endpoint}"


def engine_dead(letter_id: str) -> str:
    """Return the entry of a dead letter: a message that could not be handled for good."""
    return f"{ENGINE_DEAD}:{letter_id}"


def engine_starts(message_key: str) -> str:
    """Return the entry that counts how often a message that was taken over was begun."""
    return f"{ENGINE_STARTS}:{message_id(message_key) or 'other'}"


# Operators' names


def split_handler(name: str) -> tuple[str, str]:
    """Split an operator's `protocol:role` at the last colon (§7.1); UsageError without one."""
    protocol_name, colon, role = name.rpartition(":")
    if not colon or not protocol_name or not role:
        raise UsageError(f"{name!r} is not of the form protocol:role.")
    return protocol_name, role
