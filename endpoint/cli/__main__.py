"""`python -m endpoint.cli` = `parley`."""

from endpoint.cli import main

main()
