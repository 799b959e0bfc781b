"""How many packets a second one core seals and opens, beside what `openssl speed` says the same core can do at most.

Sealing includes packing the clear header; opening includes parsing it and the replay check. Unsigned packets with 1,200 bytes of
plaintext. Rounds of sealing and opening alternate and are counted in CPU time of this thread; `openssl speed` runs between
them for AES-128-CTR and HMAC-SHA1 at the same size. The fastest round counts, for all of them alike: it is the one that
neighbours on the machine disturbed least. Beside them: the cost of the SRP handshake.

    seal_pps_1200, open_pps_1200           packets per second and core
    openssl_pps_1200                       the limit: AES-128-CTR and HMAC-SHA1 of the same bytes, nothing else, in C
    seal_of_openssl, open_of_openssl       the share of that limit
    guest_ms, host_ms                      CPU of a guest's and a host's handshake
"""

import argparse
import json
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable
from itertools import pairwise

from crypto.keyring import Keyring
from crypto.replay import StrictlyNext
from crypto.seal import Sealer
from crypto.srp import Guest, Host, make_verifier
from wire.ids import Epoch, ParticipantId, SessionId
from wire.packet import pack_header, parse_packet_untrusted

SIZE = 1200
BATCH = 50  # packets sealed, then opened, while they are still warm in the cache, as in a program that sends and receives them
BATCHES = 100
ROUNDS = 60
HANDSHAKES = 40
SESSION, SENDER, EVERYONE = SessionId(secrets.randbits(64)), ParticipantId(2), ParticipantId(0)
CHANNEL = 2


def cpu(work: Callable[[], object]) -> float:
    """Seconds of this thread's CPU."""
    start = time.thread_time()
    work()
    return time.thread_time() - start


def openssl_speed(*what: str) -> float:
    """Bytes per second of CPU at our size, as `openssl speed` counts."""
    command = ["openssl", "speed", "-mr", "-bytes", str(SIZE), "-seconds", "1", *what]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"^\+F:\d+:[^:]+:([\d.]+)$", output, re.MULTILINE)
    assert found is not None, output
    return float(found[1])


def ring() -> Keyring:
    ring = Keyring(SESSION, SENDER)
    ring.install(1, bytes(range(16)), 0.0)
    ring.advance(1, 0.0)
    return ring


def packets(figures: dict[str, float]) -> None:
    plaintext = secrets.token_bytes(SIZE)
    keyring = ring()
    sealer: Sealer = keyring.sealer(EVERYONE, CHANNEL)[1]
    opener = keyring.opener(SENDER, EVERYONE, CHANNEL, 1, 0.0)
    replay = StrictlyNext()
    sealed: list[bytes] = []
    epoch = Epoch(1)

    def seal() -> None:
        first = sealer.last + 1
        sealed.extend(
            sealer.seal(pack_header(0, CHANNEL, SESSION, SENDER, EVERYONE, epoch, counter), counter, plaintext)
            for counter in range(first, first + BATCH)
        )

    def unseal() -> None:
        for packet in sealed:
            counter = parse_packet_untrusted(packet).counter
            opener.verify(packet)
            replay.check(counter)
            opener.decrypt(packet, counter)
            replay.accept(counter)

    seconds: dict[str, list[float]] = {"seal": [], "open": []}
    limits: list[float] = []
    for turn in range(ROUNDS):
        spent = {"seal": 0.0, "open": 0.0}
        for _ in range(BATCHES):
            sealed.clear()
            spent["seal"] += cpu(seal)
            spent["open"] += cpu(unseal)
        for name, value in spent.items():
            seconds[name].append(value)
        if turn % 20 == 10 and shutil.which("openssl"):
            per_packet = SIZE / openssl_speed("-evp", "aes-128-ctr") + (SIZE + 32) / openssl_speed("-hmac", "sha1")
            limits.append(1 / per_packet)
    for name, measured in seconds.items():
        figures[f"{name}_pps_{SIZE}"] = round(BATCH * BATCHES / min(measured))
    if limits:
        figures[f"openssl_pps_{SIZE}"] = round(max(limits))
        for name in seconds:
            figures[f"{name}_of_openssl"] = round(figures[f"{name}_pps_{SIZE}"] / figures[f"openssl_pps_{SIZE}"], 2)


def handshakes(figures: dict[str, float]) -> None:
    secret = secrets.token_bytes(32)
    verifier = make_verifier(SESSION, secret, "correct horse battery staple")
    spent: dict[str, list[float]] = {"guest_ms": [], "host_ms": []}
    th = secrets.token_bytes(32)
    for _ in range(HANDSHAKES):
        marks = [time.thread_time()]
        guest = Guest(SESSION, secret, "correct horse battery staple")
        marks.append(time.thread_time())
        host = Host(verifier)
        marks.append(time.thread_time())
        m1 = guest.prove(verifier.salt, host.public, th)
        marks.append(time.thread_time())
        host.verify(guest.public, th, m1)
        m2 = host.prove()
        marks.append(time.thread_time())
        guest.check(m2)
        marks.append(time.thread_time())
        steps = [after - before for before, after in pairwise(marks)]
        spent["guest_ms"].append(steps[0] + steps[2] + steps[4])
        spent["host_ms"].append(steps[1] + steps[3])
    figures.update({name: round(1000 * min(seconds), 2) for name, seconds in spent.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one object of figures as the last line")
    arguments = parser.parse_args()
    figures: dict[str, float] = {}
    packets(figures)
    handshakes(figures)
    for name, value in figures.items():
        print(f"{name:20} {value:>12,}")
    if "openssl_pps_1200" not in figures:
        print("no comparison: `openssl` is missing (Debian package openssl)")
    if arguments.json:
        print(json.dumps({"figures": figures}))


if __name__ == "__main__":
    main()
