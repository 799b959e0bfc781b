"""The import direction is a promise: what cannot import the code that opens packets cannot read a meeting. docs: design, "Architecture".

    endpoint/            manager/      mcs/
       │  └───────┐         │           │
       ▼          └───────▶ net/ ◀──────┘
    crypto/                 wire/

Each forbidden arrow has its reason. Sources are read as syntax trees, so an import inside a function counts like any other.
"""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from endpoint.cli import COMMANDS

ROOT: Final = Path(__file__).parent.parent
OURS: Final = ("crypto", "wire", "net", "mcs", "manager", "endpoint")

_SANS_IO = "takes bytes and `now` and gives bytes, so that it is tested without sockets, sleeping or luck"
_BLIND = "a server that cannot import what opens packets cannot read a meeting"
_APART = "relays and managers are upgraded, scaled and trusted apart; what they share is wire/ and net/"
_CLIENT = "servers know endpoints by their bytes alone"
_FLOOR = "arrows run down: a lower floor knows nothing of what is built on it"

FORBIDDEN: Final[dict[str, dict[str, str]]] = {
    "wire": {
        "crypto": "a relay needs wire/, and must not get the code that opens packets with it",
        "net": _FLOOR,
        "mcs": _FLOOR,
        "manager": _FLOOR,
        "endpoint": _FLOOR,
        **dict.fromkeys(("trio", "socket", "ssl", "select", "selectors", "asyncio", "threading", "time", "OpenSSL", "os"), _SANS_IO),
        "cryptography": "wire/ holds no key",
        "structlog": "what it finds it raises, by name; whoever called it knows what to log",
    },
    "crypto": {
        "wire": "the end-to-end layer stands alone, so that it can be read, and replaced, alone",
        "net": _FLOOR,
        "mcs": _FLOOR,
        "manager": _FLOOR,
        "endpoint": _FLOOR,
        **dict.fromkeys(("trio", "socket", "ssl", "select", "selectors", "asyncio", "threading", "time", "OpenSSL"), _SANS_IO),
        "os": "no variable, file or flag reaches a cryptographic parameter (row G34)",
        "pathlib": "no variable, file or flag reaches a cryptographic parameter (row G34)",
        "argparse": "no variable, file or flag reaches a cryptographic parameter (row G34)",
        "click": "no variable, file or flag reaches a cryptographic parameter (row G34)",
        "msgspec": "formats belong to whoever sends them; crypto/ sees bytes",
        "random": "secrets come from the system's generator",
        "structlog": "it handles keys: what it does not log cannot leak",
        "logging": "it handles keys: what it does not log cannot leak",
    },
    "net": {
        "crypto": _BLIND,
        "mcs": _FLOOR,
        "manager": _FLOOR,
        "endpoint": _FLOOR,
    },
    "mcs": {
        "crypto": _BLIND,
        "endpoint": _CLIENT,
        "manager": _APART,
    },
    "manager": {
        "crypto": _BLIND,
        "endpoint": _CLIENT,
        "mcs": _APART,
    },
    "endpoint": {
        "mcs": "servers are programs of their own: an endpoint starts them, if at all, as processes",
        "manager": "servers are programs of their own: an endpoint starts them, if at all, as processes",
        "asyncio": "one event loop: trio",
    },
}
ARROWS: Final = [(package, target) for package, targets in FORBIDDEN.items() for target in targets]
COMPUTED: Final = {ROOT / "endpoint" / "cli" / "__init__.py"}
"""Files that import by a computed name: `parley` loads the command that was called, from a table that is looked at below."""
# whoever may import the end-to-end layer
READERS: Final = {"endpoint"}


