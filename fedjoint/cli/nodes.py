"""``fedjoint nodes``, ``register`` and ``revoke``: who may take part in a server's runs."""

from __future__ import annotations

from typing import Annotated

import typer

from fedjoint._util.wording import plain
from fedjoint.cli.common import console, say
from fedjoint.cli.machines import Keys
from fedjoint.deploy.registration import register, revoke
from fedjoint.deploy.server import control, endings
from fedjoint.errors import UserError
from fedjoint.experiments.tables import table

Server = Annotated[str, typer.Option(help="HOST:PORT of the server.")]

_SAID = {
    "registered": "never came",
    "online": "here",
    "offline": "away",
    "unregistered": "revoked",
}


def nodes_command(server: Server = "127.0.0.1:8000", keys: Keys = None) -> None:
    """List the nodes that a server on this machine knows."""
    with control(server, keys) as reached:
        found = reached.nodes()
    rows = [
        [plain(n.name) or "-", str(n.number), _SAID.get(n.state, n.state), plain(n.since) or "-"]
        for n in sorted(found, key=lambda n: (n.name, n.number))
    ]
    columns = ["node", "number", "state", "since"]
    console.print(table("nodes", columns, rows, left=4))
    for text in endings(keys) if keys else ():
        say(text)


def register_command(keys: Keys, server: Server = "127.0.0.1:8000") -> None:
    """Have a server on this machine take the keys in a folder now.

    The server looks into its own folder of keys every two seconds anyway.
    """
    if keys is None:
        raise UserError("--keys: name the folder with nodes/NAME/node.pub")
    with control(server, keys) as reached:
        new = register(reached, keys)
    say(f"registered: {', '.join(new)}" if new else "no key is new")


def revoke_command(
    name: Annotated[str, typer.Argument(help="Of the node; its number, where it has none.")],
    server: Server = "127.0.0.1:8000",
    keys: Keys = None,
) -> None:
    """Shut a node out, for good: its key is never taken again, and is removed from the folder."""
    with control(server, keys) as reached:
        revoke(reached, name, keys)
    say(f"revoked {name}; if it is to come back, give it another key")
