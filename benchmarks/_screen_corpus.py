"""What people share, recorded once: seven scenes on a desktop of 1920 × 1080, twelve pictures a second, with their damage.

Each scene is a set of programs and a script that acts in real time, so that the same scene can be played on Xvfb and on TigerVNC's Xvnc.
Recordings lie in $XDG_CACHE_HOME/parley-bench (or ~/.cache): per picture its damage, and its difference from the one before,
compressed. They are made anew when this file's SCRIPT number changes.

Debian packages: xvfb openbox xterm chromium xdotool vim less python3.11-doc lomiri-wallpapers-16.04 fonts-dejavu ffmpeg.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import trio
import zstandard

from endpoint.screen.picture import Picture, Rect, blank
from endpoint.screen.x11 import X11Source
from endpoint.screen.xvfb import xvfb_desktop

SCRIPT = 1
WIDTH, HEIGHT, FPS = 1920, 1080, 12
DOCS = Path("/usr/share/doc/python3.11/html")
PHOTOS = Path("/usr/share/backgrounds")
SOURCE = Path("/usr/lib/python3.11/argparse.py")
XTERM = ("xterm", "-fa", "DejaVu Sans Mono", "-fs", "11")
NEEDS = {
    "xdotool": "xdotool",
    "openbox": "openbox",
    "xterm": "xterm",
    "chromium": "chromium",
    "vim": "vim",
    "ffmpeg": "ffmpeg",
    str(DOCS): "python3.11-doc",
    str(PHOTOS): "lomiri-wallpapers-16.04",
    str(SOURCE): "libpython3.11-stdlib",
}


@dataclass(frozen=True, slots=True)
class Act:
    """At `at` seconds into the scene, do this with xdotool."""

    at: float
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Scene:
    name: str
    programs: Callable[[Path], list[Sequence[str]]]
    before: tuple[Act, ...]  # until it is in place; not recorded
    acts: tuple[Act, ...]
    settle: float
    seconds: float


class Frame(msgspec.Struct, array_like=True, frozen=True):
    damage: list[tuple[int, int, int, int]] | None
    changed: bool
    packed: bytes  # zstd of the difference from the picture before


class Recording(msgspec.Struct, frozen=True):
    width: int
    height: int
    frames: list[Frame]


def chromium(page: Path | str, work: Path, *more: str) -> list[str]:
    flags = "--no-sandbox --no-first-run --no-default-browser-check --disable-gpu --disable-extensions --disable-sync"
    flags += " --test-type --password-store=basic"
    flags += (
        " --disable-background-networking --disable-component-update --autoplay-policy=no-user-gesture-required --force-device-scale-factor=1"
    )
    return [
        "chromium",
        *flags.split(),
        f"--user-data-dir={work / 'chromium'}",
        f"--window-size={WIDTH},{HEIGHT}",
        "--window-position=0,0",
        *more,
        str(page),
    ]


def typed(start: float, text: str, every: float = 0.13) -> Iterator[Act]:
    """One key after the other, as a person types."""
    for at, letter in enumerate(text):
        name = {
            "\n": "Return",
            " ": "space",
            "/": "slash",
            "-": "minus",
            ".": "period",
            "_": "underscore",
            ":": "colon",
            "|": "bar",
            '"': "quotedbl",
        }
        name |= {"(": "parenleft", ")": "parenright", "=": "equal", ",": "comma", "'": "apostrophe", "#": "numbersign", "*": "asterisk"}
        yield Act(start + at * every, ("key", name.get(letter, letter)))


def keys(start: float, every: float, *names: str) -> Iterator[Act]:
    for at, name in enumerate(names):
        yield Act(start + at * every, ("key", name))


def terminal(work: Path) -> list[Sequence[str]]:
    shell = ["bash", "--norc", "--noprofile"]
    return [(*XTERM, "-geometry", "120x45+200+80", "-e", "env", "PS1=user@desk:~$ ", "HISTFILE=", *shell)]


def editor(work: Path) -> list[Sequence[str]]:
    copy = work / "argparse.py"
    shutil.copy(SOURCE, copy)
    command = ["vim", "-u", "NONE", "-n", "-c", "syntax on", "-c", "set number scrolloff=3 nocompatible", "-c", "120", str(copy)]
    return [(*XTERM, "-geometry", "150x50+100+40", "-e", *command)]


def page(work: Path) -> list[Sequence[str]]:
    return [chromium(DOCS / "library" / "stdtypes.html", work)]


def window(work: Path) -> list[Sequence[str]]:
    listing = ["sh", "-c", "ls -la /usr/lib/python3.11 | head -38; sleep 1000"]
    return [chromium(DOCS / "library" / "functions.html", work), (*XTERM, "-geometry", "84x40+200+120", "-T", "moved", "-e", *listing)]


def photos() -> list[Path]:
    return sorted(path for path in PHOTOS.glob("*.jpg"))


def slides(work: Path) -> list[Sequence[str]]:
    """Twelve slides: titles, lists, a table, and every third with a photograph."""
    pictures = photos()
    points = [line.strip("# \n") for line in SOURCE.read_text().splitlines() if len(line.strip("# \n")) > 30]
    parts = []
    for number in range(12):
        lines = "".join(f"<li>{point[:60].replace('<', '&lt;')}</li>" for point in points[number * 7 : number * 7 + 6])
        body = f"<ul>{lines}</ul>"
        if number % 3 == 0:
            body = f'<div class=two><ul>{lines}</ul><img src="file://{pictures[number % len(pictures)]}"></div>'
        elif number % 3 == 1:
            rows = "".join(f"<tr><td>Item {row}</td><td>{row * 37 % 101}</td><td>{row * 53 % 97}%</td></tr>" for row in range(1, 9))
            body = f"<table>{rows}</table>"
        parts.append(f"<section><h1>Part {number + 1}: what it means</h1>{body}</section>")
    style = (
        "body{margin:0;font:34px 'DejaVu Sans'}section{display:none;background:linear-gradient(160deg,#fff,#dde6f2);position:fixed;inset:0;"
        "padding:60px 90px}h1{color:#1c3f6e;font-size:64px}"
        "li{margin:18px}.two{display:flex;gap:40px}.two ul{width:50%;font-size:27px}.two img{width:45%;height:600px;object-fit:cover}"
        "td{border-bottom:2px solid #89a;padding:12px 90px 12px 10px}"
    )
    script = "let at=0;const all=document.querySelectorAll('section');"
    script += "const go=n=>{all[at].style.display='none';at=(n+all.length)%all.length;all[at].style.display='block'};go(0);"
    script += "addEventListener('keydown',e=>{if(e.key==='ArrowRight')go(at+1);if(e.key==='ArrowLeft')go(at-1)})"
    file = work / "slides.html"
    file.write_text(f"<meta charset=utf-8><title>Slides</title><style>{style}</style>{''.join(parts)}<script>{script}</script>")
    return [chromium(file, work, "--kiosk")]


def album(work: Path) -> list[Sequence[str]]:
    """Photographs, one filling the screen; right shows the next, up zooms in steps."""
    images = "".join(f'<img src="file://{path}">' for path in photos()[:6])
    style = "body{margin:0;background:#111;overflow:hidden}"
    style += "img{position:fixed;width:100vw;height:100vh;object-fit:cover;visibility:hidden;will-change:transform}"
    script = "let at=0,zoom=1;const all=document.querySelectorAll('img');"
    script += "const show=()=>all.forEach((i,n)=>{i.style.visibility=n===at?'visible':'hidden';i.style.transform=`scale(${zoom})`});show();"
    script += "addEventListener('keydown',e=>{if(e.key==='ArrowRight'){at=(at+1)%all.length;zoom=1}if(e.key==='ArrowUp')zoom*=1.08;show()})"
    file = work / "album.html"
    file.write_text(f"<meta charset=utf-8><title>Album</title><style>{style}</style>{images}<script>{script}</script>")
    return [chromium(file, work, "--kiosk")]


def clip(work: Path) -> list[Sequence[str]]:
    """A film of 640 × 360 in a page of text: photographs that move, turn and fade, with grain."""
    film = work / "clip.webm"
    inputs: list[str] = []
    for path in photos()[6:9]:
        inputs += ["-loop", "1", "-t", "6", "-i", str(path)]
    moves = [
        "scale=1280:720,zoompan=z='1+0.004*on':x='on*1.5':y='on*0.8':d=1:s=640x360:fps=24",
        "scale=1280:720,zoompan=z='1.6-0.003*on':x='320-on':y='on*1.2':d=1:s=640x360:fps=24",
        "scale=1280:720,zoompan=z='1.2+0.002*on':x='on*2':y='120':d=1:s=640x360:fps=24",
    ]
    chain = ";".join(f"[{at}]{move},noise=alls=6:allf=t,format=yuv420p[v{at}]" for at, move in enumerate(moves))
    chain += ";[v0][v1]xfade=duration=0.7:offset=4.5[a];[a][v2]xfade=duration=0.7:offset=9[out]"
    command = ["ffmpeg", "-v", "error", "-y", *inputs, "-filter_complex", chain, "-map", "[out]", "-t", "14"]
    subprocess.run([*command, "-c:v", "libvpx", "-b:v", "4M", "-deadline", "realtime", "-cpu-used", "4", str(film)], check=True)
    words = " ".join(SOURCE.read_text().split()[:900]).replace("<", "&lt;")
    file = work / "film.html"
    body = f"<p>{words[:1500]}</p><video src='clip.webm' width=640 height=360 loop muted></video><p>{words[1500:5000]}</p>"
    script = "addEventListener('keydown',e=>{if(e.key==='p')document.querySelector('video').play()})"
    file.write_text(
        f"<meta charset=utf-8><title>Film</title><body style='font:18px DejaVu Sans;margin:40px 200px'>{body}<script>{script}</script>"
    )
    return [chromium(file, work)]


def drag() -> Iterator[Act]:
    """The window is taken by its title and led about, with rests."""
    x, y = 420, 130
    yield Act(0.1, ("mousemove", str(x), str(y)))
    yield Act(0.2, ("mousedown", "1"))
    for step in range(80):
        if step % 40 < 34:
            x += (11, 17, -9, -14)[step // 20]
            y += (5, -3, 9, 2)[step // 20]
        yield Act(0.35 + step * 0.1, ("mousemove", str(x), str(y)))
    yield Act(8.6, ("mouseup", "1"))


def scenes() -> list[Scene]:
    shell = "cd /usr/lib/python3.11\nls\ngrep -n import argparse.py | head -60\ncat textwrap.py | head -90\nls -la | tail -30\n"
    edit = [
        *keys(0.3, 0.25, *["ctrl+e"] * 6),
        *keys(2.0, 0.5, "ctrl+d", "ctrl+d", "ctrl+u", "ctrl+f"),
        *keys(4.2, 0.1, *["j"] * 12),
        Act(5.5, ("key", "o")),
    ]
    edit += [*typed(5.8, "value = parser.parse(args)  # read", 0.11), Act(9.8, ("key", "Escape"))]
    wheel = [Act(0.3 + at * 0.15, ("click", "5" if at % 50 < 38 else "4")) for at in range(45)]
    wheel += [*keys(7.4, 0.7, "Next", "Next", "Prior")]
    still = (Act(0, ("mousemove", "1600", "1000")),)
    title = (Act(0, ("mousemove", "420", "130")), Act(0.5, ("search", "--name", "moved", "windowactivate")))
    zooms = ["Right", "Up", "Up", "Up", "Up", "Right", "Up", "Up", "Right", "Up", "Up", "Up", "Right", "Right", "Up", "Up"]
    return [
        Scene("term", terminal, (Act(0, ("mousemove", "600", "400")),), tuple(typed(0.2, shell, 0.09)), 3.0, 14.0),
        Scene("edit", editor, (Act(0, ("mousemove", "600", "400")),), tuple(edit), 3.0, 10.5),
        Scene("scroll", page, (Act(0, ("mousemove", "1100", "600")),), tuple(wheel), 12.0, 10.0),
        Scene("window", window, title, tuple(drag()), 12.0, 9.5),
        Scene("slides", slides, still, tuple(keys(0.5, 1.5, *["Right"] * 9)), 12.0, 15.0),
        Scene("photo", album, still, tuple(keys(0.5, 0.5, *zooms)), 14.0, 10.5),
        Scene("video", clip, (*still, Act(1, ("key", "p"))), (), 12.0, 10.0),
    ]


def missing() -> list[str]:
    return [package for what, package in NEEDS.items() if not (Path(what).exists() if what[0] == "/" else shutil.which(what))]


@contextmanager
def running(scene: Scene, display: str) -> Iterator[None]:
    """The scene's programs on a display, settled; ended when the block ends."""
    environment = {**os.environ, "DISPLAY": display, "LC_ALL": "C.UTF-8"}
    with tempfile.TemporaryDirectory(prefix="parley-scene-", ignore_cleanup_errors=True) as folder, ExitStack() as stack:
        work = Path(folder)
        environment["HOME"] = folder
        for command in [["openbox"], *scene.programs(work)]:
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0
            )
            stack.callback(_end, process)
            time.sleep(1.0)
        time.sleep(scene.settle)
        for act in scene.before:
            _do(act, environment)
            time.sleep(0.5)
        time.sleep(1.0)
        yield


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, 15)
        process.wait(5)
    except ProcessLookupError:
        pass
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()


