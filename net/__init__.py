"""The only place where sockets and TLS are.

pki         the cluster's own CA: who is a server, and of which kind
tls         the one TLS configuration, and every way in which a handshake is refused
stream      a trio stream over pyOpenSSL on the non-blocking socket
listener    one port for every kind of caller: probe, frames, HTTP
dial        the race over addresses; probes
connection  a stream and a `wire.link.Link` in one nursery: they live and die together
http        an ASGI application behind the same TLS
tap         a diagnostic: every byte that a server sees
process     what all programs share: logging, dying with their parent, exit codes
"""
