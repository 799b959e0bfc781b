"""`parley manager …` beside `serve`: people, the audit log, backups. The command line, an edge alone.

Each command is one short visit to the store, beside a running manager or without one.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click
from sqlalchemy import Connection

from manager import accounts, audit, backup, keys, links, migrations
from manager.accounts import AccountRole
from manager.audit import By
from manager.errors import AccountExists, BackupUnreadable, RequestMalformed, SettingsMalformed
from manager.hidden import Hidden
from manager.links import Purpose
from manager.seal import FILE, Seal
from manager.settings import Settings, load_settings
from manager.store import Store
from net.process import run

T = TypeVar("T")
CONSOLE = By(None, "")

config_option = click.option(
    "--config", type=click.Path(path_type=Path, dir_okay=False), help="A TOML file with any of the settings; flags go before it."
)
store_option = click.option("--store", help="SQLite file or database URL.")
_json = click.option("--json", "as_json", is_flag=True, help="Print lines of JSON.")
_identity = click.option("--identity", help="The manager's identity directory: totp.key is there.")
_passphrase = click.option(
    "--passphrase-file", required=True, type=click.Path(path_type=Path, dir_okay=False), help="A file whose first line is the passphrase."
)


def visit(config: Path | None, location: str | None, act: Callable[[Store, Settings], T], **flags: str | None) -> T:
    """Open the store, do it, close it. Ends the program with a sentence for what is refused."""
    found: list[T] = []

    async def work() -> None:
        settings = load_settings(config, store=location, **flags)
        store = Store(settings.store)
        try:
            found.append(act(store, settings))
        finally:
            store.close()

    run(work)
    return found[0]


@click.command("add-organizer")
@click.argument("name")
@config_option
@store_option
@_json
def add_organizer(name: str, config: Path | None, store: str | None, as_json: bool) -> None:
    """Make a program's account and print its API key, the only time that it is shown."""
    key = keys.key_text(visit(config, store, lambda s, _: s.write_now(_add_organizer, name, time.time())))
    click.echo(json.dumps({"name": name, "key": key}) if as_json else key)


@click.command("remove-organizer")
@click.argument("name")
@config_option
@store_option
def remove_organizer(name: str, config: Path | None, store: str | None) -> None:
    """Make an organizer's API key worthless. The meetings stay; adding the name again makes a new key for them."""
    visit(config, store, lambda s, _: s.write_now(_remove_organizer, name, time.time()))


@click.command("list-organizers")
@config_option
@store_option
@_json
def list_organizers(config: Path | None, store: str | None, as_json: bool) -> None:
    """Show the accounts of programs."""
    for organizer in visit(config, store, lambda s, _: s.read_now(keys.list_organizers)):
        entry = json.dumps({"name": organizer.name, "active": organizer.active})
        click.echo(entry if as_json else f"{organizer.name}{'' if organizer.active else '  (removed)'}")


@click.command("add-admin")
@click.argument("email")
@click.option("--site", help="The site's address, if it is not in the settings: https://HOST or http://localhost:PORT.")
@config_option
@store_option
@_json
def add_admin(email: str, site: str | None, config: Path | None, store: str | None, as_json: bool) -> None:
    """Print a one-time link that makes an internal administrator's account. It works for seven days."""

    def act(store: Store, settings: Settings) -> str:
        where = load_settings(None, site=site).site if site else settings.site
        if not where:
            raise SettingsMalformed("name the site with --site, or in the settings")
        return links.address_of(where, Purpose.INVITE, store.write_now(_add_admin, email, time.time()))

    link = visit(config, store, act)
    click.echo(json.dumps({"email": email, "link": link}) if as_json else link)


