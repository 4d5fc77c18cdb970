"""Each private hook of Flower that fedjoint uses is there, and is what fedjoint takes it for."""

import inspect
import re
from dataclasses import fields, is_dataclass
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
    "flwr.supercore.cli.flower_superexec:flower_superexec": ([], {}),
    "flwr.superlink.cli.flower_superlink:flower_superlink": ([], {}),
    "flwr.supernode.cli.flower_supernode:flower_supernode": ([], {}),
    "flwr.superlink.extensions:get_middleware": ([], {}),
    "flwr.supercore.superexec.executor:LaunchResult.accepted": ([], {}),
    "flwr.supercore.superexec.executor.subprocess_executor:SubprocessExecutor": ([], {}),
    "flwr.supercore.superexec.executor.subprocess_executor:SubprocessExecutor.launch": (
        ["self", "spec"],
        {},
    ),
    "flwr.supercore.superexec.executor.subprocess_executor:SubprocessExecutor.close": (
        ["self"],
        {},
    ),
    "flwr.supercore.tls:validate_and_resolve_root_certificates": (["path", False], {}),
    "flwr.supernode.runtime.run_clientapp:run_clientapp": (
        [],
        dict.fromkeys(
            [
                "runtime_api_address",
                "token",
                "insecure",
                "certificates",
                "parent_pid",
                "runtime_dependency_install",
            ]
        ),
    ),
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
    ("flwr.supercore.superexec.run_superexec", "executor = get_executor("),
    ("flwr.supercore.superexec.run_superexec", '"FLWR_SUPEREXEC_TASK_POLL_INTERVAL"'),
    ("flwr.supercore.heartbeat", "= HEARTBEAT_DEFAULT_INTERVAL - "),
    ("flwr.supernode.fleet_http_connection", "heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL"),
    ("flwr.supernode.start_client_internal", 'command = ["flower-superexec"]'),
    ("flwr.supernode.start_client_internal", "subprocess.Popen(command)"),
    ("flwr.supernode.runtime.run_clientapp", 'str(type(ex)) + ":<\'" + str(ex) + "\'>"'),
    ("flwr.superlink.routers.fleet.router", 'prefix="/v1/fleet"'),
]


@pytest.mark.parametrize(("module", "code"), READ)
def test_it_reads_what_we_replace(module, code):
    if code not in source(module):
        fail(module, f"its code has no {code}")


def test_the_supernode_uses_subprocess_for_its_superexec_alone():
    module = "flwr.supernode.start_client_internal"
    used = set(re.findall(r"\bsubprocess\.(\w+)", source(module)))
    if used != {"Popen"}:
        fail(module, f"it uses {sorted(used)} of subprocess, and ours has Popen alone")


def test_a_connection_yields_the_node_and_how_to_receive_first():
    place = "flwr.supernode.start_client_internal:http_request_response"
    connection = look_up(place)
    yields = str(inspect.signature(connection).return_annotation)
    first = re.search(r"tuple\[\s*int,\s*(?:collections\.abc\.)?Callable\[\[\],", yields)
    if not hasattr(connection, "__wrapped__") or first is None:
        fail(place, f"it is no context manager of (node, receive, ...), but {yields}")


def test_the_description_of_an_app_has_what_we_read():
    place = "flwr.supercore.superexec.executor:ExecutionSpec"
    spec = look_up(place)
    names = {field.name for field in fields(spec)} if is_dataclass(spec) else set()
    read = {
        "task_type",
        "runtime_api_address",
        "token",
        "insecure",
        "root_certificates_path",
        "runtime_dependency_install",
        "parent_pid",
    }
    if not read <= names:
        fail(place, f"no {', '.join(sorted(read - names))}")
    look_up("flwr.supercore.constant:TaskType.CLIENT_APP")


def test_the_errors_of_a_superlink_have_their_codes():
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
