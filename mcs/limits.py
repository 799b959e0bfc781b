"""Every bound of a relay in one place. Bytes and seconds, unless a name says otherwise."""

from typing import Final

MIB: Final = 1 << 20

# --- how many ---
MAX_SESSIONS: Final = 4096
"""Sessions that a node knows of."""
MAX_GRANTS: Final = 20_000
"""Grants of one session; as many tombstones and admissions."""
MAX_STREAMS: Final = 100_000
"""Streams of one session: one unicast stream of the organizer per participant, and what people say."""
MAX_LINKS: Final = 10_000
"""Links of endpoints at one node."""
LINKS_PER_PARTICIPANT: Final = 2
MAX_PENDING: Final = 1024
"""Links that have not said who they are yet."""
MAX_HAVE_PARTS: Final = 128
"""Parts of one have-vector."""

# --- how long packets are kept ---
KEEP_FOR: Final = 120.0
"""Age at which channels 0–4 go; also how long an ended session stays readable."""
SENDER_BYTES: Final = MIB
"""Of channels 0–4 per sender. Beyond it the oldest go once every linked reader has passed them; until then the sender waits."""
OFFICE_BYTES: Final = 64 * MIB
"""Of the organizer's channels 0 and 1, which never wait."""
READER_PATIENCE: Final = 5.0
"""How long a sender waits for a reader that is behind; the reader is cut afterwards."""
FILE_BYTES: Final = 16 * MIB
"""Of channel 8 per session."""
SCREEN_BYTES: Final = 4 * MIB
"""Of channel 5 per session. A reader that is further behind skips."""
SNAPSHOT_BYTES: Final = 32 * MIB
"""Of one snapshot."""
LATEST_STREAMS: Final = 1024
"""Streams of one *latest* channel; the longest unmoved goes."""

# --- how fast ---
FLOOD_RATE: Final = 16 * MIB
FLOOD_BURST: Final = 64 * MIB
"""What a participant's links may send, per second and at once, before it counts as a flood."""
ITEM_COST: Final = 2048
"""Bytes that any frame counts for at least: a small one costs as much time, and 8,000 a second are a tenth of a core."""
PACE: Final = 40_000.0
"""Frames a second that are read of one link, until it counts as a flood: less than half a core. Others do not notice."""
CLEAR_SIZE: Final = 8 * 1024
"""Of one clear (handshake) packet."""
CLEAR_RATE: Final = 8.0
CLEAR_BURST: Final = 64.0
"""Handshake packets per second and at once of one participant's link."""
OFFICE_CLEAR_RATE: Final = 2000.0
OFFICE_CLEAR_BURST: Final = 4000.0
"""The same of the office's link and of a node's."""
DIRECT_BYTES: Final = MIB
"""Handshake packets that wait for one link; endpoints repeat what is dropped."""

NODE_OUTBOX: Final = 64 * MIB
"""Messages that wait for another node: after an absence it is told everything."""

# --- fan-out ---
SEGMENT: Final = 16_384
"""What goes to all level readers at once: one TLS record."""
BURST: Final = 8
"""Segments that one link is written before the next has its turn; fewer than `TRAIL_BYTES` holds."""
TRAIL_BYTES: Final = 512 * 1024
"""Segments that are kept for readers whose socket is full for a moment. Who is further behind reads the log by itself, and skips."""
HOLD: Final = 0.003
"""So long may a packet for all wait for others; and one write to all in so long need not wait."""
WRITES: Final = 16.0
"""Writes to all that need not wait, at once."""

# --- slow readers ---
OWED_BYTES: Final = 4 * MIB
OWED_FOR: Final = 5.0
"""So many live bytes of channels 0–4, owed for so long, close the link."""

# --- rhythm ---
COALESCE: Final = 0.05
"""`Taken` and `Presence` wait so long for company."""
TICK: Final = 1.0
NEW_WAYS_AFTER: Final = 0.1
"""Links between nodes that come up within this time change a session's tree together. One that is lost changes it at once."""
ANSWER_WITHIN: Final = 0.25
"""A neighbour that has not brought within this time what it was asked for keeps the next one waiting no longer."""
AWAY_AFTER: Final = 0.3
"""Who has no link any more may come back by another way for so long, before that is told."""
ECHO_FOR: Final = 1.0
"""A handshake packet that comes from a node again within this time has run in a circle; endpoints repeat theirs after 2 s."""
LOAD_EVERY: Final = 2.0
STATUS_EVERY: Final = 60.0
WANT_EVERY: Final = 0.25
"""Between two wants of one session to its presenter."""
WANT_AGAIN: Final = 2.0
"""After which an unanswered want is said again."""
ASK_AGAIN: Final = 1.0
"""Between two have-vectors to one node because of gaps."""
LOST_AFTER: Final = 5.0
"""A gap that no node has filled for so long counts as lost."""
SUCCESSOR_AFTER: Final = 60.0
"""Without a link of the office's holder, a listed successor may take it."""

# --- ends ---
END_GRACE: Final = 0.5
"""After the end the last entries may still be on their way from another node."""
END_WITHIN: Final = 2.0
"""After which the links of an ended session close, whatever they are owed."""
IDLE_LOG: Final = 180.0
"""A session without links: its packets are forgotten."""
IDLE_SESSION: Final = 86_400.0
"""A session without links and news: all of it is forgotten."""
ENDED_SESSION: Final = 600.0
"""After the end: all of it is forgotten."""

# --- dialling ---
DIAL_WITHIN: Final = 5.0
BACK_OFF: Final = (0.1, 2.0)
"""The first and the longest pause between two attempts."""