def _do(act: Act, environment: dict[str, str]) -> None:
    subprocess.run(["xdotool", *act.words], env=environment, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def play(scene: Scene, display: str) -> None:
    """Act it, in real time; returns at its end."""
    environment = {**os.environ, "DISPLAY": display}
    start = time.monotonic()
    for act in scene.acts:
        time.sleep(max(0.0, start + act.at - time.monotonic()))
        _do(act, environment)
    time.sleep(max(0.0, start + scene.seconds - time.monotonic()))


async def record(scene: Scene) -> Recording:
    frames: list[Frame] = []
    compressor = zstandard.ZstdCompressor(level=1)
    async with xvfb_desktop(WIDTH, HEIGHT, []) as display:
        stage = running(scene, display)
        await trio.to_thread.run_sync(stage.__enter__)
        try:
            async with X11Source(display) as source:
                before = blank(WIDTH, HEIGHT)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trio.to_thread.run_sync, play, scene, display)
                    start = trio.current_time()
                    for number in range(round(scene.seconds * FPS)):
                        picture, damage = source.grab()
                        difference = picture ^ before
                        changed = bool(difference.any())
                        packed = await trio.to_thread.run_sync(compressor.compress, difference.tobytes()) if changed else b""
                        frames.append(
                            Frame(None if damage is None else [(x, y, width, height) for x, y, width, height in damage], changed, packed)
                        )
                        before[:] = picture
                        await trio.sleep_until(start + (number + 1) / FPS)
        finally:
            await trio.to_thread.run_sync(stage.__exit__, None, None, None)
    return Recording(WIDTH, HEIGHT, frames)


def cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "parley-bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def recording(scene: Scene, anew: bool = False) -> Recording:
    """From the cache, or made now."""
    file = cache() / f"screen-{scene.name}-{SCRIPT}.msgpack"
    if anew or not file.exists():
        lacking = missing()
        if lacking:
            sys.exit(f"The corpus cannot be recorded: install {' '.join(lacking)}")
        print(f"recording {scene.name} …", file=sys.stderr)
        made = trio.run(record, scene)
        part = file.with_suffix(".part")
        part.write_bytes(msgspec.msgpack.encode(made))
        part.replace(file)
    return msgspec.msgpack.decode(file.read_bytes(), type=Recording)


def pictures(recorded: Recording, at_most: int | None = None) -> Iterator[tuple[Picture, list[Rect] | None, bool]]:
    """(the picture, its damage, whether it changed) one after the other. The array is the same one each time."""
    picture = blank(recorded.width, recorded.height)
    flat = picture.reshape(-1)
    decompressor = zstandard.ZstdDecompressor()
    for frame in recorded.frames[:at_most]:
        if frame.changed:
            flat ^= np.frombuffer(decompressor.decompress(frame.packed), np.uint8)
        yield picture, None if frame.damage is None else [Rect(*rect) for rect in frame.damage], frame.changed
