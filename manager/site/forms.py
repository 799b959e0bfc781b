"""What a person typed into a form, and what is wrong with it.

A form is never answered with less than it was sent: whatever is refused comes back filled in, with a sentence beside each field. Passwords
and codes alone are not sent back to the browser.
"""

from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from typing import Final
from urllib.parse import parse_qsl

import trio
from starlette.requests import Request

from manager.errors import ProofNeeded, Refusal, RequestMalformed

MAX_BODY: Final = 64 * 1024
"""Bytes."""
MAX_FIELDS: Final = 200
SECRETS: Final = frozenset({"answer", "code", "current", "new", "password", "token"})
"""Names of the fields that no page brings back."""
BODY_WITHIN: Final = 10.0
"""Seconds for a whole body."""


class FormTooLarge(Refusal):
    name = "form-too-large"
    sentence = "This form has more in it than the site takes; shorten what you typed."


class FormUnreadable(Refusal):
    name = "form-unreadable"
    sentence = "This is no form of this site; go back, reload the page and try again."


class Form:
    """Fields as text, the last one of a name; `errors` by field, "" is the whole form's. Both are shown, so `repr` hides them."""

    __slots__ = ("errors", "retry_after", "values")

    def __init__(self, values: dict[str, list[str]] | None = None) -> None:
        self.values: Final = values or {}
        self.errors: dict[str, str] = {}
        self.retry_after: float | None = None

    def __repr__(self) -> str:
        return f"Form({sorted(self.values)}, wrong={sorted(self.errors)})"

    def text(self, field: str) -> str:
        """What was typed, without space around it; "" if nothing was."""
        return self.raw(field).strip()

    def raw(self, field: str) -> str:
        """What was typed, as it is: for passwords, where a space counts."""
        return self.values.get(field, [""])[-1]

    def all(self, field: str) -> list[str]:
        """Of boxes that can be ticked together."""
        return self.values.get(field, [])

    def ticked(self, field: str) -> bool:
        return bool(self.values.get(field))

    @property
    def kept(self) -> list[tuple[str, str]]:
        """Names and texts of all that may be sent back to the browser."""
        return [(field, text) for field, texts in self.values.items() if field not in SECRETS for text in texts]

    @property
    def typed(self) -> bool:
        """Whether anything was sent."""
        return bool(self.values)

    @contextmanager
    def judging(self, *fields: str, otherwise: str = "") -> Iterator[None]:
        """What is refused inside stands beside its field if the form has that field, else beside `otherwise`, "" above the form.

        That a recent proof is needed first is no fault of the form: `ProofNeeded` goes on.
        """
        try:
            yield
        except RequestMalformed as wrong:
            known = {field: problem for field, problem in wrong.fields.items() if field in fields}
            self.errors |= known
            rest = [problem for field, problem in wrong.fields.items() if field not in fields]
            if rest or not known:
                self.errors[otherwise] = rest[0] if rest else wrong.detail or wrong.sentence
        except ProofNeeded:
            raise
        except Refusal as refusal:
            self.errors[otherwise] = refusal.sentence
            self.retry_after = refusal.retry_after


async def read_form_untrusted(request: Request) -> Form:
    """The body of a form, as browsers send it (application/x-www-form-urlencoded, UTF-8). Raises `FormUnreadable`, `FormTooLarge`.

    Bytes that are no UTF-8 become U+FFFD, which the rules refuse by name, so that the person sees where.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise FormUnreadable
    body = bytearray()
    with trio.move_on_after(BODY_WITHIN) as within:
        async with aclosing(request.stream()) as parts:
            async for part in parts:
                body += part
                if len(body) > MAX_BODY:
                    raise FormTooLarge
    if within.cancelled_caught:
        raise FormUnreadable
    values: dict[str, list[str]] = {}
    try:
        for field, value in parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="replace"):
            values.setdefault(field, []).append(value.replace("\r\n", "\n"))
    except ValueError:
        raise FormUnreadable from None
    return Form(values)


def whole_untrusted(text: str, least: int, most: int, what: str) -> int:
    """A whole number from a form. Raises `RequestMalformed` with `what`."""
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
        raise RequestMalformed(what)
    return int(text)
