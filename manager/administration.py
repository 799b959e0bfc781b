"""What administrators do: accounts, invitations, policy, reports, the audit log, the nodes. Rules and mail, joined. No HTTP.

An internal administrator rules everybody; an external one rules organizers, and sees neither policy nor audit log nor nodes. Each act is
written into the audit log in the transaction that does it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from manager import accounts, audit, factors, links, policy, reports, signin
from manager.accounts import Account, AccountRole
from manager.audit import Record
from manager.callers import Caller, Scope
from manager.desk import Desk
from manager.errors import AccountExists, Fields, LinkWorthless, NotPermitted, RequestMalformed
from manager.hidden import Hidden
from manager.letters import account_letter
from manager.links import Link, Purpose
from manager.mail import Mail
from manager.nodes import NodeHealth
from manager.policy import Policy
from manager.reports import SessionReport
from manager.store import Store


@dataclass(frozen=True, slots=True)
class AuditState:
    """`records`: how many; `head`: the digest of the last, in hex. Note both elsewhere."""

    records: int
    head: str


class Administration:
    """Made once. `site`: https://HOST[:PORT], where the pages are. `clock`: seconds since 1970."""

    def __init__(self, store: Store, desk: Desk, mail: Mail, site: str, clock: Callable[[], float]) -> None:
        self._store = store
        self._desk = desk
        self._mail = mail
        self._site = site
        self._clock = clock

    # accounts

    async def accounts(self, caller: Caller, search: str = "") -> list[Account]:
        """Those whom the caller may rule, by name. `search`: a part of name or e-mail."""
        caller.require(Scope.ADMIN_READ, administrator=True)
        return await self._store.read(accounts.list_accounts, caller.account, search)

    async def account(self, caller: Caller, number: int) -> Account:
        """Raises `AccountUnknown`."""
        caller.require(Scope.ADMIN_READ, administrator=True)
        return await self._store.look(accounts.ruled, caller.account, number)

    async def change_account(
        self,
        caller: Caller,
        number: int,
        *,
        role: str | None = None,
        active: bool | None = None,
        features_off: list[str] | None = None,
        factor_required: bool | None = None,
    ) -> Account:
        """Change what is given. Raises `AccountUnknown`, `NotPermitted`, `LastAdministrator`, `RequestMalformed` (its fields)."""
        caller.require(Scope.ADMIN_WRITE, administrator=True)
        chosen = None if role is None else _role(role)
        changes = {"role": chosen, "active": active, "features_off": features_off, "factor_required": factor_required}
        return await self._store.write(_change, caller, number, changes, self._clock())

    async def reset_factors(self, caller: Caller, number: int) -> None:
        """Take every second factor away, for who lost them all, and end all sign-ins. Raises `AccountUnknown`."""
        caller.require(Scope.ADMIN_WRITE, administrator=True)
        await self._store.write(_reset_factors, caller, number, self._clock())

    async def end_logins(self, caller: Caller, number: int) -> int:
        """Sign an account out everywhere; how many sign-ins ended. Raises `AccountUnknown`."""
        caller.require(Scope.ADMIN_WRITE, administrator=True)
        return await self._store.write(_end_logins, caller, number, self._clock())

    async def delete_account(self, caller: Caller, number: int) -> None:
        """Its running meetings end, the others are cancelled. Raises `AccountUnknown`, `LastAdministrator`."""
        caller.require(Scope.ADMIN_WRITE, administrator=True)
        await self._desk.delete_account(caller, number, rules=True)

    # invitations

    async def invitations(self, caller: Caller) -> list[Link]:
        """Those that nobody has taken up yet, the newest first."""
        caller.require(Scope.ADMIN_READ, administrator=True)
        found = await self._store.read(links.invited, self._clock())
        return [link for link in found if _may_invite(caller.account, link.role)]

    async def invite(self, caller: Caller, email: str, name: str = "", role: str = "organizer", *, language: str = "en") -> Link:
        """A letter with a one-time link goes to the address. Raises `AccountExists`, `NotPermitted`, `RequestMalformed` (its fields)."""
        caller.require(Scope.ADMIN_WRITE, administrator=True)
        check = Fields()
        with check("email"):
            email = accounts.clean_email(email)
        with check("name"):
            name = accounts.clean_name(name) if name.strip() else ""
        with check("language"):
            language = accounts.clean_language(language)
        with check("role"):
            chosen = _role(role)
        check.finish()
        link, bits = await self._store.write(_invite, caller, email, name, chosen, self._clock())
        address = links.address_of(self._site, Purpose.INVITE, bits)
        self._mail.post(account_letter(Purpose.INVITE, language, email, site=self._site, link=address, name=name))
        return link

    async def withdraw(self, caller: Caller, invitation: int) -> None:
        """Void an invitation. Raises `LinkWorthless` if there is none."""
        caller.require(Scope.ADMIN_WRITE, administrator=True)
        await self._store.write(_withdraw, caller, invitation, self._clock())

    # what holds for all

    async def policy(self, caller: Caller) -> Policy:
        caller.require(Scope.ADMIN_READ, internal=True)
        return await self._store.look(policy.policy_of)

    async def set_policy(self, caller: Caller, new: Policy) -> Policy:
        """It holds at once. Raises `RequestMalformed`, also for networks that would lock out the caller (`networks`)."""
        caller.require(Scope.ADMIN_WRITE, internal=True)
        checked = policy.check_policy(new)
        if caller.login is not None and not checked.allows(caller.address):
            raise RequestMalformed(fields={"networks": "your own address is not in these networks; you would lock yourself out"})
        return await self._store.write(_set_policy, caller, checked, self._clock())

    async def sessions(self, caller: Caller, begin: float, end: float) -> list[SessionReport]:
        """Every session that was opened in [begin, end), seconds since 1970, the newest first. `reports.as_csv` makes a table of it."""
        caller.require(Scope.ADMIN_READ, administrator=True)
        return await self._store.read(reports.session_reports, begin, end)

    async def audit(self, caller: Caller, before: int | None = None) -> list[Record]:
        """A page of the audit log, the newest first; `before`: records with lower numbers alone."""
        caller.require(Scope.ADMIN_READ, internal=True)
        return await self._store.look(audit.records, before)

    async def verify_audit(self, caller: Caller) -> AuditState:
        """Recompute the whole chain. Raises `AuditBroken`."""
        caller.require(Scope.ADMIN_READ, internal=True)
        return await self._store.read(_audit_state)

    def nodes(self, caller: Caller) -> list[NodeHealth]:
        """The overlay's nodes with their health."""
        caller.require(Scope.ADMIN_READ, internal=True)
        return self._desk.nodes()


