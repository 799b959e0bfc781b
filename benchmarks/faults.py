"""What a meeting loses when its servers die, freeze, are parted or far away; beside nats-server where that has an answer.

A meeting in processes: 5 relays, 20 members in four processes that speak with the product's own link, outbox and have-vectors (what is
inside their packets is not sealed), chat, keys, log and input at 200 packets a second together, a screen at 12 pictures a second in which
every picture follows from the one before. The relays are the real ones; the manager is the suite's, which speaks the real link and says
membership and one meeting's grants, without a store. So the figures are the network's; opening what arrives comes on top. They are of
all members and all faults of a scenario, gaps in the time from saying to hearing.

    kill        SIGKILL of each relay in turn, ten times; it comes back empty after a second
                kill_lost, kill_doubled; kill_gap_ms_p99, _max: the longest that anything said around the kill was on its way to one member;
                kill_gap_max_at: which kill that was, of kill_kills; were it always a late one, the meeting's age would count
                kill_exact_ms_p99: until a member had an exact picture from after the kill
    nats        the same kill for nats-server: nats_kill_lost, nats_kill_gap_ms_p99 (the longest that a client heard nothing)
    stop        SIGSTOP of a relay, and of a member that only listens: stop_detect_s until the last link to it was given up; stop_lost
    partition   two halves of the meeting, 30 s apart: partition_lost, _doubled; partition_catch_up_ms until the last packet from the
                other half was there, after the line was whole again; partition_exact_ms
    lossy       half of the members behind a line with 5% loss and 200 ms of round trip: lossy_lost, lossy_reconnects, lossy_input_ms_p99
    stall       one of 200 readers freezes, again and again: stall_others_p99_ratio (the others' 99th percentile over all rounds, with ÷
                without), stall_control_p99_ratio (calm ÷ calm, from the same rounds: what the machine's noise makes of it);
                20 packets a second and 2 pictures, because 200 members in Python on the relays' own cores can take no more
    nats_stall  the same for nats-server: nats_stall_others_p99_ratio, nats_stall_control_p99_ratio
    manager     the manager goes away for a minute: manager_reconnects, manager_lost, manager_gap_ms_p99

`--only kill,stop` chooses, `--quick` shortens. Needs root and iproute2 for partition and lossy, nats-server for its figures.
"""

import argparse
import contextlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _faults_nats
from benchmarks._network import ADDRESSES, Line
from net import pki
from tests.mcs.raw import Cluster, Meeting

ROOT = Path(__file__).parent.parent
RELAYS = 5
MEMBERS = 20
PROCESSES = 4
RATES = {"1": {"log": 40.0, "key": 20.0}, "2": {}, "*": {"chat": 4.0, "input": 3.8}}  # together 200 packets a second
FRAMES = 12.0
SETTLE = 3.0
STALL_FOR = 4.0
Report = dict[str, Any]


@dataclass
class Process:
    """A child of ours, with its log."""

    name: str
    child: subprocess.Popen[bytes]
    log: Path
    ready: dict[str, Any] = field(default_factory=dict)

    def signal(self, number: int) -> None:
        self.child.send_signal(number)

    def end(self) -> None:
        self.child.kill()
        self.child.wait()
        for pipe in (self.child.stdin, self.child.stdout):
            if pipe:
                pipe.close()


