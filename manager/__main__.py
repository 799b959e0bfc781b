"""`python -m manager` = `parley manager`: the command line, an edge alone."""

import json
import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import click
import structlog
import trio

from manager.commands import COMMANDS, config_option, store_option
from manager.seal import Seal
from manager.settings import Settings, load_settings, local_site
from manager.store import Store
from net.listener import addresses, listen, serve_tls
from net.pki import Identity
from net.process import configure_logging, exit_with_parent, run, until_told_to_stop, warn_of_expiry
from net.tap import Tap
from net.tls import FRAMES, HTTP, server_context, web_context

log = structlog.get_logger()


async def serve(settings: Settings, *, parent: bool = False, ready: Callable[[int, int, str], None] = lambda api, node, site: None) -> None:
    """Run a manager until it is told to stop. `ready(api_port, node_port, site)`: it serves from now on. Raises a `ParleyError` at start."""
    # loaded here: what only looks at the store, or shows its help, starts in half the time without the API and the site
    from manager.api import create_app
    from manager.house import furnish
    from manager.nodes import Nodes
    from manager.site.app import create_site
    from manager.site.visit import Site
    from net.http import serve_asgi

    identity = Identity.in_directory(settings.identity)
    tap = None if settings.tap is None else Tap(settings.tap)
    node_context = server_context(identity, ask_peer=True, alpn=[FRAMES])
    api_context = server_context(identity, ask_peer=False, alpn=[HTTP])
    site_context = web_context(settings.web_certificate, settings.web_key) if settings.web_certificate else None
    with ExitStack() as stack:
        store = Store(settings.store, claim=True)
        stack.callback(store.close)
        callers = await _listen(stack, settings.api_host, settings.api_port)
        relays = await _listen(stack, settings.node_host, settings.node_port)
        visitors = await _listen(stack, settings.web_host, settings.web_port)
        where = settings.site or local_site(settings, addresses(visitors)[0][1])
        nodes = Nodes(identity.name, store, time.time, Path(settings.identity))
        house = furnish(store, nodes, settings, time.time, where, Seal.in_directory(Path(settings.identity)))
        api = create_app(house)
        site = create_site(Site(house, time.time), api)
        async with trio.open_nursery() as nursery:
            await nursery.start(nodes.run)
            nursery.start_soon(house.run)
            nursery.start_soon(warn_of_expiry, identity.certificate)
            node_addresses = await nursery.start(partial(serve_tls, relays, node_context, nodes.serve, tap=tap))
            api_addresses = await nursery.start(partial(serve_asgi, api, callers, api_context, tap=tap))
            await nursery.start(partial(serve_asgi, site, visitors, site_context, tap=tap))
            if parent:
                nursery.start_soon(exit_with_parent, nursery.cancel_scope)
            await nursery.start(_stop_when_told, nursery.cancel_scope)
            log.info("manager-ready", api=api_addresses, nodes=node_addresses, site=where)
            ready(api_addresses[0][1], node_addresses[0][1], where)


async def _listen(stack: ExitStack, host: str, port: int) -> list[trio.SocketListener]:
    """Listening sockets that are closed with the stack, whoever had them meanwhile."""
    listeners = await listen(host or None, port)
    for listener in listeners:
        stack.callback(listener.socket.close)
    return listeners


async def _stop_when_told(scope: trio.CancelScope, task_status: trio.TaskStatus[None]) -> None:
    await until_told_to_stop(task_status)
    log.info("manager-stopping")
    scope.cancel()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Accounts, meetings and tickets: the server that organizers and guests ask first."""


@main.command("serve")
@config_option
@store_option
@click.option("--identity", help="Directory that `parley pki enrol` wrote for this manager.")
@click.option("--api-host", help="Address of the HTTP API; an empty one is every address.")
@click.option("--api-port", type=int, help="0 is a free port.")
@click.option("--node-host", help="Address where relays call; an empty one is every address.")
@click.option("--node-port", type=int, help="0 is a free port.")
@click.option("--web-host", help="Address of the site; an empty one is every address, for which it needs a certificate.")
@click.option("--web-port", type=int, help="0 is a free port.")
@click.option("--tap", help="Diagnostic: a directory for everything received, after TLS. It will hold tokens.")
@click.option("--json", "as_json", is_flag=True, help="Say on stdout when the manager is ready, as one line of JSON.")
@click.option("--log-json", is_flag=True, help="Log lines of JSON.")
@click.option("--exit-with-parent", "parent", is_flag=True, help="Stop when standard input ends.")
def serve_command(config: Path | None, as_json: bool, log_json: bool, parent: bool, **flags: Any) -> None:
    """Serve the API and the relays until SIGINT or SIGTERM."""
    configure_logging(log_json, logging.INFO)

    def ready(api_port: int, node_port: int, site: str) -> None:
        if as_json:
            click.echo(json.dumps({"event": "ready", "api_port": api_port, "node_port": node_port, "site": site}))

    async def begin() -> None:
        await serve(load_settings(config, **flags), parent=parent, ready=ready)

    run(begin)


for command in COMMANDS:
    main.add_command(command)


if __name__ == "__main__":
    main(prog_name="parley manager")
