"""Pages of administrators: users, invitations, rules, reports, the audit log, the nodes."""

from datetime import date, datetime, timedelta
from typing import Final
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from starlette.responses import Response

from manager.accounts import AccountRole
from manager.calendar import FIRST_YEAR, LAST_YEAR
from manager.errors import Fields, RequestMalformed
from manager.policy import FEATURES as ALL_FEATURES
from manager.policy import Policy
from manager.reports import as_csv
from manager.site.forms import Form, whole_untrusted
from manager.site.meetings import FEATURES
from manager.site.visit import N_, Visit

ROLES: Final = {
    AccountRole.ORGANIZER: N_("Organizer"),
    AccountRole.EXTERNAL_ADMIN: N_("Administrator of organizers"),
    AccountRole.INTERNAL_ADMIN: N_("Administrator of everything"),
}
FACTORS: Final = ("optional", "administrators", "everyone")
SHOWN_DAYS: Final = 30


async def users(visit: Visit) -> Response:
    search = visit.request.query_params.get("search", "").strip()[:100]
    found = await visit.site.administration.accounts(visit.who, search)
    return visit.render("admin/users.html", users=found, search=search, roles=_roles(visit))


async def user(visit: Visit) -> Response:
    number = visit.number()
    if visit.posted:
        form = await visit.read_form()
        with form.judging("role", "active", "factor_required", "features"):
            await visit.site.administration.change_account(
                visit.who,
                number,
                role=form.text("role"),
                active=form.ticked("active"),
                factor_required=form.ticked("factor_required"),
                features_off=sorted(set(ALL_FEATURES) - set(form.all("features"))),
            )
            return visit.done(f"/admin/users/{number}", "saved")
    account = await visit.site.administration.account(visit.who, number)
    return visit.render("admin/user.html", user=account, roles=_roles(visit), features=_features(visit))


async def remove_factors(visit: Visit) -> Response:
    number = visit.number()
    await visit.site.administration.reset_factors(visit.who, number)
    return visit.done(f"/admin/users/{number}", "removed")


async def sign_out_user(visit: Visit) -> Response:
    number = visit.number()
    await visit.site.administration.end_logins(visit.who, number)
    return visit.done(f"/admin/users/{number}", "ended")


async def delete_user(visit: Visit) -> Response:
    await visit.site.administration.delete_account(visit.who, visit.number())
    return visit.done("/admin/users", "deleted")


async def invitations(visit: Visit) -> Response:
    if visit.posted:
        form = await visit.read_form()
        with form.judging("email", "name", "role", otherwise="email"):
            await visit.site.administration.invite(
                visit.who, form.text("email"), form.text("name"), form.text("role"), language=visit.language.code
            )
            return visit.done("/admin/invitations", "invited")
    return visit.render("admin/invitations.html", invited=await visit.site.administration.invitations(visit.who), roles=_roles(visit))


async def withdraw(visit: Visit) -> Response:
    await visit.site.administration.withdraw(visit.who, visit.number())
    return visit.done("/admin/invitations", "withdrawn")


async def policy(visit: Visit) -> Response:
    """What holds for everybody."""
    if visit.posted:
        form = await visit.read_form()
        with form.judging("second_factor", "idle_minutes", "absolute_hours", "password_days", "networks"):
            await visit.site.administration.set_policy(visit.who, policy_untrusted(form))
            return visit.done("/admin/policy", "saved")
    return visit.render("admin/policy.html", policy=await visit.site.administration.policy(visit.who), features=_features(visit))


async def reports(visit: Visit) -> Response:
    """Sessions of a time, by default the last month."""
    since, until = _span(visit)
    sessions = await visit.site.administration.sessions(visit.who, since.timestamp(), until.timestamp())
    last = until - timedelta(days=1)
    return visit.render(
        "admin/reports.html",
        sessions=sessions,
        attendances=sum(one.attendees for one in sessions),
        total=sum((one.ended_at or visit.site.clock()) - one.opened_at for one in sessions),
        since=since.date().isoformat(),
        until=last.date().isoformat(),
        query=urlencode({"since": since.date().isoformat(), "until": last.date().isoformat()}),
    )


async def reports_csv(visit: Visit) -> Response:
    """The same for a spreadsheet: UTC, ISO 8601, one line a session."""
    since, until = _span(visit)
    sessions = await visit.site.administration.sessions(visit.who, since.timestamp(), until.timestamp())
    headers = {"content-disposition": f'attachment; filename="parley-{since.date()}-{(until - timedelta(days=1)).date()}.csv"'}
    return Response(as_csv(sessions, visit.site.clock()), media_type="text/csv; charset=utf-8", headers=headers)


async def audit(visit: Visit) -> Response:
    before = visit.request.query_params.get("before", "")
    page = int(before) if before.isascii() and before.isdigit() and len(before) < 10 else None
    records = await visit.site.administration.audit(visit.who, page)
    older = records[-1].number if records and records[-1].number > 1 else 0
    names = {account.id: account.name for account in await visit.site.administration.accounts(visit.who, "")}
    return visit.render("admin/audit.html", records=records, names=names, older=older)


async def nodes(visit: Visit) -> Response:
    return visit.render("admin/nodes.html", nodes=visit.site.administration.nodes(visit.who))


def policy_untrusted(form: Form) -> Policy:
    """The rules, from what was typed. Raises `RequestMalformed` with the form's fields."""
    check, numbers = Fields(), {}
    for field, least, most in (("idle_minutes", 1, 43_200), ("absolute_hours", 1, 8_760), ("password_days", 0, 3_650)):
        with check(field):
            numbers[field] = whole_untrusted(form.text(field), least, most, N_("this number is too small, too large, or none"))
    with check("second_factor"):
        if form.text("second_factor") not in FACTORS:
            raise RequestMalformed(N_("choose one of the list"))
    check.finish()
    return Policy(
        sign_up=form.ticked("sign_up"),
        second_factor=form.text("second_factor"),  # type: ignore[arg-type]  # one of its words, as was just seen
        networks=form.raw("networks").split(),
        features_off=sorted(set(ALL_FEATURES) - set(form.all("features"))),
        **numbers,
    )


def _span(visit: Visit) -> tuple[datetime, datetime]:
    """From the first day's begin to the last one's end, in the reader's zone; what is no day is the default."""
    zone = ZoneInfo(visit.who.account.zone)
    today = datetime.fromtimestamp(visit.site.clock(), zone).date()
    days = {"since": today - timedelta(days=SHOWN_DAYS - 1), "until": today}
    for name in days:
        text = visit.request.query_params.get(name, "")
        if text:
            visit.form.values[name] = [text[:40]]
            try:
                days[name] = date.fromisoformat(text)
                if not FIRST_YEAR <= days[name].year < LAST_YEAR:
                    raise ValueError(text)
            except ValueError:
                days[name] = today
                visit.form.errors[name] = N_("a day looks like 2026-03-01")
    begin = datetime.combine(days["since"], datetime.min.time(), zone)
    return begin, max(begin, datetime.combine(days["until"], datetime.min.time(), zone)) + timedelta(days=1)


def _roles(visit: Visit) -> dict[str, str]:
    """Those that this administrator may give, in the reader's words."""
    every = visit.who.account.role is AccountRole.INTERNAL_ADMIN
    return {role.value: visit.say(said) for role, said in ROLES.items() if every or role is AccountRole.ORGANIZER}


def _features(visit: Visit) -> list[tuple[str, str]]:
    return [(feature, visit.say(FEATURES[feature])) for feature in ALL_FEATURES]
