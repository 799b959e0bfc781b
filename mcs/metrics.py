"""What an operator asks a running relay: metrics in Prometheus' form, and the whole picture as JSON. On 127.0.0.1 alone, and read only.

    GET /metrics    https://prometheus.io/docs/instrumenting/exposition_formats/
    GET /status     one JSON object: this node, all nodes, all sessions with their trees, drops, and what is wrong, in sentences

Sessions appear under six characters of a hash: a session's number is for its members alone.
"""

import os
import resource
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from mcs.session import Session
from net.pki import expiry_warning
from wire.ids import SessionId

if TYPE_CHECKING:
    from mcs.node import Node

HOST: Final = "127.0.0.1"
MAX_REQUEST: Final = 4096
ANSWER_WITHIN: Final = 5.0
MAX_SESSIONS_SHOWN: Final = 200
FAR: Final = 0.25
"""Seconds of round-trip time from which a link between nodes is worth a sentence."""


def alias(session: SessionId) -> str:
    """What a session is called where people read."""
    return sha256(b"parley alias 1" + session.to_bytes(8, "big")).hexdigest()[:6]


def memory() -> int:
    """Resident bytes of this process."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):  # not Linux
        return 0


async def serve_metrics(node: "Node", port: int, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
    """Answer for ever. Starts with the port. Raises `OSError` if that is taken."""
    listeners = await trio.open_tcp_listeners(port, host=HOST)
    node.metrics_port = listeners[0].socket.getsockname()[1]

    async def answer(stream: trio.SocketStream) -> None:
        with trio.move_on_after(ANSWER_WITHIN):
            async with stream:
                try:
                    await stream.send_all(response(node, await _request(stream)))
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return

    task_status.started(node.metrics_port)
    await trio.serve_listeners(answer, listeners)


async def _request(stream: trio.SocketStream) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data and len(data) < MAX_REQUEST:
        part = await stream.receive_some()
        if not part:
            break
        data += part
    return data


def response(node: "Node", request: bytes) -> bytes:
    """The whole answer to one request, whatever it is."""
    method, _, rest = request.partition(b" ")
    path = rest.partition(b" ")[0]
    if method != b"GET" or path not in (b"/metrics", b"/status"):
        return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    if path == b"/metrics":
        kind, body = b"text/plain; version=0.0.4; charset=utf-8", prometheus(node).encode()
    else:
        kind, body = b"application/json", msgspec.json.encode(status(node))
    return b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (kind, len(body)) + body


def prometheus(node: "Node") -> str:
    relay, overlay = node.relay, node.relay.overlay
    lines: list[str] = []

    def metric(name: str, kind: str, words: str, values: dict[str, float]) -> None:
        lines.append(f"# HELP parley_{name} {words}")
        lines.append(f"# TYPE parley_{name} {kind}")
        lines.extend(f"parley_{name}{labels} {value:g}" for labels, value in values.items())

    def by(label: str, counted: dict[str, int]) -> dict[str, float]:
        return {f'{{{label}="{word}"}}': number for word, number in sorted(counted.items())}

    metric("links", "gauge", "Links of endpoints.", {"": relay.links})
    metric("sessions", "gauge", "Sessions with readers here.", {"": len(overlay.ours)})
    metric("known_sessions", "gauge", "Sessions that are known here.", {"": len(relay.sessions)})
    metric("nodes_linked", "gauge", "Other relays that are linked.", {"": len(relay.nodes)})
    metric("nodes_known", "gauge", "Other relays that are known.", {"": len(overlay.known())})
    metric("manager_linked", "gauge", "1 while a manager is linked.", {"": relay.manager is not None})
    metric("draining", "gauge", "1 while this relay sends everybody elsewhere.", {"": node.draining})
    metric("revoked_certificates", "gauge", "Certificates on the newest list.", {"": len(node.revocations)})
    metric("log_bytes", "gauge", "Packets that are kept for readers.", {"": sum(kept(session) for session in relay.sessions.values())})
    metric("resident_bytes", "gauge", "Memory of this process.", {"": memory()})
    rtts = {f'{{node="{peer}"}}': rtt for peer in sorted(relay.nodes) if (rtt := overlay.rtt(peer)) is not None}
    metric("node_rtt_seconds", "gauge", "Round-trip time to another relay.", rtts)
    metric("packets_taken_total", "counter", "Packets taken, by where they came from.", by("from", relay.passed))
    metric("dropped_total", "counter", "What was dropped, by reason.", by("reason", relay.dropped))
    metric("links_ended_total", "counter", "Links that ended, by reason.", by("reason", dict(node.closed)))
    return "\n".join(lines) + "\n"


def kept(session: Session) -> int:
    """Bytes of packets in a session's log."""
    return sum(ring.size for ring in session.log.rings)


