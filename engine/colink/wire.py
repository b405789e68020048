"""The message classes and the service of the colink SDK, without importing the SDK.

`import colink` runs the SDK's `__init__`, which pulls in pika, requests and redis and takes 0.3 to
0.6 s, while the engine starts many processes that need nothing but the message classes. So this
module executes only the generated `*_pb2.py` files inside the installed package, under names of
its own. The protobuf runtime keeps one class per message name: a later (or earlier) real
`import colink` in the same process gets the very same classes.

The SDK's generated gRPC module begins with `import colink`, hence the stub and the registration of
a servicer are built here from the service's descriptor, which those files contain as well.
"""

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import google.protobuf
import grpc
from google.protobuf import descriptor_pb2
from google.protobuf.message import DecodeError

if TYPE_CHECKING:
    from colink.proto.v4.colink_pb2 import (
        CoLinkInternalTaskIDList,
        CoLinkInternalTaskIDWithKeyPath,
        ConfirmTaskRequest,
        Decision,
        Empty,
        GenerateTokenRequest,
        Jwt,
        ListOfString,
        MQQueueName,
        Participant,
        ProtocolOperatorInstanceId,
        ReadKeysRequest,
        RequestInfoResponse,
        StartProtocolOperatorRequest,
        StorageEntries,
        StorageEntry,
        SubscribeRequest,
        SubscriptionMessage,
        Task,
        UserConsent,
    )
    from colink.proto.v4.colink_policy_module_pb2 import Action, Rule, Settings, TaskFilter
    from colink.proto.v4.colink_registry_pb2 import Registries, Registry, UserRecord
    from colink.proto.v4.colink_remote_storage_pb2 import (
        CreateParams,
        DeleteParams,
        ReadParams,
        UpdateParams,
    )

__all__ = [
    "EXTENSION_SERVICE",
    "UNREADABLE",
    "Action",
    "CoLinkInternalTaskIDList",
    "CoLinkInternalTaskIDWithKeyPath",
    "CoLinkServicer",
    "CoLinkStub",
    "ConfirmTaskRequest",
    "CreateParams",
    "Decision",
    "DeleteParams",
    "Empty",
    "ExtensionStub",
    "GenerateTokenRequest",
    "Jwt",
    "ListOfString",
    "MQQueueName",
    "Participant",
    "ProtocolOperatorInstanceId",
    "ReadKeysRequest",
    "ReadParams",
    "Registries",
    "Registry",
    "RequestInfoResponse",
    "Rule",
    "Settings",
    "StartProtocolOperatorRequest",
    "StorageEntries",
    "StorageEntry",
    "SubscribeRequest",
    "SubscriptionMessage",
    "Task",
    "TaskFilter",
    "UpdateParams",
    "UserConsent",
    "UserRecord",
    "add_CoLinkServicer_to_server",
    "add_extension_to_server",
]

_FILES = ("colink", "colink_policy_module", "colink_registry", "colink_remote_storage")


def _generated_folder() -> Path:
    """Return the folder of the SDK's generated files that suit the installed protobuf runtime."""
    # Finding a top-level package does not execute it, unlike finding one of its submodules.
    spec = importlib.util.find_spec("colink")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("The package colink is not installed.", name="colink")
    version = "v3" if google.protobuf.__version__.startswith("3.") else "v4"
    return Path(next(iter(spec.submodule_search_locations)), "proto", version)


def _execute(file: Path) -> ModuleType:
    """Run a generated file as a module that only this one knows of, and return it."""
    spec = importlib.util.spec_from_file_location(f"{__name__}.{file.stem}", file)
    if spec is None or spec.loader is None or not file.is_file():
        raise ModuleNotFoundError(f"The package colink lacks {file}.", name="colink")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_modules = tuple(_execute(_generated_folder() / f"{name}_pb2.py") for name in _FILES)
if not TYPE_CHECKING:
    for _module in _modules:
        for _name in _module.DESCRIPTOR.message_types_by_name:
            globals()[_name] = getattr(_module, _name)

_Messages = tuple[Any, Any]


