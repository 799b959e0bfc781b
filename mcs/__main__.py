"""`parley mcs` (also `python -m mcs`): run a relay."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import click
import trio
from rich.console import Console

from mcs import status
from mcs.node import Node
from mcs.settings import read_settings
from net.process import configure_logging, exit_with_parent, run, until_told_to_stop
from wire.errors import ParleyError


@click.group("mcs", invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="TOML file with the settings below.")
@click.option("--identity", type=click.Path(path_type=Path, file_okay=False), help="Directory with node.crt, node.key and ca.crt.")
@click.option("--listen", multiple=True, metavar="HOST:PORT", help="Where to listen (repeatable; port 0: a free one).  [127.0.0.1:8200]")
@click.option("--advertise", multiple=True, metavar="HOST:PORT", help="What others are told to call (repeatable).  [what is listened on]")
@click.option("--manager", "managers", multiple=True, metavar="HOST:PORT", help="A manager's node port (repeatable).")
@click.option("--peer", "peers", multiple=True, metavar="HOST:PORT", help="Another relay: one is enough to find all (repeatable).")
@click.option("--metrics-port", type=click.IntRange(0, 0xFFFF), help="Port on 127.0.0.1 for metrics, `status`, `overlay` and `drain`.")
@click.option("--region", default="", help="Where this relay stands.")
@click.option("--tap", type=click.Path(path_type=Path, file_okay=False), help="Diagnostic: record what this relay receives, after TLS.")
@click.option("--json", "as_json", is_flag=True, help="Say on standard output, in one line of JSON, when it is ready.")
@click.option("--log-json", is_flag=True, help="Log in lines of JSON.")
@click.option("--exit-with-parent", "with_parent", is_flag=True, help="Stop when standard input ends.")
@click.pass_context
def mcs(
    ctx: click.Context,
    config: Path | None,
    identity: Path | None,
    listen: tuple[str, ...],
    advertise: tuple[str, ...],
    managers: tuple[str, ...],
    peers: tuple[str, ...],
    metrics_port: int | None,
    region: str,
    tap: Path | None,
    as_json: bool,
    log_json: bool,
    with_parent: bool,
) -> None:
    """Run a relay: it forwards sealed packets between the members of sessions, and to other relays. It cannot open them."""
    if ctx.invoked_subcommand:
        return
    configure_logging(log_json)
    flags: dict[str, object] = {"identity": identity, "listen": listen, "advertise": advertise, "managers": managers, "peers": peers}
    flags |= {"metrics_port": metrics_port, "region": region, "tap": tap}

    async def main() -> None:
        node = Node(read_settings(config, flags))
        async with trio.open_nursery() as nursery:
            addresses = await nursery.start(node.run)
            if as_json:
                ready = {"event": "ready", "kind": "mcs", "node": node.me.node, "addresses": addresses, "port": addresses[0][1]}
                if node.metrics_port:
                    ready["metrics_port"] = node.metrics_port
                click.echo(json.dumps(ready))
                sys.stdout.flush()
            async with trio.open_nursery() as waiting:
                if with_parent:
                    waiting.start_soon(exit_with_parent, waiting.cancel_scope)
                waiting.start_soon(_when_stopped, node, waiting.cancel_scope)
                await until_told_to_stop()
                waiting.cancel_scope.cancel()
            node.stop()

    run(main)


async def _when_stopped(node: Node, scope: trio.CancelScope) -> None:
    """It stops by itself when it has been drained."""
    await node.stopped.wait()
    scope.cancel()


_port = click.option("--metrics-port", default=status.PORT, show_default=True, help="The relay's port on this machine.")
_as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")


def _look(port: int, show: Callable[[status.Picture, Console], None], *, as_json: bool) -> None:
    try:
        picture = status.ask(port)
    except ParleyError as error:
        click.echo(f"parley: {error}", err=True)
        sys.exit(1)
    if as_json:
        click.echo(json.dumps(picture))
    else:
        show(picture, Console())


@mcs.command("status")
@_port
@_as_json
def status_command(metrics_port: int, as_json: bool) -> None:
    """Show how one relay of this machine is: links, sessions, drops by reason, and what is wrong."""
    _look(metrics_port, status.show_status, as_json=as_json)


@mcs.command("overlay")
@_port
@_as_json
def overlay_command(metrics_port: int, as_json: bool) -> None:
    """Show all relays and the trees of all sessions, as one relay of this machine sees them."""
    _look(metrics_port, status.show_overlay, as_json=as_json)


@mcs.command("drain")
@_port
@click.option("--no-wait", is_flag=True, help="Return at once, and not when it has stopped.")
def drain_command(metrics_port: int, no_wait: bool) -> None:
    """Send every session of one relay of this machine elsewhere, without a lost packet; then it stops."""
    try:
        status.drain(metrics_port, wait=not no_wait)
    except ParleyError as error:
        click.echo(f"parley: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    mcs(prog_name="parley mcs")
