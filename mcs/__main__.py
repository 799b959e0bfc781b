"""`parley mcs` (also `python -m mcs`): run a relay."""

import json
import sys
from pathlib import Path

import click
import trio

from mcs.node import Node
from mcs.settings import read_settings
from net.process import configure_logging, exit_with_parent, run, until_told_to_stop


@click.command("mcs", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="TOML file with the settings below.")
@click.option("--identity", type=click.Path(path_type=Path, file_okay=False), help="Directory with node.crt, node.key and ca.crt.")
@click.option("--listen", multiple=True, metavar="HOST:PORT", help="Where to listen (repeatable; port 0: a free one).  [127.0.0.1:8200]")
@click.option("--advertise", multiple=True, metavar="HOST:PORT", help="What others are told to call (repeatable).  [what is listened on]")
@click.option("--manager", "managers", multiple=True, metavar="HOST:PORT", help="A manager's node port (repeatable).")
@click.option("--region", default="", help="Where this relay stands.")
@click.option("--tap", type=click.Path(path_type=Path, file_okay=False), help="Diagnostic: record what this relay receives, after TLS.")
@click.option("--json", "as_json", is_flag=True, help="Say on standard output, in one line of JSON, when it is ready.")
@click.option("--log-json", is_flag=True, help="Log in lines of JSON.")
@click.option("--exit-with-parent", "with_parent", is_flag=True, help="Stop when standard input ends.")
def mcs(
    config: Path | None,
    identity: Path | None,
    listen: tuple[str, ...],
    advertise: tuple[str, ...],
    managers: tuple[str, ...],
    region: str,
    tap: Path | None,
    as_json: bool,
    log_json: bool,
    with_parent: bool,
) -> None:
    """Run a relay: it forwards sealed packets between the members of sessions, and to other relays. It cannot open them."""
    configure_logging(log_json)
    flags = {"identity": identity, "listen": listen, "advertise": advertise, "managers": managers, "region": region, "tap": tap}

    async def main() -> None:
        node = Node(read_settings(config, flags))
        async with trio.open_nursery() as nursery:
            addresses = await nursery.start(node.run)
            if as_json:
                ready = {"event": "ready", "kind": "mcs", "node": node.me.node, "addresses": addresses, "port": addresses[0][1]}
                click.echo(json.dumps(ready))
                sys.stdout.flush()
            async with trio.open_nursery() as waiting:
                if with_parent:
                    waiting.start_soon(exit_with_parent, waiting.cancel_scope)
                await until_told_to_stop()
                waiting.cancel_scope.cancel()
            node.stop()

    run(main)


if __name__ == "__main__":
    mcs(prog_name="parley mcs")
