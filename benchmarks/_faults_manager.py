"""A manager for `benchmarks/faults.py`, on one side of a line: says membership and one meeting's facts to every relay that calls."""

import json
import sys
from pathlib import Path

import trio

from net.listener import listen, serve_tls
from net.pki import Identity
from net.process import exit_with_parent
from net.tls import server_context
from tests.mcs.raw import FakeManager, Meeting


async def main() -> None:
    where, host, relays = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    said = json.loads(await (trio.Path(where) / "facts").read_text())
    tokens = {int(number): bytes.fromhex(token) for number, token in said["tokens"].items()}
    meeting = Meeting(said["session"], attendees=(), tokens={})
    meeting.tokens = tokens
    manager = FakeManager()
    manager.facts.append(meeting.facts(7))
    listeners = await listen(host, 0)
    context = server_context(Identity.in_directory(where / "manager-1"), ask_peer=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(exit_with_parent, nursery.cancel_scope)
        (address,) = await nursery.start(lambda task_status: serve_tls(listeners, context, manager.serve, task_status=task_status))
        print(address[1], flush=True)
        await manager.until(lambda: len({name for name, _ in manager.acked}) == relays)
        print("told", flush=True)


if __name__ == "__main__":
    trio.run(main)
