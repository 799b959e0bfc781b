"""A running relay: listeners, links, dialling, and the clock that drives them.

main nursery ── accept ── a nursery of links (they outlive the accepting when the node stops)
             ├─ one task per node to call          reconnecting for ever, with back-off
             ├─ the link to the manager            the same; running sessions do not need it
             ├─ flush: 50 ms after something changed, until nothing has
             └─ tick: every second; status: every minute and at SIGUSR1
"""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import structlog
import trio

from mcs.limits import BACK_OFF, COALESCE, DIAL_WITHIN, LOAD_EVERY, MAX_PENDING, STATUS_EVERY, TICK
from mcs.links import Caller, Dialled, ManagerLink, NodeLink
from mcs.relay import Relay
from mcs.settings import Address, Settings
from net.dial import Unreachable, dial
from net.listener import listen, serve_tls
from net.pki import Identity, Kind
from net.process import warn_of_expiry
from net.pump import Group, Pump, Pumped
from net.stream import TlsStream
from net.tap import Tap
from net.tls import TlsRefused, client_context, server_context
from wire.control import Load, Membership, NodeInfo
from wire.errors import CloseReason, LinkClosed
from wire.link import Side

log = structlog.get_logger()
STOP_WITHIN: Final = 2.0
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
        self.closed: Counter[str] = Counter()  # links, by why they ended
        self._tap = Tap(settings.tap) if settings.tap else None
        self._client = client_context(self.identity.ca_path, self.identity)
        self._pending = 0  # accepted links that are nobody's yet
        self._dirty = trio.Event()
        self._dialling: dict[str, trio.CancelScope] = {}
        self._nursery: trio.Nursery | None = None
        self._members_moved = trio.Event()  # set and replaced with every membership
        self._stop = trio.Event()

    def stop(self) -> None:
        """End in order: links are told."""
        self._stop.set()

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
            nursery.start_soon(self._status_on_signal)
            if self.settings.managers:
                nursery.start_soon(self._keep_manager)
            task_status.started(addresses)
            await self._stop.wait()
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
        if self._pending > MAX_PENDING:
            connection.close(CloseReason.BUSY)

    def _one_known(self) -> None:
        self._pending -= 1

    def _ended(self, one: Pumped, why: LinkClosed, handler: Caller | Dialled) -> None:
        self.closed[why.reason] += 1
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
            await self._keep(addresses, "mcs", node, lambda connection: NodeLink(self.relay, connection, node))

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
        """Call a server for ever. The back-off starts anew with every link that came up."""
        shortest, longest = BACK_OFF
        pause, said = shortest, ""
        while True:
            try:
                stream = await dial(addresses(), self._client, server_kind=kind, cluster=self.me.cluster, timeout=DIAL_WITHIN, tap=self._tap)
            except (Unreachable, TlsRefused) as error:
                if said != str(error):  # once, not with every attempt
                    said = str(error)
                    log.warning("dial-failed", server=node or kind, reason=said)
            else:
                dialled = Dialled(self.info(), node, make_role)
                if node is not None and (stream.peer is None or stream.peer.node != node):
                    log.warning("dial-failed", server=node, reason="another node answers at its address")
                    await stream.aclose()
                else:
                    await self._call(stream, dialled)
                if dialled.welcomed:
                    pause, said = shortest, ""
            with trio.move_on_after(pause * random.uniform(0.5, 1.0)):  # noqa: S311  # spreads callers, decides nothing
                await self._members_moved.wait()  # it may have a new address
                pause = shortest
                continue
            pause = min(longest, pause * 2)

    async def _call(self, stream: TlsStream, dialled: Dialled) -> None:
        """Until the link has ended."""
        ended = trio.Event()

        def on_end(one: Pumped, why: LinkClosed) -> None:
            self._ended(one, why, dialled)
            ended.set()

        dialled.connection = connection = self.pump.adopt(stream, Side.CALLER, dialled, on_end)
        dialled.greet()
        try:
            await ended.wait()
        finally:
            connection.close(CloseReason.SHUTDOWN)

    async def _report_load(self) -> None:
        while True:
            if self.relay.manager is not None:
                self.relay.manager.send(Load(self.relay.links, len(self.relay.overlay.ours)))
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
            if trio.current_time() - said >= STATUS_EVERY:
                said = trio.current_time()
                self._say_status()

    async def _status_on_signal(self) -> None:
        try:
            with trio.open_signal_receiver(signal.SIGUSR1) as signals:
                async for _ in signals:
                    self._say_status()
        except RuntimeError:  # not the main thread: a node inside a test or another program
            return

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
