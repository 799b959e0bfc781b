"""The decoder does what tests/vectors/screen.json says, step by step."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from endpoint.screen.decoder import Decoder
from endpoint.screen.picture import Picture, ScreenError

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parents[2] / "vectors" / "screen.json").read_text())["cases"]


def take(decoder: Decoder, step: dict[str, Any]) -> list[list[int]]:
    if "load" in step:
        decoder.load(bytes.fromhex(step["load"]))
        height, width = decoder.picture.shape[:2]
        return [[0, 0, width, height]]
    return [list(rect) for rect in decoder.apply(bytes.fromhex(step["apply"]), restart=step["restart"])]


def expected(step: dict[str, Any]) -> Picture:
    picture = step["picture"]
    bgr = np.frombuffer(bytes.fromhex(picture["bgr"]), np.uint8).reshape(picture["height"], picture["width"], 3)
    return np.dstack([bgr, np.full(bgr.shape[:2], 255, np.uint8)])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"].replace(" ", "-"))
def test_vectors(case: dict[str, Any]) -> None:
    decoder = Decoder()
    last: Picture | None = None
    within = 0
    for step in case["steps"]:
        if "error" in step:
            with pytest.raises(ScreenError) as refusal:
                take(decoder, step)
            assert refusal.value.name == step["error"]
        else:
            assert take(decoder, step) == step["rects"]
            last, within = expected(step), step["picture"].get("within", 0)
        if last is not None:
            assert decoder.picture.shape == last.shape
            assert np.abs(decoder.picture.astype(int) - last).max() <= within