def _methods() -> dict[str, tuple[bool, Any, Any]]:
    """Return the service's methods: name to (streams its replies, request class, reply class)."""
    service = _modules[0].DESCRIPTOR.services_by_name["CoLink"]
    written = descriptor_pb2.ServiceDescriptorProto()
    service.CopyToProto(written)
    streaming = {method.name: method.server_streaming for method in written.method}
    return {
        method.name: (
            streaming[method.name],
            getattr(_modules[0], method.input_type.name),
            getattr(_modules[0], method.output_type.name),
        )
        for method in service.methods
    }


UNREADABLE = object()
"""What a unary method of a servicer gets for bytes that are no message: gRPC would say UNKNOWN."""
_SERVICE = "colink.CoLink"
_METHODS: Mapping[str, tuple[bool, Any, Any]] = _methods()

EXTENSION_SERVICE = "colink.engine.v1.Extension"
"""What the embedded core offers beyond the protocol, on the same port, in the same messages."""
_EXTENSION: Mapping[str, _Messages] = {
    "UpdateEntries": (StorageEntries, StorageEntries),
    "DeleteEntries": (StorageEntries, StorageEntries),
    "ReadTree": (ReadKeysRequest, StorageEntries),
}


class CoLinkServicer:
    """Base of a server's implementation: an async method per RPC, named like it.

    RPCs that a subclass leaves out answer UNIMPLEMENTED.
    """


class CoLinkStub:
    """The service's methods on a channel; each is called as `stub.CreateEntry(request, ...)`."""

    RequestInfo: Callable[..., Any]
    GenerateToken: Callable[..., Any]
    ImportUser: Callable[..., Any]
    CreateEntry: Callable[..., Any]
    ReadEntries: Callable[..., Any]
    UpdateEntry: Callable[..., Any]
    DeleteEntry: Callable[..., Any]
    ReadKeys: Callable[..., Any]
    CreateTask: Callable[..., Any]
    ConfirmTask: Callable[..., Any]
    FinishTask: Callable[..., Any]
    Subscribe: Callable[..., Any]
    Unsubscribe: Callable[..., Any]
    StartProtocolOperator: Callable[..., Any]
    StopProtocolOperator: Callable[..., Any]
    InterCoreSyncTask: Callable[..., Any]
    InterCoreSyncTaskWithReverseConnection: Callable[..., Any]

    def __init__(self, channel: Any) -> None:
        for name, (streams, request, reply) in _METHODS.items():
            connect = channel.unary_stream if streams else channel.unary_unary
            setattr(self, name, _callable(connect, f"/{_SERVICE}/{name}", request, reply))


class ExtensionStub:
    """The extension's methods on a channel; a core without them answers UNIMPLEMENTED."""

    UpdateEntries: Callable[..., Any]
    DeleteEntries: Callable[..., Any]
    ReadTree: Callable[..., Any]

    def __init__(self, channel: Any) -> None:
        for name, (request, reply) in _EXTENSION.items():
            path = f"/{EXTENSION_SERVICE}/{name}"
            setattr(self, name, _callable(channel.unary_unary, path, request, reply))


def add_CoLinkServicer_to_server(servicer: Any, server: Any) -> None:  # noqa: N802 - gRPC's name
    """Let `server` (of `grpc` or `grpc.aio`) answer the service's RPCs with `servicer`."""
    handlers = {
        name: _handler(getattr(servicer, name), streams, request, reply)
        for name, (streams, request, reply) in _METHODS.items()
        if hasattr(servicer, name)
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))


def add_extension_to_server(servicer: Any, server: Any) -> None:
    """Let `server` answer the extension's RPCs with `servicer`'s methods of the same names."""
    handlers = {
        name: _handler(getattr(servicer, name), False, request, reply)
        for name, (request, reply) in _EXTENSION.items()
        if hasattr(servicer, name)
    }
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(EXTENSION_SERVICE, handlers),)
    )


def _callable(connect: Any, path: str, request: Any, reply: Any) -> Callable[..., Any]:
    made: Callable[..., Any] = connect(
        path,
        request_serializer=request.SerializeToString,
        response_deserializer=reply.FromString,
    )
    return made


def _handler(method: Any, streams: bool, request: Any, reply: Any) -> Any:
    make = grpc.unary_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
    # Of a stream that cannot be read there is nothing to say but that nothing is in it.
    unreadable = request() if streams else UNREADABLE

    def read(content: bytes) -> Any:
        try:
            return request.FromString(content)
        except DecodeError:
            return unreadable

    return make(
        method,
        request_deserializer=read,
        response_serializer=reply.SerializeToString,
    )
