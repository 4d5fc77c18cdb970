"""Each private hook of Flower that fedjoint uses is there, and is what fedjoint takes it for."""

import inspect
import re
from importlib import import_module
from importlib.metadata import version

import pytest
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid


def fail(place, why):
    pytest.fail(f"Flower {version('flwr')} has moved {place}: {why}", pytrace=False)


def attempt(call):
    """Return what ``call`` returns, and why it fails."""
    try:
        return call(), ""
    except (ImportError, RuntimeError, TypeError) as error:
        return None, str(error)


def look_up(place):
    """Return what ``module:name.name`` names."""
    module, _, path = place.partition(":")
    value, why = attempt(lambda: import_module(module))
    if why:
        fail(place, why)
    for name in path.split("."):
        if not hasattr(value, name):
            fail(place, f"no {name!r} in {getattr(value, '__name__', value)}")
        value = getattr(value, name)
    return value


def source(module):
    return inspect.getsource(import_module(module))


# place -> the arguments by which fedjoint calls it
CALLED = {
    "flwr.supercore.run:Run.create_empty": ([1], {}),
    "flwr.superlink.cli.flower_superlink:flower_superlink": ([], {}),
    "flwr.superlink.cli:flwr_serverapp": ([], {}),
    "flwr.superlink.extensions:get_middleware": ([], {}),
    "flwr.superlink.extensions:get_lifespan_contexts": ([], {}),
    "flwr.superlink.servicer.runtime.runtime_handlers:acquire_task": (["request", "state"], {}),
    "flwr.supernode.fleet_http_client:FleetHttpClient.from_server_address": (
        ["address", True, None],
        {"interceptors": []},
    ),
    "flwr.supercore.control:ControlHttpClient.from_server_address": (
        ["address", True, None],
        {"interceptors": []},
    ),
    "flwr.supernode.node_auth_http_interceptor:NodeAuthHttpInterceptor": (["key", "key"], {}),
    "flwr.supercore.interceptors.http.runtime_version:RuntimeVersionHttpInterceptor": (
        [],
        {"component_name": "SuperNode"},
    ),
    "flwr.supercore.primitives.asymmetric:generate_key_pairs": ([], {}),
    "flwr.supercore.primitives.asymmetric:public_key_to_bytes": (["key"], {}),
    "flwr.supercore.error:FlowerError.from_json": (["text"], {}),
    "flwr.supercore.inflatable.inflatable_object:get_all_nested_objects": (["message"], {}),
    "flwr.supercore.inflatable.inflatable_object:get_object_tree": (["message"], {}),
    "flwr.supercore.inflatable.inflatable_object:iterate_object_tree": (["tree"], {}),
    "flwr.supercore.inflatable.inflatable_utils:inflate_object_from_contents": (
        ["id", {}],
        {},
    ),
    "flwr.supercore.inflatable.inflatable_utils:pull_objects": (
        [["id"], "pull"],
        {"initial_backoff": 0.1},
    ),
    "flwr.app.message:remove_content_from_message": (["message"], {}),
    "flwr.common.serde:message_to_proto": (["message"], {}),
}


@pytest.mark.parametrize("place", CALLED)
def test_it_takes_the_arguments_that_we_give(place):
    arguments, options = CALLED[place]
    signature = inspect.signature(look_up(place))
    _, why = attempt(lambda: signature.bind(*arguments, **options))
    if why:
        fail(place, why)


# module -> what its code does with a name that fedjoint replaces there, or reads from outside
READ = [
    ("flwr.superlink.main", "extensions.get_middleware()"),
    ("flwr.superlink.main", "in extensions.get_lifespan_contexts():"),
    ("flwr.superlink.main", "lifespan_context(fastapi_app)"),
    ("flwr.superlink.main", "fastapi_app.state.linkstate_factory = linkstate_factory"),
    ("flwr.superlink.cli.flower_superlink", "    uvicorn.run("),
    ("flwr.superlink.cli.flower_superlink", "_parse_args_run_superlink().parse_args()"),
    ("flwr.supercore.superexec.run_superexec", '"FLWR_SUPEREXEC_TASK_POLL_INTERVAL"'),
    ("flwr.supercore.logger", 'LOGGER_NAME = "flwr"'),
    ("flwr.superlink.routers.fleet.router", 'prefix="/v1/fleet"'),
    ("flwr.superlink.grid.http_grid", "= pull_objects("),
    ("flwr.superlink.routers.control.middlewares", 'path.startswith("/v1/control/")'),
    ("flwr.superlink.routers.fleet.middlewares", 'path.startswith("/v1/fleet/")'),
    ("flwr.superlink.routers.fleet.node_auth", 'path.startswith("/v1/fleet/")'),
    ("flwr.supercore.protobuf.client", "context.request"),
]


@pytest.mark.parametrize(("module", "code"), READ)
def test_it_reads_what_we_replace(module, code):
    if code not in source(module):
        fail(module, f"its code has no {code}")


def test_a_superlink_uses_uvicorn_to_serve_alone():
    module = "flwr.superlink.cli.flower_superlink"
    used = set(re.findall(r"\buvicorn\.(\w+)", source(module)))
    if used != {"run"}:
        fail(module, f"it uses {sorted(used)} of uvicorn, and ours has run alone")


