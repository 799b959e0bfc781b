"""Calls of administrators."""

from manager import api_types as t
from manager.callers import Scope
from manager.operations.said import account_shown, invitation_shown, node_shown, report_shown
from manager.operations.table import Call, Text, operation
from manager.policy import Policy
from manager.reports import as_csv

SEE, RULE = Scope.ADMIN_READ, Scope.ADMIN_WRITE


@operation("GET", "/admin/accounts", "The accounts that one may rule, by name.", gives=t.AccountList, scope=SEE, query=("search",))
async def list_accounts(call: Call) -> object:
    found = await call.house.administration.accounts(call.caller, call.words.get("search", ""))
    return t.AccountList([account_shown(account) for account in found])


@operation("GET", "/admin/accounts/{number}", "One account.", gives=t.AccountShown, scope=SEE)
async def show_account(call: Call) -> object:
    return account_shown(await call.house.administration.account(call.caller, call.number))


@operation(
    "PATCH", "/admin/accounts/{number}", "Change role, life, features or the demand for a second factor.", takes=t.ChangeAccount,
    gives=t.AccountShown, scope=RULE, example={"features_off": ["remote-control"]},
)  # fmt: skip
async def change_account(call: Call) -> object:
    body: t.ChangeAccount = call.body
    changed = await call.house.administration.change_account(
        call.caller, call.number, role=body.role, active=body.active, features_off=body.features_off, factor_required=body.factor_required
    )
    return account_shown(changed)


@operation("DELETE", "/admin/accounts/{number}", "Delete an account.", scope=RULE)
async def delete_account(call: Call) -> object:
    await call.house.administration.delete_account(call.caller, call.number)
    return t.Done()


@operation("POST", "/admin/accounts/{number}/reset-factors", "Take all second factors away, for who lost them.", scope=RULE)
async def reset_factors(call: Call) -> object:
    await call.house.administration.reset_factors(call.caller, call.number)
    return t.Done()


@operation("POST", "/admin/accounts/{number}/sign-out", "End all sign-ins of an account.", gives=t.Ended, scope=RULE)
async def sign_account_out(call: Call) -> object:
    return t.Ended(await call.house.administration.end_logins(call.caller, call.number))


@operation("GET", "/admin/invitations", "Invitations that nobody has taken up yet.", gives=t.InvitationList, scope=SEE)
async def list_invitations(call: Call) -> object:
    return t.InvitationList([invitation_shown(link) for link in await call.house.administration.invitations(call.caller)])


@operation(
    "POST", "/admin/invitations", "Invite somebody to an account, by letter.", takes=t.Invite, gives=t.InvitationShown, status=201,
    scope=RULE, replays=True, example={"email": "bob@example.org", "name": "Bob", "role": "organizer", "language": "en"},
)  # fmt: skip
async def invite_account(call: Call) -> object:
    body: t.Invite = call.body
    return invitation_shown(await call.house.administration.invite(call.caller, body.email, body.name, body.role, language=body.language))


@operation("DELETE", "/admin/invitations/{number}", "Void an invitation.", scope=RULE)
async def withdraw_invitation(call: Call) -> object:
    await call.house.administration.withdraw(call.caller, call.number)
    return t.Done()


@operation("GET", "/admin/policy", "What holds for everybody.", gives=Policy, scope=SEE)
async def show_policy(call: Call) -> object:
    return await call.house.administration.policy(call.caller)


@operation(
    "PUT",
    "/admin/policy",
    "Change what holds for everybody.",
    takes=Policy,
    gives=Policy,
    scope=RULE,
    example={"second_factor": "administrators"},
)
async def set_policy(call: Call) -> object:
    return await call.house.administration.set_policy(call.caller, call.body)


@operation(
    "GET",
    "/admin/sessions",
    "All sessions: attendance and duration, as JSON or CSV.",
    gives=t.SessionList,
    scope=SEE,
    query=("from", "to", "format"),
)
async def all_sessions(call: Call) -> object:
    found = await call.house.administration.sessions(call.caller, *call.period)
    if call.words.get("format") == "csv":
        return Text(as_csv(found, call.now).encode(), "text/csv; charset=utf-8", "parley-sessions.csv")
    return t.SessionList([report_shown(made, call.now) for made in found])


@operation("GET", "/admin/audit", "The audit log, the newest first, 100 records at most.", gives=t.RecordList, scope=SEE, query=("before",))
async def read_audit(call: Call) -> object:
    before = call.words.get("before")
    records = await call.house.administration.audit(call.caller, None if before is None else int(before))
    shown = [t.RecordShown(r.number, r.at, r.account, r.address, r.act, r.subject, r.detail, r.digest.hex()) for r in records]
    return t.RecordList(shown)


@operation("GET", "/admin/audit/head", "Recompute the whole chain; what to note of it elsewhere.", gives=t.AuditVerified, scope=SEE)
async def verify_audit(call: Call) -> object:
    state = await call.house.administration.verify_audit(call.caller)
    return t.AuditVerified(state.records, state.head)


@operation("GET", "/admin/nodes", "The overlay's relays, with their health.", gives=t.NodeList, scope=SEE)
async def list_nodes(call: Call) -> object:
    return t.NodeList([node_shown(node) for node in call.house.administration.nodes(call.caller)])
