"""`parley mcs status`, `parley overlay`, `parley mcs drain`: what an operator asks of running relays on this machine.

They read `/status` of `mcs.metrics`. Draining is a signal (SIGUSR2), so that only who may stop the process may drain it.
"""

import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from wire.errors import ParleyError

PORT: Final = 8209
ASK_WITHIN: Final = 5.0
LOOK_EVERY: Final = 0.5
NEAR: Final = "≤ 8 ms"
"""How `/status` calls a link that is not far."""
Picture = Mapping[str, Any]


class NoAnswer(ParleyError):
    name = "relay-silent"
    sentence = "No relay answers there; start it with --metrics-port, and name the same port here."


def ask(port: int) -> Picture:
    """A relay's picture of itself and of the overlay. Raises `NoAnswer`."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=ASK_WITHIN) as answer:
            found = json.load(answer)
    except TimeoutError:
        raise NoAnswer(
            f"Port {port} on this machine is open, but nobody answers within {ASK_WITHIN:.0f} s: the relay hangs or is stopped."
        ) from None
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise NoAnswer(f"Port {port} on this machine: {NoAnswer.sentence} ({error})") from None
    if not isinstance(found, dict) or "node" not in found:
        raise NoAnswer(f"What answers on port {port} is no relay.")
    return found


def show_status(picture: Picture, console: Console) -> None:
    """One relay: how busy it is, what it dropped, what is wrong."""
    _say_wrong(picture, console)
    table = _table()
    table.add_row("relay", picture["node"] + (", draining" if picture["draining"] else ""))
    table.add_row("manager", "linked" if picture["manager"] else "not linked")
    others = [name for name, node in picture["nodes"].items() if node["linked"] and name != picture["node"]]
    table.add_row("relays linked", f"{len(others)} of {picture['nodes_known']}")
    table.add_row("members' links", _links(picture["links"], picture["reserves"]))
    table.add_row("sessions", str(picture["sessions"]))
    table.add_row("packets kept", _size(picture["log_bytes"]))
    table.add_row("memory", _size(picture["memory_bytes"]))
    for title, counted in (("packets from", picture["taken"]), ("dropped", picture["dropped"]), ("links ended", picture["links_ended"])):
        table.add_row(title, _counted(counted))
    console.print(table, highlight=False)


def show_overlay(picture: Picture, console: Console) -> None:
    """All relays and all sessions' trees, as one of them sees them."""
    _say_wrong(picture, console)
    me, nodes = picture["node"], picture["nodes"]
    live = {name for name, node in nodes.items() if node["reachable"]}
    table = _table("relay", "region", "state", "links:", "sessions:", "round trip:", "linked to")
    for name, node in nodes.items():
        there = name in live  # what it last said is no news of it
        rtt = "here" if name == me else "–" if node["rtt_ms"] is None else f"{node['rtt_ms']} ms" if node["rtt_ms"] else "< 0.1 ms"
        figures = (str(node["links"]), str(node["sessions"])) if there else ("–", "–")
        table.add_row(name, node["region"] or "–", _state(node), *figures, rtt, _peers(node["peers"], live - {name}) if there else "–")
    console.print(f"[bold]relays, as {me} sees them[/]", table, sep="\n", highlight=False)
    trees = _table("session", "people:", "links here:", "kept here:", "way of its packets")
    for tree in picture["trees"]:
        in_tree = me in tree["readers"] or any(me in edge for edge in tree["edges"])
        edges = ", ".join(f"{a}–{b}" for a, b in tree["edges"]) or (f"{tree['root']} alone" if tree["root"] else "nobody is there")
        people = str(tree["people"]) if in_tree else "–"  # only who carries a session's packets knows
        trees.add_row(tree["session"], people, _links(tree["links_here"], tree["reserves_here"]), _size(tree["kept_bytes"]), edges)
    if picture["trees"]:
        console.print("[bold]sessions[/]", trees, sep="\n", highlight=False)
    else:
        console.print("no sessions")
    if picture["sessions_left_out"]:
        console.print(f"and {picture['sessions_left_out']} more sessions", highlight=False)
    console.print(f"dropped here: {_counted(picture['dropped'])}", highlight=False, soft_wrap=True)


def _table(*titles: str) -> Table:
    """A table without lines. A title that ends in a colon: figures, so its column is set to the right."""
    table = Table(box=None, padding=(0, 3, 0, 0), show_header=bool(titles), pad_edge=False)
    for title in titles:
        figures = title.endswith(":")
        table.add_column(title.removesuffix(":"), justify="right" if figures else "left", no_wrap=figures, overflow="fold", header_style="dim")
    return table


def _state(node: Picture) -> str:
    if node["left"]:
        return "stopped"
    if not node["reachable"]:
        return "[red]gone[/]"
    if not node["linked"]:
        return "[red]not linked here[/]"
    return "[yellow]draining[/]" if node["draining"] else "up"


def _peers(peers: Mapping[str, str], others: set[str]) -> str:
    """Whom a relay is linked to, of all others that are there: what is not as it should be is named, and what is far."""
    missing = sorted(others - peers.keys())
    far = [f"{peer} {words}" for peer, words in peers.items() if peer in others and words != NEAR]
    if missing and len(missing) == len(others):
        return "[red]nobody[/]"
    said = [f"all but [red]{', '.join(missing)}[/]" if missing else "all others" if others else "–", *far]
    return "; ".join(said)


def _links(number: int, reserves: int) -> str:
    return f"{number}, {reserves} in reserve" if reserves else str(number)


def _counted(counted: Mapping[str, int]) -> str:
    """The most frequent first."""
    return ", ".join(f"{word} {number:,}" for word, number in sorted(counted.items(), key=lambda item: -item[1])) or "nothing"


def drain(port: int, *, wait: bool) -> None:
    """Tell a relay to drain; with `wait`, until it has stopped. Raises `NoAnswer`, or `click.ClickException` if this user may not."""
    picture = ask(port)
    try:
        os.kill(picture["pid"], signal.SIGUSR2)
    except PermissionError:
        raise click.ClickException("Only the relay's own user, or root, may drain it.") from None
    click.echo(f"{picture['node']} drains: links {picture['links']}, sessions {picture['sessions']}; they go elsewhere.")
    while wait:
        time.sleep(LOOK_EVERY)
        try:
            now = ask(port)
        except NoAnswer:
            click.echo(f"{picture['node']} has stopped.")
            return
        if len(now["nodes"]) == 1:
            click.echo("It waits: no other relay is linked, so there is nowhere to go.")


def _say_wrong(picture: Picture, console: Console) -> None:
    for sentence in picture["wrong"]:
        console.print(f"[red]![/] {sentence}", highlight=False, soft_wrap=True)
    if not picture["wrong"]:
        console.print("[green]✓[/] nothing is wrong", highlight=False)


def _size(number: int) -> str:
    return f"{number / (1 << 20):.1f} MiB" if number >= 1 << 20 else f"{number / 1024:.0f} KiB"
