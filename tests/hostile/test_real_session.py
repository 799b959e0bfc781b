"""Attacks that mean something only where relays, a manager and links are real: over TLS, with reconnects, tokens and the office.

Each is a class, as in `test_attacks.py`; all of one scene are mounted side by side, since most have to wait for an honest member's patience.
"""

from collections import Counter
from pathlib import Path
from typing import ClassVar

import pytest
import trio

from endpoint import events, log
from endpoint.log import sign_entry
from endpoint.session import Session
from net.dial import dial
from net.tls import client_context
from tests.hostile.real import HostileRelay, RealScene, real_scene
from tests.mcs.raw import Cluster, RawEndpoint
from wire.control import VERSION, Hello, Welcome
from wire.errors import CloseReason
from wire.frame import PACKET, Frame
from wire.ids import Channel, Role
from wire.packet import parse_packet_untrusted

WITHIN = 180.0


def is_of(frame: Frame, channel: int) -> bool:
    return frame.type == PACKET and parse_packet_untrusted(frame.body).channel == channel


class RealAttack:
    """`victim` must notice it under the names of `detected`."""

    detected: ClassVar[tuple[str, ...]]
    victim: Session

    async def mount(self, scene: RealScene) -> None:
        raise NotImplementedError

    async def meet(self, scene: RealScene) -> HostileRelay:
        """A guest of the attack's name, who has no relay but a hostile one."""
        hostile = scene.hostile_relay()
        self.victim = await scene.guest(type(self).__name__, through=hostile)
        return hostile

    def noticed(self) -> bool:
        return all(self.victim.member.dropped[name] for name in self.detected)


class KeepsAnEntryBack(RealAttack):
    """Leaves one entry of the log out on the way to a member."""

    detected = ("gap", "withheld")

    async def mount(self, scene: RealScene) -> None:
        hostile = await self.meet(scene)
        kept: list[Frame] = []

        def meddle(frame: Frame) -> list[Frame]:
            if kept or not is_of(frame, Channel.LOG):
                return [frame]
            kept.append(frame)
            return []

        hostile.meddle = meddle
        for locked in (True, False):
            scene.sessions["Olga"].act(lambda chair, now, locked=locked: chair.lock(locked, now))  # type: ignore[misc]


class KeepsALineBack(RealAttack):
    """Leaves one line of chat out, and is still there when the member asks."""

    detected = ("withheld",)

    async def mount(self, scene: RealScene) -> None:
        hostile = await self.meet(scene)
        hostile.meddle = lambda frame: [] if is_of(frame, Channel.CHAT) else [frame]
        await scene.sessions["Ana"].chat("kept back")
        await self.victim.until(self.noticed)
        hostile.meddle = lambda frame: [frame]


class TurnsLinesRound(RealAttack):
    """Lets a later line overtake an earlier one."""

    detected = ("gap", "withheld")

    async def mount(self, scene: RealScene) -> None:
        hostile = await self.meet(scene)
        held: list[Frame] = []

        def meddle(frame: Frame) -> list[Frame]:
            if not is_of(frame, Channel.CHAT):
                return [frame]
            held.append(frame)
            return [] if len(held) == 1 else [frame, held[0]] if len(held) == 2 else [frame]

        heard: list[events.Event] = []
        self.victim.listen(lambda event: heard.append(event) if isinstance(event, events.ChatReceived) else None)
        await scene.sessions["Ana"].chat("in order")
        await self.victim.until(lambda: bool(heard))
        hostile.meddle = meddle
        for line in ("first", "second"):
            await scene.sessions["Ana"].chat(line)


class MovesLines(RealAttack):
    """Says each line once more as another member's, and on another channel."""

    detected = ("bad-tag",)

    async def mount(self, scene: RealScene) -> None:
        hostile = await self.meet(scene)
        olga = scene.sessions["Olga"].me.to_bytes(4, "big")

        def meddle(frame: Frame) -> list[Frame]:
            if not is_of(frame, Channel.CHAT):
                return [frame]
            body = frame.body
            return [frame, frame._replace(body=body[:12] + olga + body[16:]), frame._replace(body=body[:2] + b"\x08" + body[3:])]

        hostile.meddle = meddle
        await scene.sessions["Ana"].chat("whose line is it?")


class SaysAllAgain(RealAttack):
    """Cuts the link, and on the next one says everything again, whatever the member says that it has."""

    detected = ("replayed",)

    async def mount(self, scene: RealScene) -> None:
        hostile = await self.meet(scene)
        said: list[Frame] = []

        def remember(frame: Frame) -> list[Frame]:
            if frame.type == PACKET:
                said.append(frame)
            return [frame]

        def repeat(frame: Frame) -> list[Frame]:
            return [frame, *said] if frame.type == Welcome.TYPE else [frame]

        hostile.meddle = remember
        await scene.sessions["Ana"].chat("once")
        await self.victim.until(lambda: any(is_of(frame, Channel.CHAT) for frame in said))
        hostile.meddle = repeat
        hostile.cut()