@pytest.mark.parametrize(
    ("place", "calls"),
    [
        (
            "flwr.supernode.fleet_http_client:FleetHttpClient",
            """RegisterNode ActivateNode DeactivateNode UnregisterNode SendNodeHeartbeat
            PullMessages PushMessages PullObject PushObject ConfirmMessageReceived close""",
        ),
        (
            "flwr.supercore.control:ControlHttpClient",
            "ListNodes RegisterNode UnregisterNode ListRuns StopRun close",
        ),
    ],
)
def test_a_client_has_what_we_call(place, calls):
    client = look_up(place)
    missing = [name for name in calls.split() if not hasattr(client, name)]
    if missing:
        fail(place, f"no {', '.join(missing)}")


def test_a_state_can_end_a_task():
    place = "flwr.server.superlink.linkstate:LinkState.finish_task"
    _, why = attempt(lambda: inspect.signature(look_up(place)).bind("self", 1, "status", "why"))
    if why:
        fail(place, why)
    for name in ("STOPPED", "FAILED"):
        look_up(f"flwr.common.constant:SubStatus.{name}")
    for name in ("acknowledge_task_heartbeat", "get_run_info"):
        look_up(f"flwr.server.superlink.linkstate:LinkState.{name}")
    for name in ("HEARTBEAT_DEFAULT_INTERVAL", "HEARTBEAT_PATIENCE"):
        look_up(f"flwr.common.constant:{name}")


FIELDS = {
    "flwr.proto.fleet_pb2:PushMessagesRequest": "node messages_list message_object_trees "
    "clientapp_runtime_list",
    "flwr.proto.fleet_pb2:PushMessagesResponse": "objects_to_push session_id",
    "flwr.proto.fleet_pb2:PullMessagesResponse": "messages_list message_object_trees",
    "flwr.proto.fleet_pb2:ActivateNodeRequest": "public_key heartbeat_interval",
    "flwr.proto.message_pb2:PullObjectResponse": "object_found object_available object_content",
    "flwr.proto.message_pb2:PushObjectRequest": "node run_id object_id object_content session_id",
    "flwr.proto.message_pb2:ConfirmMessageReceivedRequest": "node run_id message_object_id",
    "flwr.proto.node_pb2:NodeInfo": "node_id name status public_key unregistered_at "
    "last_activated_at last_deactivated_at",
    "flwr.proto.control_pb2:RegisterNodeRequest": "public_key name",
    "flwr.proto.control_pb2:ListRunsRequest": "run_id",
    "flwr.proto.control_pb2:ListRunsResponse": "run_dict",
    "flwr.proto.control_pb2:StopRunRequest": "run_id",
    "flwr.proto.run_pb2:RunStatus": "status sub_status",
    "flwr.proto.runtime_pb2:AcquireTaskResponse": "task token",
}


@pytest.mark.parametrize("place", FIELDS)
def test_what_travels_has_the_fields_that_we_use(place):
    known = {field.name for field in look_up(place).DESCRIPTOR.fields}
    missing = set(FIELDS[place].split()) - known
    if missing:
        fail(place, f"no {', '.join(sorted(missing))}")


def test_the_errors_of_a_superlink_have_their_codes():
    for name in (
        "FLEET_RUN_STATUS_NOT_ALLOWED",
        "FLEET_NODE_ACTIVATION_FAILED",
        "FLEET_SUPERNODE_REGISTRATION_DISABLED",
        "PUBLIC_KEY_ALREADY_IN_USE",
        "RUN_ID_NOT_FOUND",
        "RUN_ALREADY_FINISHED",
    ):
        look_up(f"flwr.supercore.error:ApiErrorCode.{name}")
    for name in ("MESSAGE_UNAVAILABLE", "REPLY_MESSAGE_UNAVAILABLE", "NODE_UNAVAILABLE"):
        look_up(f"flwr.common.constant:ErrorCode.{name}")


def test_a_simulated_grid_is_known_by_its_class():
    place = "flwr.superlink.grid.inmemory_grid:InMemoryGrid"
    if not issubclass(look_up(place), Grid):
        fail(place, "it is no Grid")


def test_our_grids_have_all_that_a_grid_needs():
    look_up("flwr.supercore.run:Run")
    missing = look_up("fedjoint.engines.local:LocalGrid").__abstractmethods__ - {
        "get_node_ids",
        "send_and_receive",
    }
    if missing:
        fail("flwr.serverapp:Grid", f"LocalGrid lacks {', '.join(sorted(missing))}")


def test_messages_get_a_run_a_source_and_an_id():
    place = "flwr.supercore.task_identity:TaskIdentity"
    look_up(place)
    compat = import_module("fedjoint.flower.compat")
    compat.be_server(run_id=5)
    message, why = attempt(lambda: Message(RecordDict(), dst_node_id=7, message_type="train"))
    compat.be_server()
    if why:
        fail(place, why)
    (message,) = compat.number([message])
    data = message.metadata
    if (data.run_id, data.src_node_id) != (5, 0):
        fail(place, f"a new message has {data}")
    if not data.message_id.isdecimal():
        fail("flwr.app:Message.metadata", f"a message that we number has {data}")
    asked = Message(RecordDict(), 7, "train", group_id="radar")
    compat.answers(message, asked)
    if (data.src_node_id, data.group_id) != (7, "radar"):
        fail("flwr.app:Message.metadata", f"a reply of node 7 about radar has {data}")
