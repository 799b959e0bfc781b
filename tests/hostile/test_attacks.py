"""Each attack by name: every honest member that it reaches notices it under the name that the threat model gives, and the session goes on."""

from pathlib import Path

import pytest

from tests.hostile import chair, manager, member, relay
from tests.hostile.scene import Attack, Scene

ATTACKS = [
    found
    for module in (relay, manager, member, chair)
    for found in vars(module).values()
    if isinstance(found, type) and issubclass(found, Attack) and found.__module__ == module.__name__ and hasattr(found, "detected")
]


@pytest.mark.parametrize("kind", ATTACKS, ids=lambda kind: f"{kind.__module__.rpartition('.')[2]}-{kind.__name__}")
def test_B08_G26_an_attack_is_named_and_the_session_goes_on(kind: type[Attack]) -> None:
    scene, attack = Scene(), kind()
    before = {each: scene.counted(each) for each in scene.honest}
    attack.mount(scene)
    for each in attack.at(scene):
        found = scene.counted(each) - before.get(each, type(scene.counted(each))())
        assert {name for name in attack.detected if found[name]} == set(attack.detected), (each, found)
    scene.goes_on(without=attack.lost(scene))


def test_there_is_an_attack_of_each_kind() -> None:
    assert len(ATTACKS) >= 38
    assert all(attack.__doc__ for attack in ATTACKS)


def test_the_threat_model_lists_every_attack_with_its_names() -> None:
    text = (Path(__file__).parents[2] / "docs" / "threat-model.md").read_text()
    for attack in ATTACKS:
        sentence = " ".join((attack.__doc__ or "").split())
        names = ", ".join(f"`{name}`" for name in attack.detected)
        assert f"| {attack.__module__.rpartition('.')[2]} | `{attack.__name__}` | {sentence} | {names} |\n" in text, attack
