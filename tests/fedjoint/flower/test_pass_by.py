"""Which of a SuperLink's layers see which requests."""

import asyncio
from types import SimpleNamespace

import pytest
from flwr.superlink.main import create_app
from starlette.middleware import Middleware

from fedjoint.flower.pass_by import pass_by


def layer(module, seen):
    class Layer:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            seen.append(module.rpartition(".")[2] or module)
            await self.app(scope, receive, send)

    Layer.__module__ = module
    return Middleware(Layer)


CONTROL = "flwr.superlink.routers.control.middlewares"
AUTH = "flwr.superlink.routers.fleet.node_auth"
OTHER = "flwr.supercore.protobuf.translation"


@pytest.mark.parametrize(
    ("path", "saw"),
    [
        ("/v1/control/start-run", ["middlewares", "translation"]),
        ("/v1/fleet/pull-messages", ["translation", "node_auth"]),
        ("/v1/runtime/pull-messages", ["translation"]),
        ("/v1/fleetx/pull", ["middlewares", "translation", "node_auth"]),
        ("/health", ["middlewares", "translation", "node_auth"]),
        ("/V1/FLEET/pull-messages", ["middlewares", "translation", "node_auth"]),
    ],
)
def test_a_request_passes_by_what_is_about_others(path, saw):
    seen = []
    app = SimpleNamespace(user_middleware=[layer(m, seen) for m in (CONTROL, OTHER, AUTH)])
    pass_by(app)

    async def end(scope, receive, send):
        seen.append("end")

    call = end
    for each in reversed(app.user_middleware):
        call = each.cls(call, *each.args, **each.kwargs)
    asyncio.run(call({"type": "http", "path": path}, None, None))
    assert seen == [*saw, "end"]


def test_flower_has_the_layers_that_we_know():
    app = create_app()
    before = [each.cls for each in app.user_middleware]
    pass_by(app)
    changed = [b for b, each in zip(before, app.user_middleware, strict=True) if each.cls is not b]
    names = sorted(each.__name__ for each in changed)
    assert names == [
        "ControlAuthenticationMiddleware",
        "ControlEventLogMiddleware",
        "ControlLicenseMiddleware",
        "ControlSensitiveResponseMiddleware",
        "FleetEventLogMiddleware",
        "NodeAuthMiddleware",
    ]