class Theatre:
    """The processes of one scenario."""

    def __init__(self, where: Path, prefix: Callable[[str], list[str]] = lambda side: []) -> None:
        """`prefix`: what stands before a command that runs on a side."""
        self.where, self.prefix = where, prefix
        self.cluster: Cluster
        self.relays: dict[str, Process] = {}
        self.addresses: dict[str, tuple[str, int]] = {}
        self.members: list[Process] = []
        self.sides: dict[str, str] = {}
        self.reports: list[Report] = []
        self.manager: Process
        self.manager_at = ""

    def start_relay(self, name: str, listen: str, side: str = "") -> None:
        log = self.where / f"{name}.log"
        command = [*self.prefix(side), sys.executable, "-P", "-m", "mcs", "--json", "--log-json", "--exit-with-parent", "--listen", listen]
        command += ["--identity", str(self.where / name), "--metrics-port", "0"]
        command += ["--manager", self.manager_at]
        with log.open("ab") as errors:
            child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, cwd=ROOT, env=os.environ)
        process = Process(name, child, log)
        assert child.stdout is not None
        line = child.stdout.readline()
        assert line, log.read_text()[-2000:]
        process.ready = json.loads(line)
        host = listen.rpartition(":")[0]
        self.addresses[name] = (host, process.ready["port"])
        self.relays[name], self.sides[name] = process, side

    def start_members(self, meeting: Meeting, groups: list[list[int]], *, rates: dict[str, Any] = RATES, sides: str = "", **more: Any) -> None:
        begin = time.monotonic() + 2.0
        for number, group in enumerate(groups):
            side = sides[number] if sides else ""
            near = [name for name in self.relays if self.sides[name] == side]
            near += [name for name in self.relays if name not in near] if more.get("roam", True) else []
            settings = {
                "ca": str(self.cluster.ca), "session": meeting.session, "tokens": {n: t.hex() for n, t in meeting.tokens.items()},
                "members": group, "relays": [(name, self.addresses[name]) for name in near], "presenter": 2, "rates": rates, "begin": begin,
                "frames": FRAMES,
                "report": str(self.where / f"report-{len(self.members)}"), **more,
            }  # fmt: skip
            log = self.where / f"members-{len(self.members)}.log"
            with log.open("ab") as errors:
                child = subprocess.Popen(
                    [*self.prefix(side), sys.executable, "-P", "-m", "benchmarks._faults_member"],
                    stdin=subprocess.PIPE, stderr=errors, stdout=errors, cwd=ROOT, env=os.environ,
                )  # fmt: skip
            assert child.stdin is not None
            child.stdin.write(json.dumps(settings).encode() + b"\n")
            child.stdin.flush()
            self.members.append(Process(f"members-{number}", child, log, {"report": settings["report"]}))

    def say(self, word: str) -> None:
        for process in self.members:
            if process.child.poll() is None and process.child.stdin is not None:
                process.child.stdin.write(word.encode() + b"\n")
                process.child.stdin.flush()

    def finish(self, settle: float = SETTLE) -> None:
        """Let everybody fall silent, and read what they got."""
        self.say("quiet")
        time.sleep(settle)
        self.say("stop")
        for process in self.members:
            assert process.child.wait(20) == 0, process.log.read_text()[-2000:]
            self.reports += pickle.loads(Path(process.ready["report"]).read_bytes())

    def end(self) -> None:
        for process in (*self.members, *self.relays.values(), self.manager):
            process.end()

    # --- what came of it ---

    def lost(self) -> int:
        """Reliable packets that a member was to get and has not."""
        missing: int = 0
        for sender in self.reports:
            for (_, to, channel), last in sender["sent"].items():
                for reader in self.reports:
                    if reader is not sender and to in (0, reader["number"]):
                        missing += last - reader["have"].get((sender["number"], to, channel), -1)
        return int(missing + sum(r["gaps"] + r["lost"] for r in self.reports))

    def doubled(self) -> int:
        return int(sum(r["doubled"] for r in self.reports))

    def count(self) -> int:
        return sum(len(r["got_at"]) for r in self.reports)

    def gaps_ms(self, moments: list[float], before: float = 0.5, after: float = 2.5) -> list[float]:
        """For each fault and member, the longest that anything said around it was on its way."""
        found = []
        for report in self.reports:
            sent, got = np.array(report["sent_at"]), np.array(report["got_at"])
            for moment in moments:
                around = (sent >= moment - before) & (sent <= moment + after)
                if around.any():
                    found.append(float((got[around] - sent[around]).max() * 1000))
        return found

    def exact_ms(self, moments: list[float]) -> list[float]:
        """For each fault and viewer, how long until it had an exact picture that was made after the fault."""
        found = []
        for report in self.reports:
            if report["number"] == 2:
                continue
            sent, got = np.array(report["frames_sent"]), np.array(report["frames_got"])
            for moment in moments:
                after = got[sent >= moment]
                found.append(float((after.min() - moment) * 1000) if len(after) else float("inf"))
        return found


