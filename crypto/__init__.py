"""The end-to-end layer: bytes in, bytes out.

Knows neither sockets, nor tasks, nor a clock: where time matters, `now` (seconds, monotonic) is an argument. Only
`endpoint/` may import it; what cannot import this package cannot read a meeting.

    suite      the one frozen suite: group, sizes, labels, framing
    errors     every refusal by name
    srp        guest and organizer agree on keys from the password
    schedule   group keys, pair keys and key-encrypting keys become stream keys
    seal       one stream's packets: AES-128-CTR, then HMAC-SHA1
    replay     which counters may come next
    signing    who sent it (Ed25519), pair secrets (X25519), what a signature covers
    keyring    which keys are open, for which packets, how long
"""
