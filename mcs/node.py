"""A running relay: listeners, links, dialling, and the clock that drives them.

main nursery ── accept ── a nursery of links (they outlive the accepting when the node stops)
             ├─ one task per node to call          reconnecting for ever, with back-off
             ├─ the link to the manager            the same; running sessions do not need it
             ├─ peers of the settings              only while no other node is linked
             ├─ flush: 50 ms after something changed, until nothing has
             └─ tick: every second; status: every minute and at SIGUSR1
"""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog
import trio

from mcs.limits import BACK_OFF, COALESCE, DIAL_WITHIN, LOAD_EVERY, MAX_PENDING, STATUS_EVERY, TICK
from mcs.links import Caller, Dialled, ManagerLink, NodeLink
from mcs.metrics import serve_metrics
from mcs.relay import Relay
from mcs.settings import Address, Settings
from net.dial import Unreachable, dial, knock
from net.listener import listen, serve_tls
from net.pki import Identity, Kind, PkiUnreadable
from net.process import warn_of_expiry
from net.pump import Pump
from net.pumped import Group, Pumped
from net.revocation import Revocations, serial_of
from net.stream import TlsStream
from net.tap import Tap
from net.tls import TlsRefused, client_context, server_context
from wire.control import Load, Membership, NodeInfo
from wire.errors import CloseReason, LinkClosed
from wire.link import Side

log = structlog.get_logger()
STOP_WITHIN: Final = 2.0
LAST_WORDS: Final = 0.05
"""Seconds for what this node tells the others before its links end."""
PEER_EVERY: Final = 2.0
REVOKED_AGAIN: Final = 15.0
"""Seconds until a server is called again where this one's certificate, or its own, is refused as revoked. It would fill all logs."""
DRAIN_AT_ONCE: Final = 50
DRAIN_EVERY: Final = 0.1
DRAIN_WITHIN: Final = 30.0
_ANY: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # what "every address" is told to others, for want of better


