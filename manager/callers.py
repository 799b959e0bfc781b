"""Who asks: an account, from where, and what it may do here. No store, no HTTP.

A caller comes from a browser's cookie (everything that the account may, once all steps of signing in are done) or from an API key (the
scopes it was made with). Every rule for callers begins with `require`.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from manager.accounts import Account
from manager.audit import By
from manager.errors import NotPermitted, ScopeMissing, SignInNeeded, StepMissing


class Scope(StrEnum):
    """What an API key may do."""

    MEETINGS_READ = "meetings:read"
    MEETINGS_WRITE = "meetings:write"
    HOST = "host"
    """Open and end meetings, remove participants."""
    ACCOUNT_READ = "account:read"
    ACCOUNT_WRITE = "account:write"
    ADMIN_READ = "admin:read"
    ADMIN_WRITE = "admin:write"


ALL_SCOPES: Final = frozenset(Scope)
ORGANIZER_SCOPES: Final = frozenset({Scope.MEETINGS_READ, Scope.MEETINGS_WRITE, Scope.HOST})


class Stage(StrEnum):
    """Of a sign-in: what is due next."""

    FACTOR = "factor"
    """A code, a passkey or a recovery code."""
    ENROL = "enrol"
    """A second factor must be set up: it is enforced, and there is none."""
    PASSWORD = "password"
    """A new password must be chosen: the old one is too old."""
    COMPLETE = "complete"


@dataclass(frozen=True, slots=True)
class Login:
    """One sign-in of a browser. Times in seconds since 1970; `proved_at`: when the person last showed password and factor."""

    id: int
    stage: Stage
    created_at: float
    used_at: float
    proved_at: float
    address: str
    agent: str
    csrf: str = field(default="", repr=False)
    """A word that only pages of this sign-in know, 64 hex digits; "" in lists."""


@dataclass(frozen=True, slots=True)
class Caller:
    """`login`: of a browser; None for an API key."""

    account: Account
    address: str
    scopes: frozenset[Scope]
    login: Login | None = None

    @property
    def by(self) -> By:
        return By(self.account.id, self.address)

    def require(self, scope: Scope, *, administrator: bool = False, internal: bool = False) -> None:
        """Raises `StepMissing`, `ScopeMissing`, `NotPermitted`."""
        if self.login is not None and self.login.stage is not Stage.COMPLETE:
            raise StepMissing(self.login.stage)
        if scope not in self.scopes:
            raise ScopeMissing(scope)
        if (administrator or internal) and not self.account.role.administers:
            raise NotPermitted
        if internal and self.account.role != "internal-admin":
            raise NotPermitted

    def at(self, *stages: Stage) -> Login:
        """The sign-in, if it is at one of these stages. Raises `StepMissing`, `SignInNeeded` for an API key."""
        if self.login is None:
            raise SignInNeeded
        if self.login.stage not in stages:
            raise StepMissing(self.login.stage)
        return self.login
