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
Picture = Mapping[str, Any]


class NoAnswer(ParleyError):
    name = "relay-silent"
    sentence = "No relay answers there; start it with --metrics-port, and name the same port here."


def ask(port: int) -> Picture:
    """A relay's picture of itself and of the overlay. Raises `NoAnswer`."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=ASK_WITHIN) as answer:
            found = json.load(answer)
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise NoAnswer(f"Port {port} on this machine: {NoAnswer.sentence} ({error})") from None
    if not isinstance(found, dict) or "node" not in found:
        raise NoAnswer(f"What answers on port {port} is no relay.")
    return found


def show_status(picture: Picture, console: Console) -> None:
    """One relay: how busy it is, what it dropped, what is wrong."""
    _say_wrong(picture, console)
    manager = "linked" if picture["manager"] else "not linked"
    console.print(
        f"[bold]{picture['node']}[/]  {picture['links']} links, {picture['sessions']} sessions, manager {manager}, "
        f"{_size(picture['log_bytes'])} of packets kept, {_size(picture['memory_bytes'])} of memory"
        + (", draining" if picture["draining"] else ""),
        highlight=False,
    )
    for title, counted in (("taken from", picture["taken"]), ("dropped", picture["dropped"]), ("links ended", picture["links_ended"])):
        words = ", ".join(f"{word} {number}" for word, number in sorted(counted.items(), key=lambda item: -item[1])) or "nothing"
        console.print(f"  {title}: {words}", highlight=False)


def show_overlay(picture: Picture, console: Console) -> None:
    """All relays and all sessions' trees, as one of them sees them."""
    _say_wrong(picture, console)
    table = Table("relay", "region", "links", "sessions", "round trip", "linked to", "state", title=f"relays, as {picture['node']} sees them")
    for name, node in picture["nodes"].items():
        state = "left" if node["left"] else "draining" if node["draining"] else "up" if node["linked"] else "[red]not linked[/]"
        rtt = "–" if node["rtt_ms"] is None else f"{node['rtt_ms']} ms" if node["rtt_ms"] else "< 0.1 ms"
        peers = ", ".join(f"{peer} ({words})" for peer, words in node["peers"].items()) or "[red]nobody[/]"
        table.add_row(name, node["region"] or "–", str(node["links"]), str(node["sessions"]), rtt, peers, state)
    console.print(table)
    trees = Table("session", "people", "links here", "kept", "tree", title="sessions")
    for tree in picture["trees"]:
        edges = ", ".join(f"{a}–{b}" for a, b in tree["edges"]) or tree["root"] or "nobody"
        trees.add_row(tree["session"], str(tree["people"]), str(tree["links_here"]), _size(tree["kept_bytes"]), edges)
    console.print(trees)
    if picture["sessions_left_out"]:
        console.print(f"and {picture['sessions_left_out']} more sessions", highlight=False)
    console.print(
        "dropped here: " + (", ".join(f"{word} {number}" for word, number in picture["dropped"].items()) or "nothing"), highlight=False
    )


def drain(port: int, *, wait: bool) -> None:
    """Tell a relay to drain; with `wait`, until it has stopped. Raises `NoAnswer`, or `click.ClickException` if this user may not."""
    picture = ask(port)
    try:
        os.kill(picture["pid"], signal.SIGUSR2)
    except PermissionError:
        raise click.ClickException("Only the relay's own user, or root, may drain it.") from None
    click.echo(f"{picture['node']} drains: {picture['links']} links in {picture['sessions']} sessions go elsewhere.")
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
        console.print(f"[red]![/] {sentence}", highlight=False)
    if not picture["wrong"]:
        console.print("[green]✓[/] nothing is wrong", highlight=False)


def _size(number: int) -> str:
    return f"{number / (1 << 20):.1f} MiB" if number >= 1 << 20 else f"{number / 1024:.0f} KiB"