def p99(values: list[float]) -> float:
    return round(float(np.percentile(values, 99)), 1) if values else float("nan")


def groups(numbers: list[int], processes: int = PROCESSES) -> list[list[int]]:
    return [numbers[at::processes] for at in range(processes)]


@contextlib.contextmanager
def theatre(line: Line | None = None, far: int = 0, members: int = MEMBERS) -> Iterator[tuple[Theatre, Meeting]]:
    """Relays, the last `far` of them on side b of a line, with a manager on side a; the meeting's facts are in place."""
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        where = Path(name)
        stage = Theatre(where, line.inside if line else lambda side: [])
        stage.cluster = Cluster.create(where)
        meeting = Meeting(attendees=tuple(range(2, members + 1)))
        for number in range(1, RELAYS + 1):
            pki.enrol(stage.cluster.ca.parent, where / f"r{number}", "mcs", f"r{number}", ["127.0.0.1", *ADDRESSES.values()])
        (where / "facts").write_text(json.dumps({"session": meeting.session, "tokens": {n: t.hex() for n, t in meeting.tokens.items()}}))
        hosts = ADDRESSES if line else {"a": "127.0.0.1"}
        command = [*stage.prefix("a"), sys.executable, "-P", "-m", "benchmarks._faults_manager", str(where), hosts["a"], str(RELAYS)]
        try:
            with (where / "manager.log").open("wb") as errors:
                child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, cwd=ROOT, env=os.environ)
            stage.manager = Process("manager", child, where / "manager.log")
            assert child.stdout is not None
            ready = child.stdout.readline()
            assert ready, stage.manager.log.read_text()[-2000:]
            stage.manager_at = f"{hosts['a']}:{int(ready)}"
            for number in range(1, RELAYS + 1):
                side = "b" if number > RELAYS - far else "a"
                stage.start_relay(f"r{number}", f"{hosts[side]}:0", side)
            assert child.stdout.readline().strip() == b"told"
            yield stage, meeting
        finally:
            stage.end()


def kill(quick: bool) -> dict[str, float]:
    with theatre() as (stage, meeting):
        stage.start_members(meeting, groups(list(meeting.tokens)))
        time.sleep(5.0)
        moments = []
        for _ in range(1 if quick else 10):
            for name in list(stage.relays):
                host, port = stage.addresses[name]
                moments.append(time.monotonic())
                stage.relays[name].signal(signal.SIGKILL)
                time.sleep(0.7)
                stage.relays[name].end()
                stage.start_relay(name, f"{host}:{port}")
                time.sleep(1.8)
        stage.finish()
        gaps, exact = stage.gaps_ms(moments), stage.exact_ms(moments)
        worst = [max(stage.gaps_ms([moment])) for moment in moments]
        return {
            "kill_lost": stage.lost(), "kill_doubled": stage.doubled(), "kill_gap_ms_p99": p99(gaps), "kill_gap_ms_max": round(max(gaps), 1),
            "kill_gap_max_at": worst.index(max(worst)) + 1, "kill_exact_ms_p99": p99(exact), "kill_packets": stage.count(),
            "kill_kills": len(moments),
            "kill_inexact": sum(r["inexact"] for r in stage.reports),
        }  # fmt: skip


def nats(quick: bool) -> dict[str, float]:
    return _faults_nats.kill(1 if quick else 2)


def nats_stall(quick: bool) -> dict[str, float]:
    return _faults_nats.stall(2 if quick else 8, STALL_FOR)


def closed_silent(stage: Theatre, since: float) -> list[float]:
    """Wall-clock seconds after `since` at which relays gave links up as silent."""
    found = []
    for process in stage.relays.values():
        for line in process.log.read_text().splitlines():
            if '"reason": "silent"' in line:
                at = datetime.fromisoformat(json.loads(line)["timestamp"]).timestamp() - since
                if 0 <= at <= 10:
                    found.append(at)
    return found


