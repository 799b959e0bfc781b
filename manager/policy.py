"""What administrators decide for everybody, and which features there are. Rules over the store; no HTTP.

A *feature* is something that a meeting may offer. It is on unless the policy turns it off for all, or an administrator for one account, or
the organizer for one meeting: each can take away, none can give back what a floor above took. What is left goes into the tickets, and the
organizer's endpoint enforces it: chat and control are between members, end to end, so no server could.
"""

import json
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta
from sqlalchemy import Connection, select

from manager.errors import Fields, RequestMalformed
from manager.store import policies

FEATURES: Final = ("chat", "whisper", "screen", "remote-control", "files", "voice", "recording")
"""Those to come are here already, so that what is turned off stays off when they arrive."""
MAX_NETWORKS: Final = 64
_NAME: Final = "policy"


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The defaults are what a fresh installation does."""

    sign_up: bool = False
    """Whether strangers may make an account, with a confirmed e-mail address; else by invitation alone."""
    second_factor: Literal["optional", "administrators", "everyone"] = "optional"
    """Who must have a second factor."""
    idle_minutes: Annotated[int, Meta(ge=1, le=43_200)] = 120
    """A sign-in ends when it was not used for so long,"""
    absolute_hours: Annotated[int, Meta(ge=1, le=8_760)] = 168
    """and in any case so long after it began."""
    password_days: Annotated[int, Meta(ge=0, le=3_650)] = 0
    """Age at which a password must be changed; 0: never."""
    networks: Annotated[list[str], Meta(max_length=MAX_NETWORKS)] = []
    """From where people may sign in, such as 192.0.2.0/24; empty: from anywhere."""
    features_off: Annotated[list[str], Meta(max_length=len(FEATURES))] = []
    """Features that nobody has."""

    def allows(self, address: str) -> bool:
        """Whether people may sign in from there."""
        if not self.networks:
            return True
        try:
            ip = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(ip, "ipv4_mapped", None)
        return any((mapped or ip) in ip_network(network) for network in self.networks)

    def features(self, off: frozenset[str] = frozenset()) -> frozenset[str]:
        """What is left when these are off besides."""
        return frozenset(FEATURES) - frozenset(self.features_off) - off


def check_policy(policy: Policy) -> Policy:
    """The policy in normal form. Raises `RequestMalformed` with its fields."""
    check = Fields()
    with check("networks"):
        policy = msgspec.structs.replace(policy, networks=[_network(text) for text in policy.networks])
    with check("features_off"):
        policy = msgspec.structs.replace(policy, features_off=sorted(check_features(policy.features_off)))
    check.finish()
    return policy


def check_features(names: list[str]) -> frozenset[str]:
    """Raises `RequestMalformed` for a feature that is none."""
    if not set(names) <= set(FEATURES):
        raise RequestMalformed(f"features are {', '.join(FEATURES)}")
    return frozenset(names)


def _network(text: str) -> str:
    try:
        return str(ip_network(text.strip(), strict=False))
    except ValueError:
        raise RequestMalformed("a network looks like 192.0.2.0/24 or 2001:db8::/32") from None


def policy_of(db: Connection) -> Policy:
    """The one that holds now."""
    return read_policy(db.execute(select(policies.c.value).where(policies.c.name == _NAME)).scalar_one_or_none())


def set_policy(db: Connection, policy: Policy) -> Policy:
    """It holds from now on. Raises `RequestMalformed`."""
    policy = check_policy(policy)
    value = msgspec.json.encode(policy).decode()
    if db.execute(policies.update().where(policies.c.name == _NAME).values(value=value)).rowcount == 0:
        db.execute(policies.insert().values(name=_NAME, value=value))
    return policy


@lru_cache(maxsize=16)
def read_policy(value: str | None) -> Policy:
    """From the table's text; what later versions added to it is passed over."""
    if value is None:
        return Policy()
    known = {name: content for name, content in json.loads(value).items() if name in Policy.__struct_fields__}
    return msgspec.convert(known, Policy)
