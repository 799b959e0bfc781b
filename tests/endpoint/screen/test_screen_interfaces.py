"""Capture, injection and viewer each stand behind one small interface; pictures need no platform (row G39). docs/platforms.md names them."""

import ast
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

from endpoint.screen.pane import WindowViewer
from endpoint.screen.pictures import PicturesSource
from endpoint.screen.source import PointerSource, Source
from endpoint.screen.touch import Touch
from endpoint.screen.viewer import PngViewer, Viewer
from endpoint.screen.x11 import X11Source
from endpoint.screen.x11_pointer import X11Pointer
from endpoint.screen.x11_touch import X11Touch
from tests.test_architecture import ROOT, imports, sources, within

INTERFACES: dict[type, list[type]] = {
    Source: [X11Source, PicturesSource],
    PointerSource: [X11Pointer],
    Touch: [X11Touch],
    Viewer: [WindowViewer, PngViewer],
}
SMALL = 6
"""Members of an interface, at most, those that enter and leave it included."""

X11 = {"endpoint/screen/x11.py", "endpoint/screen/x11_display.py", "endpoint/screen/x11_pointer.py", "endpoint/screen/x11_touch.py",
       "endpoint/screen/x11_hidden.py", "endpoint/screen/x11_windows.py", "endpoint/screen/xvfb.py"}  # fmt: skip
WINDOWS = {"endpoint/screen/window.py", "endpoint/screen/light.py", "endpoint/screen/inbox.py", "endpoint/screen/style.py"}
EDGES = {"endpoint/cli/share.py", "endpoint/cli/attend.py", "endpoint/cli/panes.py"}
"""Where a program chooses what stands behind an interface. (The demo brings a desktop of its own and draws on it: X11's throughout.)"""
DEMO = ROOT / "endpoint" / "demo"


def members(interface: type) -> list[str]:
    return [name for name in vars(interface) if not name.startswith("_") or name in ("__aenter__", "__aexit__")]


def shape(owner: type, name: str) -> tuple[object, ...]:
    """What a caller sees of a member: whether it is a property, whether it is awaited, how it is called."""
    member = inspect.getattr_static(owner, name)
    if isinstance(member, property):
        return ("property",)
    parameters = [(p.name, p.kind, p.default) for p in inspect.signature(member).parameters.values()]
    return (inspect.iscoroutinefunction(member), *parameters)


@pytest.mark.parametrize(
    ("interface", "owner"),
    [(interface, owner) for interface, owners in INTERFACES.items() for owner in owners],
    ids=lambda each: each.__name__,
)
def test_G39_whatever_the_platform_it_is_used_alike(interface: type, owner: type) -> None:
    assert 0 < len(members(interface)) <= SMALL
    for name in members(interface):
        assert shape(owner, name) == shape(interface, name), name


def test_G39_only_the_platforms_own_files_know_the_platform() -> None:
    """And the programs, which choose: no codec, no presenter, no watcher, no lender has heard of X11."""
    known = {"xcffib": X11, "pygame": WINDOWS}
    known |= {path.removesuffix(".py").replace("/", "."): X11 | EDGES for path in X11}
    for path in sources("endpoint"):
        for module, line in imports(path):
            allowed = [who for target, who in known.items() if within(module, target)]
            if allowed and DEMO not in path.parents:
                assert path.relative_to(ROOT).as_posix() in allowed[0], f"{path}:{line} imports {module}"


def test_G39_no_library_of_a_platform_is_needed_to_start() -> None:
    """What is X11's is loaded when a display is wanted, so that every program starts without."""
    for name in X11:
        body = ast.parse((ROOT / name).read_text()).body
        top = [alias.name for item in body if isinstance(item, ast.Import) for alias in item.names]
        top += [item.module or "" for item in body if isinstance(item, ast.ImportFrom)]
        assert not [module for module in top if within(module, "xcffib")], name


BARE = """
import sys
for library in ("xcffib", "pygame", "Xlib"):
    sys.modules[library] = None
from pathlib import Path
import numpy as np
import trio
import endpoint.cli.attend, endpoint.present, endpoint.remote_control, endpoint.watch
from endpoint.cli.share import AUTO, open_share
from endpoint.screen.decoder import Decoder
from endpoint.screen.encoder import Encoder
from endpoint.screen.viewer import PngViewer

async def main():
    here, encoder, decoder = Path(sys.argv[1]), Encoder(), Decoder()
    async with open_share(AUTO, "", here) as source, source:
        picture, _ = source.grab()
        decoder.load(encoder.snapshot(picture))
        assert np.array_equal(decoder.picture, picture)
        assert picture[:, :, :3].any()
        print(source.name)
    viewer = PngViewer(here / "screen.png")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(viewer.run)
        viewer.show(decoder.picture, [(0, 0, 1, 1)])
        nursery.cancel_scope.cancel()
    assert (here / "screen.png").stat().st_size > 1000

trio.run(main)
"""


def test_G39_pictures_are_shared_and_shown_where_there_is_no_platform(tmp_path: Path) -> None:
    """No display, no Xvfb, no libraries: what is left is a folder of slides, and a viewer that keeps a file fresh."""
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")} | {"PATH": "/nowhere"}
    done = subprocess.run([sys.executable, "-c", BARE, tmp_path], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "pictures in" in done.stdout
