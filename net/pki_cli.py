"""`parley pki`: the cluster's certificates from the command line. The work is in `net.pki`."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from net import pki
from wire.errors import ParleyError


class _Group(click.Group):
    """Named errors become one sentence and exit code 1."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ParleyError as error:
            click.echo(f"parley: {error}", err=True)
            sys.exit(1)


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Certificates of the cluster: who is a server, and of which kind.",
)
def main() -> None:
    pass


@main.command("create-ca")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--cluster", default="parley", show_default=True, help="Name of the cluster; it stands in every certificate.")
def create_ca(directory: Path, cluster: str) -> None:
    """Create the cluster's CA in DIRECTORY. Keep its ca.key away from the servers."""
    click.echo(pki.create_ca(directory, cluster))


@main.command()
@click.argument("ca_directory", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.argument("out_directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--kind", type=click.Choice(pki.KINDS), required=True, help="mcs is a relay.")
@click.option("--node", required=True, help="Name of this server, unique in the cluster.")
@click.option("--host", "hosts", multiple=True, help="Host name or address under which HTTPS clients reach it; may be repeated.")
@click.option("--days", default=pki.NODE_DAYS, show_default=True, type=click.IntRange(1, pki.CA_DAYS))
def enrol(ca_directory: Path, out_directory: Path, kind: pki.Kind, node: str, hosts: tuple[str, ...], days: int) -> None:
    """Create key and certificate of one server in OUT_DIRECTORY, signed by the CA in CA_DIRECTORY."""
    click.echo(pki.enrol(ca_directory, out_directory, kind, node, hosts, days=days).name)


@main.command()
@click.argument("ca_directory", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.argument("out_directory", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--days", default=pki.NODE_DAYS, show_default=True, type=click.IntRange(1, pki.CA_DAYS))
def renew(ca_directory: Path, out_directory: Path, days: int) -> None:
    """Renew the certificate in OUT_DIRECTORY under the same names and key. Restart its server afterwards."""
    identity = pki.renew(ca_directory, out_directory, days=days)
    click.echo(f"{identity.name} is valid until {identity.certificate.not_valid_after_utc.isoformat()}")


@main.command()
@click.argument("ca_directory", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.argument("server")
def revoke(ca_directory: Path, server: str) -> None:
    """Revoke every certificate of SERVER: a node's name, or a certificate file. CA_DIRECTORY/ca.crl is written anew.

    Copy that file into the directory of any one running server: it tells all others, and within seconds nobody talks to SERVER any more.
    """
    for one in pki.revoke(ca_directory, server):
        click.echo(f"{one.name} revoked (serial {one.serial:x})")
    click.echo(f"Now copy {ca_directory / 'ca.crl'} into the directory of any running server.")


@main.command("list")
@click.argument("ca_directory", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each.")
def list_issued(ca_directory: Path, as_json: bool) -> None:
    """Show what the CA has issued, and what is revoked."""
    for one in pki.issued(ca_directory):
        until = one.valid_until.date().isoformat()
        fields = {"name": str(one.name), "serial": f"{one.serial:x}", "valid_until": until, "revoked": one.revoked}
        click.echo(json.dumps(fields) if as_json else f"{one.name!s:44} until {until}  {'revoked' if one.revoked else ''}".rstrip())


@main.command()
@click.argument("certificate", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")
def show(certificate: Path, as_json: bool) -> None:
    """Show a certificate, and warn if it ends soon."""
    loaded = pki.load_certificate(certificate)
    fields = pki.show(loaded)
    warning = pki.expiry_warning(loaded, datetime.now(UTC))
    if as_json:
        click.echo(json.dumps({**fields, "hosts": pki.hosts_of(loaded), "warning": warning}))
        return
    for name, value in fields.items():
        click.echo(f"{name:12} {value}")
    if warning:
        click.echo(f"parley: {warning}", err=True)


if __name__ == "__main__":
    main(prog_name="parley pki")
