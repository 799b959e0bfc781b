"""The relay (multipoint communication server): it forwards sealed packets and cannot open them.

`admission` decides what a link may do, `log` holds a session's packets, `fanout` says what each reader gets next, `session` is one
session at this node, `relay` a packet's way through the node, `overlay` which nodes get what, `links` translates between connections
and the relay, `node` wires it to sockets. Everything but `links` and `node` is synchronous and without I/O.
"""