class Node:
    """One relay. `run` serves until cancelled or `stop`ped."""

    def __init__(self, settings: Settings) -> None:
        """Raises `PkiUnreadable`."""
        self.settings = settings
        self.identity = Identity.in_directory(settings.identity)
        self.me = self.identity.name
        self.relay = Relay(self.me.node, trio.current_time, Group, self._changed, self._call_nodes, boot=time.time_ns())
        self.pump = Pump(self.relay.fan_out)
        self.addresses: list[Address] = []  # really listened on
        self.metrics_port = 0  # really listened on
        self.closed: Counter[str] = Counter()  # links, by why they ended
        self.why_parted: dict[str, str] = {}  # of other nodes: why the last link to it ended, or a call was in vain
        self._tap = Tap(settings.tap) if settings.tap else None
        self._client = client_context(self.identity.ca_path, self.identity)
        self._certificates: dict[Pumped, int] = {}  # of other servers: their serial numbers
        self.revocations = Revocations(settings.identity, self._revoked)
        self.relay.crl = self.revocations.der
        self.relay.on_crl = self._learn_crl
        self._pending = 0  # accepted links that are nobody's yet
        self._dirty = trio.Event()
        self._dialling: dict[str, trio.CancelScope] = {}
        self._nursery: trio.Nursery | None = None
        self._members_moved = trio.Event()  # set and replaced with every membership
        self.stopped = trio.Event()  # it is to stop, or has

    def stop(self) -> None:
        """End in order: links are told."""
        self.stopped.set()

    async def run(self, task_status: trio.TaskStatus[list[Address]] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve. Starts with the addresses that are listened on. Raises `PortInUse` and the like."""
        context = server_context(self.identity, ask_peer=True)
        listeners = [one for host, port in self.settings.listen for one in await listen(host or None, port)]
        async with trio.open_nursery() as links, trio.open_nursery() as nursery:
            self._nursery = nursery
            links.start_soon(self.pump.run)
            addresses: list[Address] = await nursery.start(
                lambda task_status: serve_tls(listeners, context, self._accepted, tap=self._tap, handler_nursery=links, task_status=task_status)
            )
            self.addresses = addresses
            self.relay.overlay.set_info(self.info())
            nursery.start_soon(warn_of_expiry, self.identity.certificate)
            nursery.start_soon(self._flush)
            nursery.start_soon(self._tick)
            nursery.start_soon(self._on_signals)
            nursery.start_soon(self.revocations.run)
            for address in self.settings.peers:
                nursery.start_soon(self._keep_peer, address)
            if self.settings.metrics_port is not None:
                await nursery.start(serve_metrics, self, self.settings.metrics_port)
            if self.settings.managers:
                nursery.start_soon(self._keep_manager)
            task_status.started(addresses)
            await self.stopped.wait()
            self.relay.stopping()
            await trio.sleep(LAST_WORDS)
            nursery.cancel_scope.cancel()
            self.pump.stop(CloseReason.SHUTDOWN)
            links.cancel_scope.deadline = trio.current_time() + STOP_WITHIN

    def info(self) -> NodeInfo:
        """This node, as it is told to others."""
        addresses = self.settings.advertise or tuple((_ANY.get(host, host), port) for host, port in self.addresses)
        return NodeInfo(self.me.node, list(addresses[:16]), self.settings.region)

    # --- links ---

    async def _accepted(self, stream: TlsStream) -> None:
        caller = Caller(self.relay, self.me, stream.peer, self._one_known)
        self._pending += 1
        caller.connection = connection = self.pump.adopt(stream, Side.CALLEE, caller, lambda one, why: self._ended(one, why, caller))
        self._certify(connection, serial_of(stream))
        if self._pending > MAX_PENDING:
            connection.close(CloseReason.BUSY)

    def _one_known(self) -> None:
        self._pending -= 1

    def _certify(self, connection: Pumped, serial: int | None) -> None:
        """What TLS does not judge: whether the other server's certificate was revoked."""
        if serial is not None:
            self._certificates[connection] = serial
            if self.revocations.revoked(serial):
                connection.close(CloseReason.CERTIFICATE_REVOKED)

    def _learn_crl(self, der: bytes) -> None:
        try:
            if self.revocations.learn_untrusted(der):
                self.revocations.keep()
        except PkiUnreadable as error:
            log.warning("revocations-unreadable", why=str(error))

    def _revoked(self) -> None:
        """A newer list: links of who stands on it are cut, and everybody learns of it."""
        for connection, serial in list(self._certificates.items()):
            if self.revocations.revoked(serial):
                connection.close(CloseReason.CERTIFICATE_REVOKED)
        self.relay.revoked(self.revocations.der)

    def _ended(self, one: Pumped, why: LinkClosed, handler: Caller | Dialled) -> None:
        self._certificates.pop(one, None)
        self.closed[why.reason] += 1
        if handler.node:
            self.why_parted[handler.node] = str(why.reason)
        host, port = one.remote_address
        log.info("link-closed", who=handler.label, reason=str(why.reason), by="them" if why.remote else "us", at=f"{host}:{port}")

    # --- other servers ---

    def _membership(self, membership: Membership) -> None:
        if not self.relay.overlay.learn(membership):
            return
        self._members_moved.set()
        self._members_moved = trio.Event()
        log.info("membership", epoch=membership.epoch, nodes=sorted(self.relay.overlay.members))
        self._call_nodes()

    def _call_nodes(self) -> None:
        """One task for each node that this one is to call."""
        known = self.relay.overlay.known()
        for node in list(self._dialling):
            if node not in known:
                self._dialling.pop(node).cancel()
        for info in self.relay.overlay.to_dial():
            if info.node not in self._dialling and self._nursery is not None:
                self._dialling[info.node] = scope = trio.CancelScope()
                self._nursery.start_soon(self._keep_node, info.node, scope)

    async def _keep_node(self, node: str, scope: trio.CancelScope) -> None:
        def addresses() -> list[Address]:
            info = self.relay.overlay.known().get(node)
            return list(info.addresses) if info else []

        with scope:
            await self._keep(addresses, "mcs", node, partial(self._node_link, node))

    def _node_link(self, node: str, connection: Pumped) -> NodeLink:
        return NodeLink(self.relay, connection, node)

    async def _keep_peer(self, address: Address) -> None:
        """One node of the cluster is enough to find the others. It is called while no node is linked."""
        while True:
            if not self.relay.nodes:
                try:
                    stream = await dial([address], self._client, server_kind="mcs", cluster=self.me.cluster, timeout=DIAL_WITHIN, tap=self._tap)
                except (Unreachable, TlsRefused) as error:
                    log.warning("dial-failed", server=f"{address[0]}:{address[1]}", reason=str(error))
                else:
                    node = stream.peer.node if stream.peer else ""
                    if node in self.relay.nodes or node == self.me.node:
                        await stream.aclose()
                    else:
                        await self._call(stream, Dialled(self.info(), node, partial(self._node_link, node)))
            await trio.sleep(PEER_EVERY * random.uniform(0.5, 1.0))  # noqa: S311  # spreads callers, decides nothing

    async def _keep_manager(self) -> None:
        def make(connection: Pumped) -> ManagerLink:
            self.relay.overlay.forget_epoch()
            return ManagerLink(self.relay, connection, self._membership)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._report_load)
            await self._keep(lambda: list(self.settings.managers), "manager", None, make)

    async def _keep(
        self,
        addresses: Callable[[], list[Address]],
        kind: Kind,
        node: str | None,
        make_role: Callable[[Pumped], NodeLink | ManagerLink],
    ) -> None:
        """Call a server for ever. The back-off starts anew with every link that came up.

        It knocks before it calls, so a partition that heals is over at once.
        """
        shortest, longest = BACK_OFF
        pause, said = shortest, ""
        while True:
            began = trio.current_time()
            try:
                if not await knock(addresses(), within=DIAL_WITHIN):
                    raise Unreachable
                stream = await dial(addresses(), self._client, server_kind=kind, cluster=self.me.cluster, timeout=DIAL_WITHIN, tap=self._tap)
            except (Unreachable, TlsRefused) as error:
                if node is not None:
                    self.why_parted[node] = str(error).partition(":")[0]
                if said != str(error):  # once, not with every attempt
                    said = str(error)
                    log.warning("dial-failed", server=node or kind, reason=said)
            else:
                dialled = Dialled(self.info(), node, make_role)
                if node is not None and (stream.peer is None or stream.peer.node != node):
                    log.warning("dial-failed", server=node, reason="another node answers at its address")
                    await stream.aclose()
                else:
                    why = await self._call(stream, dialled)
                    if why.reason is CloseReason.CERTIFICATE_REVOKED:
                        pause = REVOKED_AGAIN
                if dialled.welcomed:
                    pause, said = shortest, ""
            with trio.move_on_after(pause * random.uniform(0.5, 1.0)):  # noqa: S311  # spreads callers, decides nothing
                await self._members_moved.wait()  # it may have a new address
                pause = shortest
                continue
            # whoever refuses is called less and less often; where nothing answers, the call itself has taken its time
            pause = min(longest, pause * 2) if trio.current_time() - began < longest else shortest

    async def _call(self, stream: TlsStream, dialled: Dialled) -> LinkClosed:
        """Until the link has ended; why."""
        ended = trio.Event()
        found: list[LinkClosed] = []

        def on_end(one: Pumped, why: LinkClosed) -> None:
            self._ended(one, why, dialled)
            found.append(why)
            ended.set()

        dialled.connection = connection = self.pump.adopt(stream, Side.CALLER, dialled, on_end)
        dialled.greet()
        self._certify(connection, serial_of(stream))
        try:
            await ended.wait()
        finally:
            connection.close(CloseReason.SHUTDOWN)
        return found[0]

    async def _report_load(self) -> None:
        while True:
            if self.relay.manager is not None:
                self.relay.manager.send(Load(self.relay.links, len(self.relay.overlay.ours), self.draining))
            self.relay.say_load()
            await trio.sleep(LOAD_EVERY)

    # --- time ---

    def _changed(self) -> None:
        self._dirty.set()

    async def _flush(self) -> None:
        while True:
            await self._dirty.wait()
            await trio.sleep(COALESCE)
            self._dirty = trio.Event()
            if self.relay.flush():
                self._dirty.set()

    async def _tick(self) -> None:
        said = trio.current_time()
        while True:
            await trio.sleep(TICK)
            self.relay.tick()
            for link in list(self.relay.nodes.values()):
                link.measure()
            if trio.current_time() - said >= STATUS_EVERY:
                said = trio.current_time()
                self._say_status()

    async def _on_signals(self) -> None:
        try:
            with trio.open_signal_receiver(signal.SIGUSR1, signal.SIGUSR2) as signals:
                async for number in signals:
                    if number == signal.SIGUSR1:
                        self._say_status()
                    elif self._nursery is not None and not self.draining:
                        self._nursery.start_soon(self.drain)
        except RuntimeError:  # not the main thread: a node inside a test or another program
            return

    @property
    def draining(self) -> bool:
        return self.relay.overlay.state.draining

    async def drain(self) -> None:
        """Move every session of this node elsewhere, then stop. Endpoints are sent away a few at a time, and call another relay; what they
        said here has gone to the neighbours before this node ends, and what it had not taken yet they say again there."""
        log.info("draining", links=self.relay.links, nodes=sorted(self.relay.nodes))
        self.relay.drain()
        while not self.relay.nodes:
            log.warning("drain-waits", why="no other relay is linked, so there is nowhere to go")
            await trio.sleep(PEER_EVERY)
        while self.relay.links:
            sessions = self.relay.sessions.values()
            ports = [port for session in sessions for port in (*session.all_ports(), *session.reserves) if not port.closing]
            for port in ports[:DRAIN_AT_ONCE]:
                port.close(CloseReason.SHUTDOWN, "this relay is being drained")
            await trio.sleep(DRAIN_EVERY)
        patience = trio.current_time() + DRAIN_WITHIN
        while not self.relay.drained and trio.current_time() < patience:
            await trio.sleep(DRAIN_EVERY)
            self.relay.flush()
        log.info("drained")
        self.stop()

    def _say_status(self) -> None:
        relay = self.relay
        log.info(
            "status",
            links=relay.links,
            sessions=len(relay.overlay.ours),
            known_sessions=len(relay.sessions),
            nodes=sorted(relay.nodes),
            manager=relay.manager is not None,
            passed=dict(relay.passed),
            dropped=dict(relay.dropped),
            closed=dict(self.closed),
        )
