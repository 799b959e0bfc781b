"""VP9 through PyAV, 4:4:4: pictures of a region in, frames out, and back.

Profile 1 (4:4:4, 8 bits), BT.709, full range: Chromium's WebCodecs decodes it as it is, and coloured text keeps its colours.
Every frame is shown, none refers to the future, so one picture in is one frame out.

A stranger's frame is looked at before the decoder gets it: only frames that show something, only in the size that was announced, so
that nothing larger than the region is ever allocated. (VP9 bitstream specification 0.6, section 6.2.)
"""

from fractions import Fraction
from typing import Any, Final

import av
import av.error
import av.logging
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from endpoint.screen.layout import bad_update
from endpoint.screen.picture import Picture, Words, words

av.logging.set_level(None)  # a stranger's frames must not write to our terminal

QUALITIES: Final = (20, 30, 40, 52, 63)
"""Quantisers (libvpx's `crf`), the best first: the first is near 42 dB, the last a sketch."""
HALF_QUALITIES: Final = (38, 44, 50, 56, 63)
"""The same at half the size, where finer ones buy bytes and no likeness: what is lost by making a picture smaller stays lost."""
_BAND: Final = 32
"""Rows that are made smaller together; an even number."""
_FORMATS: Final = ("yuv444p", "yuvj444p", "gbrp")
CODEC: Final = "vp09.01.40.08.03.01.01.01.01"
"""What to tell WebCodecs: profile 1, level 4, 8 bits, 4:4:4, BT.709, full range. Chromium believes this, not the stream."""


class FilmEncoder:
    """One VP9 stream of pictures that all have the size given here, in pixels."""

    def __init__(self, width: int, height: int, quantiser: int) -> None:
        self._size = width, height
        context = av.CodecContext.create("libvpx-vp9", "w")
        assert isinstance(context, av.VideoCodecContext)
        context.width, context.height, context.pix_fmt = width, height, "yuv444p"
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.JPEG  # said in the stream: browsers obey it
        context.time_base = Fraction(1, 30)
        context.gop_size = 100_000  # keys come when they are asked for
        context.thread_count = 1
        context.options = {
            "deadline": "realtime",
            "speed": "9",
            "lag-in-frames": "0",
            "auto-alt-ref": "0",
            "crf": str(quantiser),
            "b": "0",
        }
        self._context: Any = context
        self._reformatter = VideoReformatter()  # to make one takes longer than to convert a small picture
        self._count = 0

    def encode(self, picture: Picture) -> bytes:
        """One frame; the first is a key. The picture has the stream's size, or twice as much: then it is made smaller."""
        if (picture.shape[1], picture.shape[0]) != self._size:
            picture = halved(picture)
        frame = self._reformatter.reformat(
            av.VideoFrame.from_ndarray(picture, format="bgra"),
            format="yuv444p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.JPEG,
        )
        frame.pts = self._count
        self._count += 1
        packets = self._context.encode(frame)
        return bytes(packets[0])


def halved(picture: Picture) -> Picture:
    """A picture half as wide and high (an odd one is rounded up): each pixel the mean of four, all of its bytes at once."""
    pixels = words(picture)
    height, width = pixels.shape
    small = np.empty((-(-height // 2), -(-width // 2)), np.uint32)
    for top in range(0, height, _BAND):  # the work stays in the processor's cache
        _halve(pixels[top : top + _BAND], small[top // 2 : (top + _BAND) // 2])
    return small.view(np.uint8).reshape(*small.shape, 4)


def _halve(pixels: Words, small: Words) -> None:
    upper, lower = pixels[0::2], pixels[1::2]
    if len(lower) < len(upper):
        lower = pixels[[*range(1, len(pixels), 2), -1]]
    rows = _mean(upper, lower)
    if rows.shape[1] % 2:
        rows = np.concatenate((rows, rows[:, -1:]), axis=1)
    pairs = rows.view(np.uint64)  # the left pixel below, the right one above
    right = pairs >> np.uint64(32)
    means = pairs ^ right
    means &= np.uint64(0xFEFEFEFE)
    means >>= np.uint64(1)
    means += pairs & right
    small[:] = means


def _mean(a: Words, b: Words) -> Words:
    """Of each byte, rounded down: what both have, and half of what one has."""
    mean: Words = a ^ b
    mean &= np.uint32(0xFEFEFEFE)
    mean >>= np.uint32(1)
    mean += a & b
    return mean


class FilmDecoder:
    """The other side: one stream after the other."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        self.begin()

    def begin(self) -> None:
        """Another stream; what was left of the one before is gone."""
        self._context: Any = av.CodecContext.create("vp9", "r")
        self._context.thread_count = 1
        self._size = (0, 0)

    def decode_untrusted(self, frame: bytes, coded: tuple[int, int], shown: tuple[int, int]) -> Picture:
        """The frame's picture, `shown` = (width, height) large. Raises ScreenError `bad-update`."""
        key = check_frame_untrusted(frame, coded)
        if not key and self._size != coded:
            raise bad_update("a film goes on that never began")
        try:
            pictures = self._context.decode(av.Packet(frame))
        except (av.error.FFmpegError, ValueError) as error:
            raise bad_update(f"its film: {error}") from None
        if len(pictures) != 1 or (pictures[0].width, pictures[0].height) != coded or pictures[0].format.name not in _FORMATS:
            raise bad_update("its film has another shape than it says")
        self._size = coded
        bgra = self._reformatter.reformat(
            pictures[0],
            *shown,
            format="bgra",
            src_colorspace=Colorspace.ITU709,
            src_color_range=ColorRange.JPEG,
            interpolation=Interpolation.BILINEAR,
        )
        picture: Picture = np.ascontiguousarray(bgra.to_ndarray())
        return picture


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise bad_update("its film is cut off")
        return self._value >> self._left & (1 << count) - 1


def check_frame_untrusted(frame: bytes, coded: tuple[int, int]) -> bool:
    """Whether it is a key frame; refuses what is no shown 4:4:4 frame of that size. Raises ScreenError `bad-update`."""
    bits = _Bits(frame[:24])
    if bits.take(2) != 2 or bits.take(2) != 2:  # frame marker; profile 1, its lower bit first
        raise bad_update("its film is not VP9 of profile 1")
    if frame[-1] & 0xE0 == 0xC0:
        raise bad_update("its film holds several frames")  # a superframe's index; libvpx never lets a single frame end so
    if bits.take(1):
        raise bad_update("its film shows an earlier frame")
    key, shown, resilient = not bits.take(1), bits.take(1), bits.take(1)
    if not shown:
        raise bad_update("its film holds a hidden frame")
    if key:
        if bits.take(24) != 0x498342:
            raise bad_update("its film has no sync code")
        space = bits.take(3)
        if space != 7:
            bits.take(1)  # range
            if bits.take(2) != 0:  # subsampling in x and y
                raise bad_update("its film is not 4:4:4")
        if bits.take(1):
            raise bad_update("its film sets a reserved bit")
        if (bits.take(16) + 1, bits.take(16) + 1) != coded:
            raise bad_update("its film has another size than it says")
        return True
    if not resilient:
        bits.take(2)  # reset_frame_context
    bits.take(8 + 3 * 4)  # which references it refreshes and uses
    if not (bits.take(1) or bits.take(1) or bits.take(1)):
        raise bad_update("its film changes its size")
    return False
