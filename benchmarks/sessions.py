"""What many small sessions cost one relay: 2,000 of five people each, idle and lightly loaded.

The relay process, its links and the generator are those of `benchmarks/fanout.py`. *Idle*: keep-alives alone. *Light*: a chat line of 200
bytes every two seconds in every session, from one of the five to the four others.

    sessions_kb             memory of the relay for one session with its five links
    sessions_idle_cpu       share of one core
    sessions_light_cpu      share of one core, at 1,000 lines and 4,000 deliveries a second; sessions_light_us: for a delivery, over idle
    sessions_light_p99_ms   from saying to hearing, in five sessions

Needs gcc and libssl-dev (Debian packages).
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.fanout import SESSION, Bench, cpu, resident
from wire.control import VERSION, Facts, Grant, Hello

PEOPLE = 5


class Sessions(Bench):
    """Many sessions instead of one: link after link, five to each."""

    def __init__(self, where: Path, sessions: int) -> None:
        super().__init__(where, sessions * PEOPLE)
        self.sessions = sessions
        self.participants = [*range(2, sessions * PEOPLE + 1), 1]  # what `links` asks for: numbers of links, the sender's last

    def facts(self) -> list[Facts]:
        """Session by session; the first of the five organizes."""
        found = []
        for number in range(self.sessions):
            grants = [Grant(p, 1 if p == 1 else 2, bytes(8)) for p in range(1, PEOPLE + 1)]
            found.append(Facts(serial=number + 1, session=SESSION + number, grants=grants, office=1, term=1))
        return found

    def hello(self, participant: int, sent: int) -> Hello:
        """Of the n-th link, whatever the number that `links` has for it."""
        n = self.sessions * PEOPLE - 1 if participant == 1 else participant - 2
        person = n % PEOPLE + 1
        return Hello(VERSION, SESSION + n // PEOPLE, person, 1 if person == 1 else 2, bytes(8), False, [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one object of figures as the last line")
    parser.add_argument("--quick", action="store_true", help="200 sessions")
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    sessions = 200 if arguments.quick else 2000
    links = sessions * PEOPLE
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < links + 100:
        sys.exit(f"{links} links need as many open files (ulimit -n)")
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as directory:
        bench = Sessions(Path(directory), sessions)
        with bench.ours() as server:
            before = resident(server.pid)
            with bench.links(server, 200, links - 1, decrypting=5 * PEOPLE) as load:
                load.idle(5.0)
                figures["sessions_kb"] = round((resident(server.pid) - before) / sessions / 1024, 1)
                idle = load.idle(10.0) / 10.0
                figures["sessions_idle_cpu"] = round(idle, 3)
                began, spent = time.monotonic(), cpu(server.pid)
                found = load.say(f"talk {sessions / 2} {arguments.seconds} {PEOPLE}")
                took, spent = time.monotonic() - began, cpu(server.pid) - spent
                if found["missing"] or found["wrong"]:
                    raise RuntimeError(f"the relay did not deliver: {found}")
                figures["sessions_light_cpu"] = round(spent / took, 3)
                figures["sessions_light_us"] = round(1e6 * (spent - idle * took) / (found["sent"] * (PEOPLE - 1)), 1)
                figures["sessions_light_p99_ms"] = round(found["p99_us"] / 1000, 2)
    for name, value in figures.items():
        print(f"{name:24} {value:>10,}")
    if arguments.json:
        print(json.dumps({"figures": figures}))


if __name__ == "__main__":
    main()
