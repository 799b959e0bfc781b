"""Pages for guests: the one that an invitation's link opens, and joining by a typed ID.

They say the same whatever the number, so a stranger learns nothing here. Whether a meeting is open is asked by the page's script: with the
invitation, as often as guests may ask; with the number alone, after some work of the browser and under the strangers' throttle.
"""

import re
from typing import Final

from starlette.exceptions import HTTPException
from starlette.responses import Response

from manager.site.pages import redirect
from manager.site.visit import N_, Visit
from wire.errors import MalformedMeetingId
from wire.ids import parse_meeting_id_untrusted

_NUMBER: Final = re.compile("[1-9][0-9]{8}", re.ASCII)
_INVITE: Final = re.compile("(?:[0-9a-f]{16})?", re.ASCII)


async def home(visit: Visit) -> Response:
    if visit.caller is not None:
        return redirect("/meetings")
    return visit.render("home.html", open_sign_up=(await visit.site.entrance.policy()).sign_up)


async def typed(visit: Visit) -> Response:
    """A typed ID, in any of the ways in which people write nine digits; or a whole link, if that was pasted."""
    text = visit.request.query_params.get("id")
    if text is not None:
        visit.form.values["id"] = [text[:200]]
        link = re.search(r"/j/([1-9][0-9]{8})(/[0-9a-f]{16})?(?:$|[/?#])", text)
        try:
            return redirect(f"/j/{link[1]}{link[2] or ''}" if link else f"/j/{parse_meeting_id_untrusted(text)}")
        except MalformedMeetingId:
            visit.form.errors["id"] = N_("a meeting ID has nine digits, the first one not 0")
    return visit.render("join_typed.html")


async def invitation(visit: Visit) -> Response:
    """The page of a link."""
    number, invite = visit.request.path_params["number"], visit.request.path_params.get("invite", "")
    if not _NUMBER.fullmatch(number) or not _INVITE.fullmatch(invite):
        raise HTTPException(404)
    return visit.render("join.html", number=int(number), invite=invite)