@click.command("audit")
@click.option("--noted", metavar="NUMBER:DIGEST", multiple=True, help="What an earlier run printed: the record must still be there.")
@click.option("--show", type=click.IntRange(0, 1000), default=0, help="Print so many of the last records, too.")
@config_option
@store_option
@_json
def verify_audit(noted: tuple[str, ...], show: int, config: Path | None, store: str | None, as_json: bool) -> None:
    """Verify the audit log: recompute its chain, and print its head, to be noted elsewhere."""

    def act(store: Store, _: Settings) -> tuple[int, bytes, list[audit.Record]]:
        store.read_now(audit.verify, [_noted(text) for text in noted])
        return *store.read_now(audit.head), list(reversed(store.read_now(audit.records, None, show))) if show else []

    number, digest, records = visit(config, store, act)
    for made in records:
        who = "-" if made.account is None else str(made.account)
        shown = {"number": made.number, "at": made.at, "account": made.account, "address": made.address, "act": made.act}
        shown |= {"subject": made.subject, "detail": made.detail}
        click.echo(
            json.dumps(shown) if as_json else f"{made.number}  {made.at:.0f}  {who}  {made.address}  {made.act}  {made.subject}  {made.detail}"
        )
    click.echo(json.dumps({"records": number, "head": digest.hex()}) if as_json else f"{number}:{digest.hex()}")


@click.command("backup")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@_passphrase
@config_option
@store_option
@_identity
def make_backup(file: Path, passphrase_file: Path, config: Path | None, store: str | None, identity: str | None) -> None:
    """Write an encrypted copy of the store, and of the key that it seals TOTP keys with, also while the manager runs."""
    rows = visit(
        config,
        store,
        lambda s, settings: backup.backup(s, file, _read_passphrase(passphrase_file), _seal(settings, make=False)),
        identity=identity,
    )
    click.echo(f"{file}: {rows} rows", err=True)


@click.command("restore")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@_passphrase
@config_option
@store_option
@_identity
def restore_backup(file: Path, passphrase_file: Path, config: Path | None, store: str | None, identity: str | None) -> None:
    """Fill an empty store, of either kind, from a backup. Its TOTP keys are sealed anew with this manager's own key."""
    rows = visit(
        config,
        store,
        lambda s, settings: backup.restore(s, file, _read_passphrase(passphrase_file), _seal(settings, make=True)),
        identity=identity,
    )
    click.echo(f"{rows} rows restored", err=True)


@click.command("downgrade")
@click.argument("revision")
@config_option
@store_option
def downgrade(revision: str, config: Path | None, store: str | None) -> None:
    """Take the tables back to an earlier revision, for an older Parley. Make a backup first: what is newer is lost."""

    async def work() -> None:
        migrations.downgrade(load_settings(config, store=store).store, revision)

    run(work)


COMMANDS = (add_organizer, remove_organizer, list_organizers, add_admin, verify_audit, make_backup, restore_backup, downgrade)


def _add_organizer(db: Connection, name: str, now: float) -> Hidden:
    key = keys.add_organizer(db, name, now)
    audit.record(db, CONSOLE, "account-made", "program", now)
    return key


def _remove_organizer(db: Connection, name: str, now: float) -> None:
    keys.remove_organizer(db, name)
    audit.record(db, CONSOLE, "account-changed", "program", now, "active False")


def _add_admin(db: Connection, email: str, now: float) -> Hidden:
    email = accounts.clean_email(email)
    if accounts.account_by_email(db, email) is not None:
        raise AccountExists
    bits = links.make_link(db, Purpose.INVITE, email, now, role=AccountRole.INTERNAL_ADMIN)
    audit.record(db, CONSOLE, "account-invited", f"invitation {links.find_link(db, bits, now).id}", now, AccountRole.INTERNAL_ADMIN)
    return bits


def _noted(text: str) -> tuple[int, bytes]:
    number, _, digest = text.partition(":")
    try:
        return int(number), bytes.fromhex(digest)
    except ValueError:
        raise RequestMalformed("what was noted looks like NUMBER:DIGEST") from None


def _seal(settings: Settings, *, make: bool) -> Seal | None:
    """The manager's; None where it has none, or with `make` where none can be."""
    directory = Path(settings.identity)
    return Seal.in_directory(directory) if (directory if make else directory / FILE).exists() else None


def _read_passphrase(path: Path) -> bytes:
    try:
        first = path.read_bytes().partition(b"\n")[0].rstrip(b"\r")
    except OSError as error:
        raise BackupUnreadable(f"{path} cannot be read ({error.strerror})") from None
    if len(first) < 12:
        raise BackupUnreadable("a passphrase has at least 12 characters, in the first line of its file")
    return first
