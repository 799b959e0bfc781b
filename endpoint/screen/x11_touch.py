"""Mouse and keyboard of an X11 display, moved through XTEST; and the eye on whether its own person uses them.

A key event names a keysym and presses the key that bears it. Text is typed character by character: a character on a key's first or second
level is that key, with Shift as needed; any other is put on a spare key first (a keyboard has a dozen or more that mean nothing), which
keeps its character until another one needs the key. Programs learn of the change through their own queue, before the key press behind it.
They ask for the whole map then, so a spare key changes again after `SETTLE` only. Spare keys are emptied in the end.

Raw XInput events tell which device moved. Ours is XTEST; what comes of another device, or of XTEST and is not ours (an on-screen
keyboard, say), is the person's.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

import trio

from endpoint.hands import Button, InputEvent, Key, Move, Text, Wheel
from endpoint.screen.picture import ScreenError
from endpoint.screen.x11_display import Display

SETTLE: Final = 0.2
"""Seconds for programs to read the map after a spare key has changed."""
MAX_HELD: Final = 32
TAKE_BACK: Final = 0xFF13
"""The key that takes mouse and keyboard back: Pause."""

_KEY_PRESS, _KEY_RELEASE, _BUTTON_PRESS, _BUTTON_RELEASE, _MOTION = 2, 3, 4, 5, 6
_RAW: Final = {"RawKeyPressEvent": _KEY_PRESS, "RawKeyReleaseEvent": _KEY_RELEASE, "RawButtonPressEvent": _BUTTON_PRESS,
               "RawButtonReleaseEvent": _BUTTON_RELEASE, "RawMotionEvent": _MOTION}  # fmt: skip
_RAW_MASK: Final = 1 << 13 | 1 << 14 | 1 << 15 | 1 << 16 | 1 << 17
_ALL_MASTERS: Final = 1
_ANY_MODIFIER: Final = 1 << 15
_LOCK: Final = 2
_SHIFT, _CAPS_LOCK, _RETURN = 0xFFE1, 0xFFE5, 0xFF0D
_CONTROLS: Final = {"\n": _RETURN, "\r": _RETURN, "\t": 0xFF09, "\b": 0xFF08}
_WHEELS: Final = ((4, 5), (6, 7))
"""Buttons that X takes for notches: up and down, left and right."""


def keysym_of(character: str) -> int | None:
    """The keysym that means this character; None for a control character that is no key."""
    if character in _CONTROLS:
        return _CONTROLS[character]
    code = ord(character)
    if code < 0x20 or 0x7F <= code < 0xA0:
        return None
    return code if code < 0x100 else 0x0100_0000 + code


class X11Touch:
    """See `endpoint.screen.touch.Touch`. place: from a pixel of the shared picture to one of the display; None: not on it."""

    def __init__(self, display: str | None = None, place: Callable[[int, int], tuple[int, int] | None] = lambda x, y: (x, y)) -> None:
        self._display = Display(display)
        self._eye = Display(display)  # a connection of its own: answers on the other one would swallow what wakes us
        self._place = place
        self._xtest: Any = None
        self._root = 0
        self._keys: dict[int, int] = {}  # held: keysym → keycode
        self._buttons: set[int] = set()
        self._codes: dict[int, tuple[int, int]] = {}  # keysym → keycode, level
        self._spare: OrderedDict[int, tuple[int, float]] = OrderedDict()  # keycode → keysym (0: none), when it was set; the oldest first
        self._ours: Counter[tuple[int, int]] = Counter()  # what we sent and have not seen come back
        self._our_devices: set[int] = set()
        self._take_back_codes: set[int] = set()

    @property
    def held(self) -> bool:
        return bool(self._keys or self._buttons)

    async def __aenter__(self) -> Self:
        """Raises ScreenError `no-display`, `unsupported-display`."""
        await self._display.open()
        try:
            await self._eye.open()
            with self._display.errors():
                self._prepare()
        except BaseException:
            self._eye.close()
            self._display.close()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.release()
            with self._display.errors():
                self._sync()  # a server forgets what it has not read of a connection that closes, a release too
            used = [code for code, (keysym, _) in self._spare.items() if keysym]
            if used:
                with trio.CancelScope(shield=True):  # the last characters may not have been read yet
                    await trio.sleep(SETTLE)
                with self._display.errors():
                    for code in used:
                        self._assign(code, 0)
                    self._sync()
        except ScreenError:
            pass  # the display has gone, and its map with it
        finally:
            self._eye.close()
            self._display.close()

    def _prepare(self) -> None:
        display, eye = self._display, self._eye
        self._root = display.root
        self._xtest = display.extension("xtest")
        self._xtest.GetVersion(2, 2).reply()
        xinput = eye.extension("xinput")
        xinput.XIQueryVersion(2, 2).reply()
        for device in xinput.XIQueryDevice(0).reply().infos:
            if b"XTEST" in b"".join(device.name):
                self._our_devices.add(device.deviceid)
        mask = eye.module("xinput").EventMask.synthetic(_ALL_MASTERS, 1, [_RAW_MASK])
        xinput.XISelectEventsChecked(self._root, 1, [mask]).check()
        self._read_map()
        self._take_back_codes = {code for keysym, (code, _) in self._codes.items() if keysym == TAKE_BACK}
        for code in self._take_back_codes:
            with suppress(display.x.Error):  # another program has it: then raw events tell alone
                eye.connection.core.GrabKeyChecked(True, self._root, _ANY_MODIFIER, code, 1, 1).check()

    def _read_map(self) -> None:
        """What each key bears, in the group that is active."""
        x = self._display.connection
        setup = x.get_setup()
        first, count = setup.min_keycode, setup.max_keycode - setup.min_keycode + 1
        answer = x.core.GetKeyboardMapping(first, count).reply()
        per, keysyms = answer.keysyms_per_keycode, list(answer.keysyms)
        group = x.core.QueryPointer(self._root).reply().mask >> 13 & 3
        at = 2 * group if per >= 2 * group + 2 else 0
        codes: dict[int, tuple[int, int]] = {}
        empty: list[int] = []
        for n in range(count):
            row = keysyms[n * per : (n + 1) * per]
            if not any(row):
                empty.append(first + n)
            pair = row[at : at + 2] if any(row[at : at + 2]) else row[:2]
            for level in (0, 1):
                if level < len(pair) and pair[level] and codes.get(pair[level], (0, 2))[1] > level:
                    codes[pair[level]] = (first + n, level)
        self._codes = codes
        for code in empty:
            self._spare.setdefault(code, (0, 0.0))
        for code, (keysym, _) in list(self._spare.items()):
            row = keysyms[(code - first) * per : (code - first + 1) * per]
            if any(row) and row[0] != keysym:
                del self._spare[code]  # somebody else has put a meaning on it

    # --- doing ---

    async def act(self, event: InputEvent) -> None:
        """See `Touch.act`. Raises ScreenError `display-lost`."""
        with self._display.errors():
            try:
                await self._do(event)
            finally:  # cancelled too: what was begun is undone, and must arrive
                self._display.connection.flush()

    async def _do(self, event: InputEvent) -> None:
        match event:
            case Move(x, y):
                place = self._place(x, y)
                if place is not None:
                    self._fake(_MOTION, 0, *place)
            case Button(button, down):
                self._press_button(button, down)
            case Wheel(right, down):
                for notches, (back, forth) in ((down, _WHEELS[0]), (right, _WHEELS[1])):
                    for _ in range(abs(notches)):
                        self._tap_button(forth if notches > 0 else back)
            case Key(keysym, down):
                await self._press_key(keysym, down)
            case Text(text):
                await self._type(text)

    def release(self) -> None:
        """See `Touch.release`."""
        with self._display.errors():
            for keysym in list(self._keys):
                self._fake(_KEY_RELEASE, self._keys.pop(keysym))
            for button in list(self._buttons):
                self._buttons.discard(button)
                self._fake(_BUTTON_RELEASE, button)
            self._display.connection.flush()

    def _fake(self, kind: int, detail: int, x: int = 0, y: int = 0) -> None:
        if kind != _MOTION:
            self._ours[kind, detail] += 1
        self._xtest.FakeInput(kind, detail, 0, self._root, x, y, 0)

    def _press_button(self, button: int, down: bool) -> None:
        if down != (button in self._buttons):
            (self._buttons.add if down else self._buttons.discard)(button)
            self._fake(_BUTTON_PRESS if down else _BUTTON_RELEASE, button)

    def _tap_button(self, button: int) -> None:
        self._fake(_BUTTON_PRESS, button)
        self._fake(_BUTTON_RELEASE, button)

    async def _press_key(self, keysym: int, down: bool) -> None:
        if not down:
            code = self._keys.pop(keysym, None)
            if code is not None:
                self._fake(_KEY_RELEASE, code)
        elif keysym not in self._keys and len(self._keys) < MAX_HELD:
            found = self._codes.get(keysym)
            code = found[0] if found else await self._spare_key(keysym)
            if code is not None:
                self._keys[keysym] = code
                self._fake(_KEY_PRESS, code)

    async def _type(self, text: str) -> None:
        shift = self._codes.get(_SHIFT)
        caps = self._codes.get(_CAPS_LOCK) if self._display.connection.core.QueryPointer(self._root).reply().mask & _LOCK else None
        if caps:  # it would turn letters round
            self._tap(caps[0])
        try:
            for character in text:
                await self._type_one(character, shift)
        finally:
            if caps:
                self._tap(caps[0])

    async def _type_one(self, character: str, shift: tuple[int, int] | None) -> None:
        keysym = keysym_of(character)
        if keysym is None:
            return
        found = self._codes.get(keysym)
        if found is None:
            code = await self._spare_key(keysym)
            if code is not None:
                self._tap(code)
            return
        code, level = found
        held = shift is not None and shift[0] in self._keys.values()
        turn = shift is not None and held != (level == 1) and 0x20 <= keysym < 0xFF00  # Shift is ours to press, and to lift
        if turn and shift:
            self._fake(_KEY_RELEASE if held else _KEY_PRESS, shift[0])
        self._tap(code)
        if turn and shift:
            self._fake(_KEY_PRESS if held else _KEY_RELEASE, shift[0])

    def _tap(self, code: int) -> None:
        self._fake(_KEY_PRESS, code)
        self._fake(_KEY_RELEASE, code)

    # --- spare keys ---

    async def _spare_key(self, keysym: int) -> int | None:
        """A key that bears `keysym`, the one that has not been needed for longest; None if this keyboard has none to spare."""
        for code, (borne, _) in self._spare.items():
            if borne == keysym:
                self._spare[code] = (keysym, trio.current_time())
                self._spare.move_to_end(code)
                return code
        free = [code for code in self._spare if code not in self._keys.values()]
        if not free:
            return None
        code = next((code for code in free if not self._spare[code][0]), free[0])
        borne, since = self._spare[code]
        if borne:
            self._display.connection.flush()
            await trio.sleep_until(since + SETTLE)
        self._assign(code, keysym)
        self._spare[code] = (keysym, trio.current_time())
        self._spare.move_to_end(code)
        self._sync()
        return code

    def _assign(self, code: int, keysym: int) -> None:
        self._display.connection.core.ChangeKeyboardMapping(1, code, 2, [keysym, keysym])

    def _sync(self) -> None:
        self._display.connection.core.GetInputFocus().reply()

    # --- whose hands ---

    async def local(self) -> bool:
        """See `Touch.local`. Raises ScreenError `display-lost`."""
        await trio.lowlevel.checkpoint()
        while True:
            with self._eye.errors():
                found = None
                while found is None and (event := self._eye.connection.poll_for_event()) is not None:
                    found = self._judge(event)
                if found is not None:
                    return found
            await self._eye.readable()

    def _judge(self, event: Any) -> bool | None:
        """Whether this is the person's: True by the key that takes back, False by any other; None: it is not."""
        name = type(event).__name__
        if name == "MappingNotifyEvent" and event.request == 1:
            self._read_map()
            return None
        kind = _RAW.get(name)
        if kind is None:
            return True if name == "KeyPressEvent" and event.detail in self._take_back_codes else None
        if kind == _MOTION:
            return None if event.sourceid in self._our_devices else False
        if event.sourceid in self._our_devices and self._ours[kind, event.detail]:
            self._ours[kind, event.detail] -= 1
            return None
        return bool(kind == _KEY_PRESS and event.detail in self._take_back_codes)