def _role(role: str) -> AccountRole:
    try:
        return AccountRole(role)
    except ValueError:
        raise RequestMalformed(fields={"role": f"roles are {', '.join(AccountRole)}"}) from None


def _may_invite(by: Account, role: AccountRole) -> bool:
    return by.role is AccountRole.INTERNAL_ADMIN or role is AccountRole.ORGANIZER


def _change(db: Connection, caller: Caller, number: int, changes: dict[str, Any], now: float) -> Account:
    before = accounts.ruled(db, caller.account, number)
    role = changes["role"]
    if role is not None and not _may_invite(caller.account, role):
        raise NotPermitted
    after = accounts.change(db, number, **changes)
    said = [f"{name} {getattr(after, name)}" for name in ("role", "active") if getattr(after, name) != getattr(before, name)]
    if after.features_off != before.features_off:
        said.append(f"features off: {' '.join(sorted(after.features_off)) or 'none'}")
    if after.factor_required_here != before.factor_required_here:
        said.append(f"factor required: {after.factor_required_here}")
    if said:
        audit.record(db, caller.by, "account-changed", f"account {number}", now, "; ".join(said))
    return after


def _reset_factors(db: Connection, caller: Caller, number: int, now: float) -> None:
    accounts.ruled(db, caller.account, number)
    factors.reset(db, number)
    signin.end_all(db, number)
    audit.record(db, caller.by, "factors-reset", f"account {number}", now)


def _end_logins(db: Connection, caller: Caller, number: int, now: float) -> int:
    accounts.ruled(db, caller.account, number)
    ended = signin.end_all(db, number)
    audit.record(db, caller.by, "sign-in-revoked", f"account {number}", now, f"all {ended}")
    return ended


def _invite(db: Connection, caller: Caller, email: str, name: str, role: AccountRole, now: float) -> tuple[Link, Hidden]:
    if not _may_invite(caller.account, role):
        raise NotPermitted
    if accounts.account_by_email(db, email) is not None:
        raise AccountExists
    bits = links.make_link(db, Purpose.INVITE, email, now, name=name, role=role)
    link = links.find_link(db, bits, now)
    audit.record(db, caller.by, "account-invited", f"invitation {link.id}", now, role)
    return link, bits


def _withdraw(db: Connection, caller: Caller, invitation: int, now: float) -> None:
    link = links.withdraw(db, invitation)
    if link is None or not _may_invite(caller.account, link.role):
        raise LinkWorthless
    audit.record(db, caller.by, "invitation-withdrawn", f"invitation {invitation}", now)


def _set_policy(db: Connection, caller: Caller, new: Policy, now: float) -> Policy:
    before = policy.policy_of(db)
    after = policy.set_policy(db, new)
    said = [f"{name} {getattr(after, name)}" for name in Policy.__struct_fields__ if getattr(after, name) != getattr(before, name)]
    if said:
        audit.record(db, caller.by, "policy-changed", "policy", now, "; ".join(said))
    return after


def _audit_state(db: Connection) -> AuditState:
    records = audit.verify(db)
    return AuditState(records, audit.head(db)[1].hex())
