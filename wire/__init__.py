"""Names, frames and messages of the protocol: bytes in, bytes out. No socket, no key, no clock.

`ids` names things, `frame` cuts a byte stream into frames, `packet` is what a relay may read of a sealed packet, `control` the typed
messages beside packets, `have` what a reader has of each stream, `link` a link's life, `errors` every way in which it can go wrong.
"""