def sources(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, f"{package}/ has no source"
    return found


@cache
def nodes(path: Path) -> list[ast.AST]:
    """A source's syntax, read once."""
    return list(ast.walk(ast.parse(path.read_text(), str(path))))


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every module that a file imports, wherever in it, with its line."""
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import hides its direction"
            yield node.module or "", node.lineno
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("__import__", "importlib.import_module", "import_module"):
            name = node.args[0] if node.args else None
            if isinstance(name, ast.JoinedStr) and isinstance(first := name.values[0], ast.Constant) and str(first.value).endswith("."):
                name = first  # computed below a package that is named: the direction shows
            if path not in COMPUTED:
                assert isinstance(name, ast.Constant), f"{path}:{node.lineno}: an import whose name is computed hides its direction"
                yield str(name.value), node.lineno


def within(module: str, target: str) -> bool:
    return module == target or module.startswith(f"{target}.")


@pytest.mark.parametrize(("package", "target"), ARROWS, ids=lambda value: value)
def test_no_forbidden_arrow(package: str, target: str) -> None:
    found = [f"{path.relative_to(ROOT)}:{line}" for path in sources(package) for module, line in imports(path) if within(module, target)]
    assert not found, f"{package}/ must not import {target}: {FORBIDDEN[package][target]}. See {', '.join(found)}"


def test_every_arrow_among_our_packages_is_decided() -> None:
    """A new package cannot slip in undecided, and what is not forbidden is what the picture above shows."""
    allowed = {(package, target) for package in OURS for target in OURS if package != target and target not in FORBIDDEN[package]}
    assert allowed == {
        ("net", "wire"),
        ("mcs", "net"),
        ("mcs", "wire"),
        ("manager", "net"),
        ("manager", "wire"),
        ("endpoint", "crypto"),
        ("endpoint", "net"),
        ("endpoint", "wire"),
    }
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert packages == set(OURS)
    assert {package for package in OURS if package != "crypto" and "crypto" not in FORBIDDEN[package]} == READERS


def test_the_checker_sees_lazy_and_computed_imports(tmp_path: Path) -> None:
    path = tmp_path / "lazy.py"
    path.write_text("def f():\n    if 1:\n        import crypto.seal as s\n    from endpoint import log\n    __import__('mcs')\n")
    assert {module for module, _ in imports(path)} == {"crypto.seal", "endpoint", "mcs"}
    path = tmp_path / "computed.py"
    path.write_text("import importlib\nimportlib.import_module(name)\n")
    with pytest.raises(AssertionError, match="computed"):
        list(imports(path))


def loaded(imports: Iterable[str], *packages: str) -> list[str]:
    """What a fresh interpreter has loaded of these packages after some imports, however indirectly."""
    code = (
        "import importlib, sys\n"
        f"for name in {list(imports)!r}: importlib.import_module(name)\n"
        f"print(*sorted(m for m in sys.modules if m.partition('.')[0] in {packages!r}))\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("program", [("mcs.node", "mcs.__main__"), ("manager.api", "manager.__main__")], ids=lambda names: names[0])
def test_no_server_loads_what_opens_packets(program: tuple[str, ...]) -> None:
    found = loaded(program, "crypto", "endpoint", "srptools", "gmpy2")
    assert found == [], "a server that loads the end-to-end layer could read a meeting"


def test_no_endpoint_loads_a_server() -> None:
    modules = {slot.module for slot in COMMANDS.values()}
    assert all(within(module, "endpoint.cli") for module in modules)
    assert loaded(sorted(modules), "mcs", "manager") == []


# G33: the endpoint opens no listening port

LISTENING: Final = {
    "bind",
    "listen",
    "create_server",
    "open_tcp_listeners",
    "serve_tcp",
    "serve_listeners",
    "serve_tls",
    "start_server",
    "SocketListener",
}
# name of the call → files that have one of their own by this name, which listens to nothing on the network
OWN: Final = {
    "listen": "Session.listen registers a callback",
    "start_server": "cluster.start_server starts a child process",
}


def calls(path: Path) -> Iterator[tuple[str, str, int]]:
    for node in nodes(path):
        if isinstance(node, ast.Call):
            whole = ast.unparse(node.func)
            yield whole, whole.rpartition(".")[2], node.lineno


def test_G33_no_source_of_the_endpoint_opens_a_listening_socket() -> None:
    found = []
    for path in sources("endpoint"):
        for whole, name, line in calls(path):
            own = name in OWN and ("socket" not in whole and "trio" not in whole and "net." not in whole)
            log_bind = name == "bind" and whole.endswith("log.bind")  # structlog
            if name in LISTENING and not own and not log_bind:
                found.append(f"{path.relative_to(ROOT)}:{line} {whole}")
        modules = {module for module, _ in imports(path)}
        if modules & {"net.listener", "net.http", "socketserver", "http.server", "wsgiref.simple_server"}:
            found.append(f"{path.relative_to(ROOT)} imports a listener")
    assert not found, f"an endpoint only dials: {found}"


# G34: cryptographic parameters are compiled in


def test_G34_every_parameter_of_the_suite_is_a_final_constant() -> None:
    tree = ast.parse((ROOT / "crypto" / "suite.py").read_text())
    for node in tree.body:
        assert not isinstance(node, ast.Assign | ast.AugAssign | ast.If | ast.Try | ast.For | ast.While), ast.unparse(node)
        if isinstance(node, ast.AnnAssign):
            assert ast.unparse(node.annotation) == "Final", ast.unparse(node)
            for inner in ast.walk(node.value or node):
                if isinstance(inner, ast.Call):
                    assert ast.unparse(inner.func) in ("int",), f"computed from outside: {ast.unparse(node)[:80]}"


def test_G34_nothing_outside_sets_anything_of_the_suite() -> None:
    """No package writes to a constant of crypto/, and no setting or flag is named like one."""
    constants = {
        node.target.id
        for node in ast.parse((ROOT / "crypto" / "suite.py").read_text()).body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    assert {"SRP_N", "SUITE", "AES_KEY_SIZE"} <= constants
    words = ("cipher", "suite", "curve", "srp", "hmac", "aes", "kdf", "digest", "insecure", "no-encryption", "plaintext", "verify")
    for package in OURS:
        for path in sources(package):
            for node in nodes(path):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AugAssign) else []
                for target in targets:
                    if isinstance(target, ast.Attribute):
                        assert target.attr not in constants, f"{path.relative_to(ROOT)}:{target.lineno}"
                if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("option"):
                    for flag in (a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)):
                        assert not any(word in flag for word in words), f"{path.relative_to(ROOT)}:{node.lineno}: {flag}"


def test_G34_no_environment_variable_is_read_where_keys_are() -> None:
    for package in ("crypto", "wire"):
        for path in sources(package):
            text = path.read_text()
            assert "environ" not in text, path
            assert "getenv" not in text, path
            for whole, _, line in calls(path):
                assert whole not in ("open", "eval", "exec"), f"{path}:{line}"
