"""Draws docs/session-log.md from the table of rules. `python tests/endpoint/session_log_page.py` writes it; a test compares."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from endpoint.log import Fields  # noqa: E402
from endpoint.rules import RULES, Signer  # noqa: E402

PAGE = ROOT / "docs" / "session-log.md"

INTRODUCTION = """# The session log

Who is here and who may do what is written in one log, by the organizer's program alone. Every entry is signed, numbered, and names the
hash of the one before; every member checks each entry against the same rules and comes to
the same state. Servers carry the log and cannot change it. Its bytes are in [protocol.md](protocol.md#the-session-log).

Rights follow from this state alone, at whoever receives: chat, input, screen and cursor of a member to whom the log does not allow it are
dropped by every receiver, counted, and shown with the member's name. A server's word, a ticket's role or a client's own belief count for
nothing.

This page is drawn from the table in `endpoint/rules.py` by `tests/endpoint/session_log_page.py`; a test holds it to the code.

## Who causes what

Members ask the organizer's program, by a message that only the two of them can make. It decides at once what is a rule (whoever presents
may lend its hands, each may leave and rename itself), and shows its person what is a wish (a raised hand, a wish to present). Then it
writes. So of two who claim the same thing at the same time one wins, everywhere the same one: whoever is written last.
"""

CHAIR = """
## How the chair passes

```mermaid
stateDiagram-v2
    [*] --> Olga: open
    Olga --> Olga: restart, hand-over to itself
    Olga --> Ana: hand-over, when Ana accepts
    Olga --> Ben: take-over by a successor, 60 s after the last heartbeat
    Ben --> Ben: yield, Olga is back and has seen it
    Ana --> [*]: end
    Ben --> [*]: end
```

- **Hand-over.** The organizer offers, with all that the chair needs (the password's verifier, the chain of organizers so far); the
  member's person accepts; the entry carries both signatures. From it on only the new key signs, the former one's entries are refused by
  everyone and its name is shown, and a fresh group key follows. It cannot be undone.
- **Newcomers** know the meeting's key, by the link or the ticket. They get the chain of hand-overs and take-overs since, and check every
  link of it.
- **Restart.** An organizer's program that died, the first one's or a later one's, comes back as a new participant with the same key, from
  a sealed file that is written before each entry is sent. It hands the chair over to itself. Rights, waiting room, admissions and key
  changes go on.
- **Take-over.** Successors are named in advance. When nothing has been heard of the organizer for 60 s, a successor's *person* may take
  over: never a program by itself, since a relay can feign silence. A member follows only if it has heard nothing for 60 s either.
- **Yield.** The former organizer, when it sees that, signs that it accepts. If it (or a member that heard it) has entries past that
  place, it joins anew: nothing is rolled back. If it had un-named that successor, it does not yield.
- **Two take-overs at one place**: the higher participant ID wins, here as at the relays.
- There is one organizer. There are no co-organizers: hand-over and successors serve.
"""


def node(text: str) -> str:
    return "c" + "".join(letter for letter in text.title() if letter.isalnum())


def page() -> str:
    kinds = [RULES[fields] for fields in Fields.__args__]
    lines = [INTRODUCTION, "```mermaid", "flowchart LR"]
    causes = dict.fromkeys(cause for rule in kinds for cause in rule.causes)
    lines += [f'    {node(cause)}(["{cause}"])' for cause in causes]
    lines += [f'    {node(rule.kind)}E["{rule.kind}"]' for rule in kinds]
    lines += [f"    {node(cause)} --> {node(rule.kind)}E" for rule in kinds for cause in rule.causes]
    lines += ["```", "", "| entry | caused by | signed by | what it does |", "|---|---|---|---|"]
    for rule in kinds:
        effect = " ".join((rule.effect.__doc__ or "").split())
        signer = "the organizer" if rule.signer is Signer.ORGANIZER else "the successor"
        lines.append(f"| {rule.kind} | {'; '.join(rule.causes)} | {signer} | {effect} |")
    return "\n".join(lines) + "\n" + CHAIR


if __name__ == "__main__":
    PAGE.write_text(page())
