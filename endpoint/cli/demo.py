"""`parley demo`: one whole meeting in separate processes, judged. Exit code 0 only if everything that it claims was seen."""

import sys

import click
from rich.console import Console
from rich.markup import escape

from endpoint.demo.run import Verdict, report, run_demo
from net.process import configure_logging, run


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the figures as the last line, one JSON object.")
def demo(as_json: bool) -> None:
    """Hold a whole meeting on this machine and prove what Parley promises of it.

    Manager, two relays, a presenter on a desktop of its own, three attendees: all real processes. Everything that the servers receive
    and store is searched for chat, password, names and pixels. Needs the Debian packages xvfb and xterm.
    """
    import logging

    configure_logging(json=False, level=logging.WARNING)
    verdicts: list[Verdict] = []

    async def main() -> None:
        verdicts.append(await run_demo())

    run(main)
    verdict = verdicts[0]
    console = Console(stderr=as_json, highlight=False)
    for line in verdict.told:
        console.print(f"[green]✓[/] {escape(line)}")
    for line in verdict.wrong:
        console.print(f"[bold red]✗ {escape(line)}[/]")
    for name, figure in verdict.figures.items():
        console.print(f"  [dim]{name:24}[/] {figure:g}")
    if as_json:
        click.echo(report(verdict))
    sys.exit(1 if verdict.wrong else 0)
