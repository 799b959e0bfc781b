"""Keys and lines, however the bytes are cut."""

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from endpoint.cli.keys import MAX_LINE, MAX_TYPED, LineEditor, LineParser, Parser, read_lines

KEYS = st.lists(
    st.one_of(
        st.text(max_size=5).map(str.encode),
        st.sampled_from([b"\r", b"\n", b"\x7f", b"\x15", b"\x17", b"\x1b[A", b"\x1b[1;5D", b"\x1bOP", b"\x1b", b"\xff", b"\x04", b"\x1b[3~"]),
    ),
    max_size=12,
).map(b"".join)


def whole(parser: Parser, data: bytes) -> list[str]:
    return parser.feed(data) + parser.rest()


def cut(parser: Parser, data: bytes) -> list[str]:
    return [line for byte in data for line in parser.feed(bytes([byte]))] + parser.rest()


@given(KEYS)
def test_an_editor_does_not_mind_how_keys_arrive(data: bytes) -> None:
    first, second = LineEditor(), LineEditor()
    assert whole(first, data) == cut(second, data)
    assert first.text == second.text
    assert "\x1b" not in first.text


@given(st.binary(max_size=60))
def test_nor_does_a_line_parser(data: bytes) -> None:
    assert whole(LineParser(), data) == cut(LineParser(), data)


def test_an_editor_edits() -> None:
    editor = LineEditor()
    assert editor.feed("héllo wörld\x17x\x7f中\r".encode()) == ["héllo 中"]
    assert editor.feed(b"gone\x15kept\n\n") == ["kept", ""]
    assert editor.feed(b"\x1b[A\x1b[Bup\x01\x1bOPdown\r") == ["updown"]


def test_a_line_has_a_bound() -> None:
    editor = LineEditor()
    assert len(editor.feed(b"x" * (MAX_TYPED + 100) + b"\r")[0]) == MAX_TYPED
    parser = LineParser()
    parser.feed(b"x" * 10 * MAX_LINE)
    assert len(parser.feed(b"\n")[0]) <= MAX_LINE


async def test_lines_come_from_a_pipe_and_end_with_it() -> None:
    ours, theirs = os.pipe()
    os.write(theirs, b"one\r\ntwo\nthree")
    os.close(theirs)
    assert [line async for line in read_lines(LineParser(), ours)] == ["one", "two", "three"]
    os.close(ours)


async def test_a_file_and_a_closed_input_end_too(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("one\ntwo\n")
    descriptor = os.open(file, os.O_RDONLY)
    assert [line async for line in read_lines(LineParser(), descriptor)] == ["one", "two"]
    os.close(descriptor)
    assert [line async for line in read_lines(LineParser(), descriptor)] == []