def stop(quick: bool) -> dict[str, float]:
    """A relay freezes; then a member that only listens, while everything else flows to it."""
    detected: list[float] = []
    with theatre() as (stage, meeting):
        numbers = list(meeting.tokens)
        stage.start_members(meeting, [*groups(numbers[:-1]), numbers[-1:]], rates=RATES | {str(numbers[-1]): {}})
        time.sleep(5.0)
        moments = []
        for name in list(stage.relays)[: 1 if quick else 3]:
            since, mono = time.time(), time.monotonic()
            moments.append(mono)
            stage.relays[name].signal(signal.SIGSTOP)
            time.sleep(5.0)
            detected += closed_silent(stage, since)
            stage.relays[name].signal(signal.SIGCONT)
            time.sleep(3.0)
        since = time.time()
        stage.members[-1].signal(signal.SIGSTOP)
        time.sleep(5.0)
        alone = closed_silent(stage, since)
        stage.members[-1].signal(signal.SIGCONT)
        time.sleep(3.0)
        stage.finish()
        for report in stage.reports:
            detected += [
                down - moment for _, down, _, why in report["links"] for moment in moments if why == "silent" and 0 <= down - moment <= 6
            ]
        return {
            "stop_detect_s": round(max([*detected, *alone]), 2) if detected and alone else float("inf"),
            "stop_links_given_up": len(detected) + len(alone), "stop_lost": stage.lost(), "stop_doubled": stage.doubled(),
            "stop_gap_ms_max": round(max(stage.gaps_ms(moments, after=4.0)), 1),
        }  # fmt: skip


def partition(quick: bool) -> dict[str, float]:
    with Line("faults") as line, theatre(line, far=2) as (stage, meeting):
        numbers = list(meeting.tokens)
        stage.start_members(meeting, [*groups(numbers[:12], 2), *groups(numbers[12:], 2)], sides="aabb", roam=False)
        time.sleep(5.0)
        parted = time.monotonic()
        line.set(cut=True)
        time.sleep(8.0 if quick else 30.0)
        line.set(cut=False)
        healed = time.monotonic()
        time.sleep(6.0)
        stage.finish()
        late = [0.0]
        for report in stage.reports:
            sent, got = np.array(report["sent_at"]), np.array(report["got_at"])
            owed = (sent >= parted) & (sent <= healed - 0.5) & (got >= healed)
            late += [float((got[owed].max() - healed) * 1000)] if owed.any() else []
        return {
            "partition_lost": stage.lost(), "partition_doubled": stage.doubled(), "partition_catch_up_ms": round(max(late), 1),
            "partition_exact_ms": round(max(stage.exact_ms([healed])), 1), "partition_s": round(healed - parted, 1),
            "partition_members_that_caught_up": len(late) - 1, "partition_packets": stage.count(),
        }  # fmt: skip


def lossy(quick: bool) -> dict[str, float]:
    with Line("faults") as line, theatre(line) as (stage, meeting):
        numbers = list(meeting.tokens)
        stage.start_members(meeting, [*groups(numbers[:10], 2), *groups(numbers[10:], 2)], sides="aabb")
        time.sleep(5.0)
        line.set(delay=0.1, loss=0.05)
        began = time.monotonic()
        time.sleep(40.0 if quick else 300.0)
        ended = time.monotonic()
        line.set()
        time.sleep(3.0)
        stage.finish()
        reconnects = sum(began <= down <= ended for report in stage.reports for _, down, _, _ in report["links"])
        presenter = next(report for report in stage.reports if report["number"] == 2)
        sent, got, channel = (np.array(presenter[key]) for key in ("sent_at", "got_at", "channels"))
        wanted = (channel == 4) & (sent >= began + 2) & (sent <= ended - 3)
        delays = (got[wanted] - sent[wanted]) * 1000
        far = delays[delays > 90.0]  # what came over the line
        return {
            "lossy_lost": stage.lost(), "lossy_doubled": stage.doubled(), "lossy_reconnects": reconnects,
            "lossy_input_ms_p99": p99(list(far)), "lossy_input_ms_p50": round(float(np.median(far)), 1), "lossy_inputs": len(far),
            "lossy_s": round(ended - began, 1),
        }  # fmt: skip


