"""The whole layer in one walk: a join by password, a wrapped group key, chat to all, a ratchet, a whisper, a leave."""

import secrets

import pytest

from crypto import errors
from crypto.keyring import LEAVE_GRACE, Keyring
from crypto.replay import StrictlyNext
from crypto.schedule import group_key_digest, new_group_key, pair_prk, transcript_hash
from crypto.signing import ExchangeKey, MessageHash, SigningKey, verify
from crypto.srp import Guest, Host, make_verifier
from crypto.suite import LABEL_SIGNATURE, SIGNATURE_SIZE

SESSION, ORGANIZER, ANN = 0x1122334455667788, 1, 2


def header(channel: int, sender: int, recipient: int, epoch: int, counter: int) -> bytes:
    head = bytes((0x11, 0, channel, 0)) + SESSION.to_bytes(8, "big")
    return head + b"".join(field.to_bytes(4, "big") for field in (sender, recipient, epoch)) + counter.to_bytes(8, "big")


def send(ring: Keyring, me: int, recipient: int, channel: int, plaintext: bytes) -> bytes:
    epoch, sealer = ring.sealer(recipient, channel)
    counter = sealer.last + 1
    return sealer.seal(header(channel, me, recipient, epoch, counter), counter, plaintext)


def receive(ring: Keyring, packet: bytes, replay: StrictlyNext, now: float) -> bytes:
    sender, recipient, epoch = (int.from_bytes(packet[at : at + 4], "big") for at in (12, 16, 20))
    counter = int.from_bytes(packet[24:32], "big")
    opener = ring.opener(sender, recipient, packet[2], epoch, now)
    opener.verify(packet)
    replay.check(counter)
    plaintext = opener.decrypt(packet, counter)
    replay.accept(counter)
    return plaintext


def test_G27_the_key_from_the_password_wraps_the_group_key_as_a_channel_0_packet() -> None:
    secret = secrets.token_bytes(32)
    verifier = make_verifier(SESSION, secret, "correct horse battery staple")
    host, guest = Host(verifier), Guest(SESSION, secret, "correct horse battery staple")
    th = transcript_hash(b"message 1" + guest.public, b"message 2" + verifier.salt + host.public)
    host.verify(guest.public, th, guest.prove(verifier.salt, host.public, th))
    assert host.open_name(guest.seal_name("Ann Ó".encode())).decode() == "Ann Ó"
    guest.check(host.prove())

    organizer, ann = Keyring(SESSION, ORGANIZER), Keyring(SESSION, ANN)
    group_key = new_group_key()
    organizer.install(1, group_key, 0.0)
    organizer.advance(1, 0.0)
    organizer.set_key_channel(ANN, host.keys.kek)
    ann.set_key_channel(ORGANIZER, guest.keys.kek)
    unwrapped = receive(ann, send(organizer, ORGANIZER, ANN, 0, group_key), StrictlyNext(), 0.0)
    assert group_key_digest(unwrapped) == group_key_digest(group_key)
    ann.install(1, unwrapped, 0.0)
    ann.advance(1, 0.0)

    # chat to all, signed
    identity, chat = SigningKey.generate(), StrictlyNext()
    message = MessageHash()
    message.update(header(2, ANN, 0, 1, 0), b"hello")
    packet = send(ann, ANN, 0, 2, identity.sign(LABEL_SIGNATURE, message.digest()) + b"hello")
    plaintext = receive(organizer, packet, chat, 1.0)
    verify(identity.public, plaintext[:SIGNATURE_SIZE], LABEL_SIGNATURE, message.digest())
    assert plaintext[SIGNATURE_SIZE:] == b"hello"

    # the next epoch: counters go on, the packet before still opens nowhere twice
    assert organizer.ratchet_to(2, 2.0) == ann.ratchet_to(2, 2.0)
    assert receive(organizer, send(ann, ANN, 0, 2, b"again"), chat, 3.0) == b"again"
    assert chat.last == 1
    with pytest.raises(errors.Replayed):
        receive(organizer, packet, chat, 3.0)

    # a whisper, then a leave
    keys = {ORGANIZER: ExchangeKey.generate(), ANN: ExchangeKey.generate()}
    public = {name: key.public for name, key in keys.items()}
    for ring, me, peer in ((organizer, ORGANIZER, ANN), (ann, ANN, ORGANIZER)):
        ring.set_pair(peer, pair_prk(SESSION, me, public[me], peer, public[peer], keys[me].shared(public[peer])))
    whispers = StrictlyNext()
    assert receive(organizer, send(ann, ANN, ORGANIZER, 3, b"psst"), whispers, 4.0) == b"psst"
    late = send(ann, ANN, ORGANIZER, 3, b"bye")
    organizer.drop_peer(ANN, 5.0, LEAVE_GRACE)
    assert receive(organizer, late, whispers, 184.9) == b"bye"
    with pytest.raises(errors.EpochClosed):
        receive(organizer, late, whispers, 185.0)

    organizer.forget()
    with pytest.raises(errors.EpochClosed):
        organizer.sealer(0, 2)
