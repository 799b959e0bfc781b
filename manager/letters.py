"""What the letters say, in the language of who gets them. No store, no mail server.

No letter carries a meeting's password: the one that invites to a meeting has its ID and invitation alone. Links of accounts have their secret
behind the `#`, which the browser that opens them sends to no server in an address.
"""

from typing import Final

from manager.links import Purpose
from manager.mail import Letter

_TEXTS: Final[dict[str, dict[str, tuple[str, str]]]] = {
    "en": {
        "invite": (
            "Your account on {host}",
            "Hello{name},\n\nan account on {host} is waiting for you. Choose a password here, within seven days:\n\n{link}\n",
        ),
        "sign-up": (
            "Your account on {host}",
            "Hello{name},\n\nchoose name and password of your new account on {host} here, within a day:\n\n{link}\n\n"
            "If this was not you, do nothing.\n",
        ),
        "email": (
            "Confirm your new e-mail address",
            "Hello{name},\n\nplease confirm your new address for {host} within a day, while you are signed in there:\n\n{link}\n\n"
            "If this was not you, do nothing.\n",
        ),
        "reset": (
            "A new password",
            "Hello{name},\n\nchoose a new password for {host} here, within an hour:\n\n{link}\n\nIf this was not you, do nothing.\n",
        ),
        "exists": (
            "You have an account already",
            "Hello{name},\n\nsomebody wanted to make an account on {host} with this address. You have one already; sign in here:\n\n{link}\n",
        ),
        "changed": (
            "Your account was changed",
            "Hello{name},\n\non {host}, this was changed on your account: {what}.\n\n"
            "If this was not you, choose a new password now:\n\n{link}\n",
        ),
        "meeting": (
            "{title}",
            "{organizer} invites you to a meeting.\n\n{title}\n{when}\n\nJoin: {link}\nMeeting ID: {number}\n\n"
            "The organizer tells you the password in another way; no server has it.\n",
        ),
        "cancelled": ("Cancelled: {title}", "{organizer} has cancelled a meeting.\n\n{title}\n{when}\nMeeting ID: {number}\n"),
    },
    "fr": {
        "invite": (
            "Votre compte sur {host}",
            "Bonjour{name},\n\nun compte vous attend sur {host}. Choisissez un mot de passe ici, d'ici sept jours :\n\n{link}\n",
        ),
        "sign-up": (
            "Votre compte sur {host}",
            "Bonjour{name},\n\nchoisissez ici le nom et le mot de passe de votre nouveau compte sur {host}, d'ici un jour :\n\n{link}\n\n"
            "Si ce n'était pas vous, ne faites rien.\n",
        ),
        "email": (
            "Confirmez votre nouvelle adresse e-mail",
            "Bonjour{name},\n\nveuillez confirmer votre nouvelle adresse pour {host} d'ici un jour, en y étant connecté :\n\n{link}\n\n"
            "Si ce n'était pas vous, ne faites rien.\n",
        ),
        "reset": (
            "Un nouveau mot de passe",
            "Bonjour{name},\n\nchoisissez ici un nouveau mot de passe pour {host}, d'ici une heure :\n\n{link}\n\n"
            "Si ce n'était pas vous, ne faites rien.\n",
        ),
        "exists": (
            "Vous avez déjà un compte",
            "Bonjour{name},\n\nquelqu'un a voulu créer un compte sur {host} avec cette adresse. Vous en avez déjà un ; connectez-vous ici :\n\n"
            "{link}\n",
        ),
        "changed": (
            "Votre compte a été modifié",
            "Bonjour{name},\n\nsur {host}, ceci a été modifié dans votre compte : {what}.\n\n"
            "Si ce n'était pas vous, choisissez tout de suite un nouveau mot de passe :\n\n{link}\n",
        ),
        "meeting": (
            "{title}",
            "{organizer} vous invite à une réunion.\n\n{title}\n{when}\n\nRejoindre : {link}\nNuméro de réunion : {number}\n\n"
            "L'organisateur vous donne le mot de passe par une autre voie ; aucun serveur ne l'a.\n",
        ),
        "cancelled": ("Annulée : {title}", "{organizer} a annulé une réunion.\n\n{title}\n{when}\nNuméro de réunion : {number}\n"),
    },
}
WHATS: Final = {
    "password": {"en": "the password", "fr": "le mot de passe"},
    "factor-added": {"en": "a second factor was added", "fr": "un second facteur a été ajouté"},
    "factor-removed": {"en": "a second factor was removed", "fr": "un second facteur a été retiré"},
    "email": {"en": "the e-mail address", "fr": "l'adresse e-mail"},
}
"""What a letter of the kind `changed` speaks of."""


def account_letter(purpose: Purpose | str, language: str, to: str, *, site: str, link: str, name: str = "", what: str = "") -> Letter:
    """A letter about an account. `purpose`: of a one-time link, or `exists`, or `changed` with a `what` of `WHATS`."""
    language = language if language in _TEXTS else "en"
    subject, text = _TEXTS[language][str(purpose)]
    words = {
        "host": site.partition("://")[2],
        "name": f" {name}" if name else "",
        "link": link,
        "what": WHATS[what][language] if what else "",
    }
    return Letter(str(purpose), to, subject.format(**words), text.format(**words))


def meeting_letter(
    language: str, to: str, *, cancelled: bool, title: str, organizer: str, when: str, link: str, number: str, calendar: bytes
) -> Letter:
    """An invitation to a meeting, or its cancellation, with its calendar entry."""
    kind = "cancelled" if cancelled else "meeting"
    subject, text = _TEXTS[language if language in _TEXTS else "en"][kind]
    words = {"title": title, "organizer": organizer, "when": when, "link": link, "number": number}
    return Letter(kind, to, subject.format(**words), text.format(**words), calendar, "CANCEL" if cancelled else "REQUEST")
