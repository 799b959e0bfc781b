"""What a person types, and what a program writes to standard input, as lines. Sans-IO parsers and one reader.

While a screen region is kept fresh, the terminal's own line editing would be drawn over; so keys come one by one without echo, and the
region shows the line that is being typed. Ctrl-C and Ctrl-Z stay the terminal's.
"""

import codecs
import os
import re
import sys
import termios
import tty
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, Protocol

import trio

MAX_TYPED: Final = 5_000
"""Characters of one line; more are not taken."""
MAX_LINE: Final = 1 << 16
"""Bytes of one line from a program; a longer one is cut."""
_SEQUENCE: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O.|[^\[O])", re.DOTALL)
_BEGUN: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|O)?")


class Parser(Protocol):
    def feed(self, data: bytes) -> list[str]: ...

    def rest(self) -> list[str]: ...


class LineParser:
    """Lines of a pipe or a file."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> list[str]:
        """The lines that are complete now, without their ends."""
        self._held += data
        *whole, rest = self._held.split(b"\n")
        self._held = bytearray(rest[:MAX_LINE])
        return [_text(line) for line in whole]

    def rest(self) -> list[str]:
        """At the end: a last line that has no end."""
        held, self._held = self._held, bytearray()
        return [_text(held)] if held else []


def _text(line: bytearray) -> str:
    return line[:MAX_LINE].decode("utf-8", "replace").removesuffix("\r")


class LineEditor:
    """Keys of a terminal: `text` is the line so far. Backspace, Ctrl-U (line), Ctrl-W (word), Tab (what `complete` finds: whole lines that
    this one may become); other control keys do nothing."""

    def __init__(self, complete: Callable[[str], list[str]] | None = None) -> None:
        self.text = ""
        self._complete = complete
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._escape = ""

    def feed(self, data: bytes) -> list[str]:
        """The lines that Enter has ended."""
        keys = self._escape + self._decoder.decode(data)
        self._escape, done, at = "", [], 0
        while at < len(keys):
            if keys[at] == "\x1b":
                sequence = _SEQUENCE.match(keys, at)
                if sequence is None:
                    if _BEGUN.fullmatch(keys, at) and len(keys) - at < 32:
                        self._escape = keys[at:]
                        break
                    at += 1
                else:
                    at = sequence.end()
                continue
            if keys[at] in "\r\n":
                done.append(self.text)
                self.text = ""
            else:
                self._key(keys[at])
            at += 1
        return done

    def rest(self) -> list[str]:
        return []

    def _key(self, key: str) -> None:
        if key in "\x7f\x08":
            self.text = self.text[:-1]
        elif key == "\x15":
            self.text = ""
        elif key == "\x17":
            kept, _, _ = self.text.rstrip().rpartition(" ")
            self.text = kept + " " if kept else ""
        elif key == "\t" and self._complete is not None:
            found = self._complete(self.text)
            if len(found) == 1:
                self.text = found[0]
            elif found:
                alike = [len({letter.casefold() for letter in letters}) == 1 for letters in zip(*found, strict=False)]
                shared = alike.index(False) if False in alike else len(alike)
                self.text = max(self.text, found[0][:shared], key=len)
        elif key >= " " and len(self.text) < MAX_TYPED:
            self.text += key


async def read_lines(parser: Parser, descriptor: int = 0) -> AsyncGenerator[str, None]:
    """Lines as they come, until the input ends."""
    while True:
        try:
            await trio.lowlevel.wait_readable(descriptor)
        except OSError:
            await trio.lowlevel.checkpoint()  # a file or /dev/null: always readable, so epoll does not take it
        try:
            data = os.read(descriptor, MAX_LINE)
        except OSError:  # closed, or its terminal is gone
            return
        for line in parser.feed(data) if data else parser.rest():
            yield line
        if not data:
            return


def at_keyboard() -> bool:
    """Whether a person sits at standard input, and this program is in the foreground there."""
    try:
        return sys.stdin is not None and os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


@contextmanager
def single_keys() -> Iterator[None]:
    """Keys of standard input one by one and without echo, while the block runs."""
    before = termios.tcgetattr(0)
    try:
        tty.setcbreak(0, termios.TCSANOW)  # what is typed already is not thrown away
        yield
    finally:
        with suppress(termios.error):  # the terminal has gone away
            termios.tcsetattr(0, termios.TCSADRAIN, before)