def manager(quick: bool) -> dict[str, float]:
    with theatre() as (stage, meeting):
        stage.start_members(meeting, groups(list(meeting.tokens)))
        time.sleep(5.0)
        began, away = time.monotonic(), 15.0 if quick else 60.0
        stage.manager.signal(signal.SIGKILL)
        time.sleep(away)
        stage.finish()
        reconnects = sum(down >= began and why != "cancelled" for report in stage.reports for _, down, _, why in report["links"])
        gaps = stage.gaps_ms([began], before=0.0, after=away)
        return {
            "manager_lost": stage.lost(), "manager_doubled": stage.doubled(), "manager_reconnects": reconnects,
            "manager_gap_ms_p99": p99(gaps), "manager_away_s": away,
        }  # fmt: skip


def stall(quick: bool) -> dict[str, float]:
    """One of 200 freezes, again and again. Before each time there are two calm windows: both together are what it is compared with, and one
    against the other says what such a ratio is worth. Windows of a kind count together: one has too few packets for a 99th percentile."""
    with theatre(members=200) as (stage, meeting):
        numbers = list(meeting.tokens)
        stage.start_members(meeting, [*groups(numbers[:-1]), numbers[-1:]], rates={"1": {"log": 20.0}, "*": {}}, frames=2.0)
        time.sleep(10.0)
        rounds = []
        for _ in range(2 if quick else 8):
            windows = {}
            for kind in ("calm", "control", "stalled"):
                began, wall = time.monotonic(), time.time()
                if kind == "stalled":
                    stage.members[-1].signal(signal.SIGSTOP)
                time.sleep(STALL_FOR)
                windows[kind] = (began, time.monotonic())
            cut = len(closed_silent(stage, wall))
            stage.members[-1].signal(signal.SIGCONT)
            rounds.append((windows, cut))
            time.sleep(2.0)  # it comes back
        stage.finish()
        others = [report for report in stage.reports if report["number"] != numbers[-1]]
        sent, got = (np.concatenate([np.array(report[key]) for report in others]) for key in ("sent_at", "got_at"))
        p99s = {}
        for kind in ("calm", "control", "stalled"):
            delays = [(got - sent)[(sent >= windows[kind][0]) & (sent < windows[kind][1])] for windows, _ in rounds]
            p99s[kind] = float(np.percentile(np.concatenate(delays), 99) * 1000)
        calm = (p99s["calm"] + p99s["control"]) / 2
        return {
            "stall_others_p99_ratio": round(p99s["stalled"] / calm, 3), "stall_control_p99_ratio": round(p99s["control"] / p99s["calm"], 3),
            "stall_p99_ms": round(p99s["stalled"], 1), "stall_calm_p99_ms": round(calm, 1),
            "stall_lost": stage.lost(), "stall_doubled": stage.doubled(),
            "stall_cut_by_name": sum(cut for _, cut in rounds), "stall_rounds": len(rounds),
        }  # fmt: skip


SCENARIOS: dict[str, Callable[[bool], Any]] = {
    "kill": kill,
    "nats": nats,
    "stop": stop,
    "partition": partition,
    "lossy": lossy,
    "stall": stall,
    "nats_stall": nats_stall,
    "manager": manager,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SCENARIOS), help="scenarios, with commas between them")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    figures: dict[str, float] = {}
    for name in chosen.only.split(","):
        if name in ("nats", "nats_stall") and not shutil.which("nats-server"):
            sys.exit(f"{name} needs the Debian package nats-server")
        if name in ("partition", "lossy") and (os.geteuid() != 0 or not shutil.which("ip")):
            sys.exit(f"{name} needs root and the Debian package iproute2")
        found = SCENARIOS[name](chosen.quick)
        figures |= found
        print(*(f"{key:36} {value}" for key, value in found.items()), sep="\n", flush=True)
    if chosen.json:
        print(json.dumps({"figures": figures}))


if __name__ == "__main__":
    main()