class GivesTheOfficeAway(RealAttack):
    """The manager tells the relays that Eve holds the office; they let her write the log, and no member follows."""

    detected = ("no-right",)

    async def mount(self, scene: RealScene) -> None:
        self.victim = scene.sessions["Ana"]
        eve = scene.sessions["Eve"]
        await scene.tell(office=eve.me, term=50)
        await eve.until(lambda: eve.member.relay_office == eve.me)
        state = self.victim.state
        entry = sign_entry(eve.member.signing, state.index + 1, state.head, 0, log.Presenter(eve.me))
        eve.member.out.extend(eve.member.channels.seal(Channel.LOG, entry.wire))
        eve._settle()
        await self.victim.until(self.noticed)
        assert self.victim.member.refused[eve.me]
        await scene.tell(office=scene.sessions["Olga"].me, term=51)


class ComesBackDismissed(RealAttack):
    """Eve was dismissed; her link, her link in reserve and her token are tried at both relays."""

    detected = ()

    async def mount(self, scene: RealScene) -> None:
        olga, eve = scene.sessions["Olga"], scene.sessions["Eve"]
        self.victim = olga
        await eve.until(lambda: eve._reserve is not None)
        reserve = eve._reserve
        assert reserve is not None
        olga.act(lambda chair, now: chair.dismiss(eve.me, now))
        await reserve.ended()
        await eve.until(lambda: eve.over)
        for relay in scene.relays:
            for standby in (False, True):
                raw = RawEndpoint(scene.session, eve.me, eve.ticket.token.reveal())
                stream = await dial(list(relay.addresses), client_context(scene.cluster.ca, None), server_kind="mcs")
                hello = Hello(VERSION, scene.session, eve.me, Role.ATTENDEE, raw.token, False, [], standby, standby)
                await raw.run(stream, hello)
                assert raw.closed is not None
                assert raw.closed.reason is CloseReason.REVOKED


SIDE_BY_SIDE = (KeepsAnEntryBack, KeepsALineBack, TurnsLinesRound, MovesLines, SaysAllAgain)
ONE_BY_ONE = (GivesTheOfficeAway, ComesBackDismissed)


async def test_B08_G07_G26_attacks_on_real_links_are_named_and_the_session_goes_on(cluster: Cluster) -> None:
    with trio.fail_after(WITHIN):
        async with real_scene(cluster) as scene:
            await scene.organizer()
            for name in ("Ana", "Eve"):
                await scene.guest(name)
            attacks: list[RealAttack] = [kind() for kind in SIDE_BY_SIDE]
            async with trio.open_nursery() as nursery:
                for attack in attacks:
                    nursery.start_soon(attack.mount, scene)
            for attack in attacks:
                await attack.victim.until(attack.noticed)
            for kind in ONE_BY_ONE:
                await kind().mount(scene)
            del scene.sessions["Eve"]
            await goes_on(scene)


async def goes_on(scene: RealScene) -> None:
    """Chat of everyone reaches everyone, the key has changed, a newcomer is let in, and all have one log."""
    olga = scene.sessions["Olga"]
    olga.act(lambda chair, now: chair.knock(False, now))
    await scene.guest("Newcomer")
    heard: dict[str, Counter[str]] = {name: Counter() for name in scene.sessions}
    for name, session in scene.sessions.items():
        session.listen(lambda event, name=name: heard[name].update([event.text] if isinstance(event, events.ChatReceived) else []))  # type: ignore[misc]
    for name, session in scene.sessions.items():
        await session.chat(f"still here: {name}")
    wanted = Counter(f"still here: {name}" for name in scene.sessions)
    for name, session in scene.sessions.items():
        await session.until(lambda name=name: heard[name] == wanted)  # type: ignore[misc]
        await session.until(lambda session=session: session.state.index >= olga.state.index)  # type: ignore[misc]
    assert len({session.state.head_at(olga.state.index) for session in scene.sessions.values()}) == 1
    assert len({session.member.keyring.group_key for session in scene.sessions.values()}) == 1


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    return Cluster.create(tmp_path_factory.mktemp("hostile"))


def test_the_threat_model_lists_every_attack_on_real_links() -> None:
    text = (Path(__file__).parents[2] / "docs" / "threat-model.md").read_text()
    for kind in (*SIDE_BY_SIDE, *ONE_BY_ONE):
        names = ", ".join(f"`{name}`" for name in kind.detected) or "`revoked`"
        assert f"| `{kind.__name__}` | {' '.join((kind.__doc__ or '').split())} | {names} |\n" in text, kind