def status(node: "Node") -> dict[str, Any]:
    relay, overlay = node.relay, node.relay.overlay
    reachable = overlay.reachable()
    nodes = {
        name: {
            "region": state.info.region,
            "addresses": [f"{host}:{port}" for host, port in state.info.addresses],
            "links": state.links if name != overlay.me else relay.links,
            "sessions": state.sessions if name != overlay.me else len(overlay.ours),
            "peers": {peer: _class_words(class_) for peer, class_ in state.peers if name in _seen_by(node, peer)},
            "draining": state.draining,
            "left": state.left,
            "rtt_ms": round(1000 * rtt, 1) if (rtt := overlay.rtt(name)) is not None else None,
            "linked": name in relay.nodes or name == overlay.me,
            "reachable": name in reachable,
        }
        for name, state in sorted(overlay.states.items())
    }
    shown = sorted(relay.sessions.values(), key=lambda s: -s.links)[:MAX_SESSIONS_SHOWN]
    return {
        "node": overlay.me,
        "pid": os.getpid(),
        "manager": relay.manager is not None,
        "links": relay.links,
        "reserves": sum(len(session.reserves) for session in relay.sessions.values()),
        "sessions": len(overlay.ours),
        "draining": node.draining,
        "revoked_certificates": len(node.revocations),
        "log_bytes": sum(kept(session) for session in relay.sessions.values()),
        "memory_bytes": memory(),
        "nodes_known": len(overlay.known()),
        "nodes": nodes,
        "trees": [_tree(node, session) for session in shown],
        "sessions_left_out": max(0, len(relay.sessions) - len(shown)),
        "taken": dict(relay.passed),
        "dropped": dict(relay.dropped),
        "links_ended": {str(reason): number for reason, number in node.closed.items()},
        "wrong": wrong(node),
    }


def _tree(node: "Node", session: Session) -> dict[str, Any]:
    tree = node.relay.overlay.tree(session.id)
    return {
        "session": alias(session.id),
        "links_here": session.links,
        "reserves_here": len(session.reserves),
        "people": len(session.everybody()),
        "ended": session.admission.ended,
        "root": tree.root if tree else None,
        "edges": sorted(tree.edges()) if tree else [],
        "readers": sorted(node.relay.overlay.readers(session.id)),
        "kept_bytes": kept(session),
        "waiting_senders": len(session.waiting),
    }


def _seen_by(node: "Node", other: str) -> set[str]:
    """Whom another relay says that it is linked to. What a dead one last said is no news of anybody: two of them would vouch for each other."""
    state = node.relay.overlay.states.get(other) if other in node.relay.overlay.reachable() else None
    return {peer for peer, _ in state.peers} if state and not state.left else set()


def _class_words(class_: int) -> str:
    return f"≤ {8 << class_} ms"


def wrong(node: "Node") -> list[str]:
    """What an operator should look at, in sentences; empty while all is well."""
    relay, overlay = node.relay, node.relay.overlay
    found = []
    if (sentence := expiry_warning(node.identity.certificate, datetime.now(UTC))) is not None:
        found.append(sentence)
    if node.settings.managers and relay.manager is None:
        found.append("No manager is linked: running sessions go on, new ones do not reach this relay.")
    if node.settings.peers and not relay.nodes:
        found.append("No other relay is linked, though peers are set: members on them and here do not hear each other.")
    for name, info in sorted(overlay.known().items()):
        if name not in relay.nodes:
            others = sorted(other for other in overlay.states if name in _seen_by(node, other))
            seen = f"others see it ({', '.join(others)})" if others else "nobody sees it"
            why = f" ({node.why_parted[name]})" if name in node.why_parted else ""
            found.append(f"{name} ({info.addresses[0][0]}:{info.addresses[0][1]}) is not linked from here{why}; {seen}.")
    for name, state in sorted(overlay.states.items()):
        if state.draining and not state.left:
            found.append(f"{name} is being drained.")
    found += [f"The way to {name} takes {rtt * 1000:.0f} ms." for name in sorted(relay.nodes) if (rtt := overlay.rtt(name)) and rtt >= FAR]
    for session in relay.sessions.values():
        if session.waiting:
            found.append(f"In session {alias(session.id)}, members who wait for a reader that is behind: {len(session.waiting)}.")
    if full := relay.dropped["too-many-sessions"]:
        found.append(f"No room for more sessions, {len(relay.sessions)} are known: {full} times since this relay started.")
    lost = relay.dropped["lost"]
    if lost:
        found.append(f"{lost} gaps were given up as lost since this relay started.")
    return found
