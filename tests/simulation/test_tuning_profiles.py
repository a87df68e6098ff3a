"""Profiles as files: what is written is read again, what is odd is refused with the place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowerpress.compression import ConfigError, UnknownNameError
from flowerpress.simulations.tuning.folder import INDEX, TuningFolder
from flowerpress.simulations.tuning.profile import Profile
from tests.simulation.small_tuning import made_profile

Change = Callable[[dict[str, Any]], object]


def _same(first: Profile, second: Profile) -> None:
    for name in ("names", "settings", "bytes", "errors", "energies", "sizes"):
        np.testing.assert_array_equal(getattr(first.points, name), getattr(second.points, name))
    for name in ("fisher", "loss_changes", "loss_errors"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    for name in ("manifest", "menu", "interactions", "skipped", "command", "parts"):
        assert getattr(first, name) == getattr(second, name)
    for name in ("class_weights", "facts", "config", "versions"):
        assert dict(getattr(first, name)) == dict(getattr(second, name))


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    profile = made_profile()
    path = tmp_path / "profile.json"
    path.write_text(profile.to_json())
    _same(Profile.read(path), profile)
    assert Profile.read(path).to_json() == profile.to_json()
    assert profile.measured() == ("none", "fisher", "loss")
    assert profile.sizes == {"layer0.weight": 400, "layer1.weight": 40, "layer2.weight": 4}


def test_what_could_not_be_coded_stays_so() -> None:
    data = json.loads(made_profile().to_json())
    data["points"][1]["bytes"][0] = data["points"][1]["errors"][0] = None
    data["points"][0]["fisher"] = None
    profile = Profile.from_json(json.dumps(data))
    assert np.isinf(profile.points.bytes[1, 0])
    assert profile.weights("fisher")[0] == 1.0
    again = Profile.from_json(profile.to_json())
    assert np.isinf(again.points.errors[1, 0])


def test_a_profile_without_sensitivities_has_none_to_offer() -> None:
    data = json.loads(made_profile().to_json())
    for row in data["points"]:
        row["fisher"] = row["loss_changes"] = row["loss_errors"] = None
    profile = Profile.from_json(json.dumps(data))
    assert profile.measured() == ("none",)
    np.testing.assert_array_equal(profile.weights("none"), 1.0)
    for name in ("fisher", "loss"):
        with pytest.raises(ConfigError, match="was not measured; this profile has none"):
            profile.weights(name)
    with pytest.raises(UnknownNameError, match="did you mean 'fisher'"):
        profile.weights("fish")


REFUSED: dict[str, tuple[Change, str]] = {
    "format": (lambda d: d.update(format="flowerpress.plan/1"), "tune profile makes one"),
    "extra key": (lambda d: d.update(tensor=[]), "unknown key 'tensor'"),
    "missing key": (lambda d: d.pop("settings"), "missing key 'settings'"),
    "digest": (lambda d: d.update(manifest="00" * 8), "not that of the tensors"),
    "codec": (lambda d: d["settings"].__setitem__(0, "int9"), "'int9'"),
    "code": (lambda d: d["settings"].__setitem__(0, "__import__('os')"), "settings"),
    "many settings": (lambda d: d["settings"].extend(["int8"] * 99), "at most 64"),
    "no tensors": (lambda d: d.update(tensors=[]), "'tensors' has 0"),
    "no points": (lambda d: d.update(points=[]), "no floating-point tensor"),
    "name": (lambda d: d["points"][0].update(name="layer9"), "layer9"),
    "twice": (lambda d: d["points"].append(d["points"][0]), "measured are not"),
    "dtype": (lambda d: d["tensors"][0].update(dtype="object"), "'dtype' is 'object'"),
    "shape": (lambda d: d["tensors"][0].update(shape=[-1, 2]), "tensors[0]: 'shape'"),
    "huge": (lambda d: d["tensors"][0].update(shape=[2**39, 2**39]), "too many elements"),
    "bool": (lambda d: d["tensors"][0].update(shape=[True]), "'shape'"),
    "few bytes": (lambda d: d["points"][2]["bytes"].pop(), "points[2]: 'bytes'"),
    "negative": (lambda d: d["points"][0].update(bytes=[-1, 2, 3]), "0 or more"),
    "lonely infinity": (lambda d: d["points"][0].update(bytes=[None, 2, 3]), "infinite in the"),
    "text": (lambda d: d["points"][0].update(energy="1"), "'energy' must be a finite number"),
    "fisher": (lambda d: d["points"][0].update(fisher=-1), "at least 0"),
    "trials": (lambda d: d["points"][0].update(loss_changes=[1.0]), "do not match"),
    "ragged": (
        lambda d: d["points"][0].update(loss_changes=[1.0], loss_errors=[1.0]),
        "as many values",
    ),
    "facts": (lambda d: d["facts"].update(rounds="2"), "facts: 'rounds'"),
    "interaction": (lambda d: d["interactions"][0].update(tensors=["x"]), "is called 'x'"),
    "notes": (lambda d: d.update(skipped=[1]), "list of strings"),
    "list": (lambda d: d.update(config=[]), "'config' must be an object"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_odd_profile_is_refused_with_the_place(name: str) -> None:
    change, message = REFUSED[name]
    data = json.loads(made_profile().to_json())
    change(data)
    with pytest.raises(ConfigError) as caught:
        Profile.from_json(json.dumps(data), "odd.json")
    assert str(caught.value).startswith("odd.json")
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "NaN", '"x"', "[" * 100_000, "\x00"])
def test_what_is_no_profile_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^odd\.json"):
        Profile.from_json(text, "odd.json")
    with pytest.raises(ConfigError, match="cannot read"):
        Profile.read(tmp_path / "nowhere.json")
    with pytest.raises(ConfigError, match="cannot read"):
        Profile.read(tmp_path)


_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.just([]),
    st.just({}),
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_changed_profile_is_read_or_refused_but_never_breaks(data: st.DataObject) -> None:
    found = json.loads(made_profile().to_json())
    for _ in range(data.draw(st.integers(1, 3))):
        place: Any = found
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            if isinstance(place[key], dict | list) and data.draw(st.booleans()):
                place = place[key]
                continue
            place[key] = data.draw(_VALUES)
            break
    try:
        profile = Profile.from_json(json.dumps(found))
    except ConfigError:
        return
    for name in profile.measured():
        weights = profile.weights(name)
        assert (weights > 0).all()
        assert np.isfinite(weights).all()
    Profile.from_json(profile.to_json())


def test_the_index_of_a_folder_is_read_again(tmp_path: Path) -> None:
    empty = TuningFolder.read(tmp_path)
    assert empty.path("profile") is None
    (tmp_path / "deep").mkdir()
    (tmp_path / "p.json").write_text("{}")
    folder = TuningFolder.read(tmp_path / "deep")
    folder = folder.having("profile", tmp_path / "p.json", "command", sensitivity="loss")
    folder.having("plan", tmp_path / "deep" / "gone.json").save()
    again = TuningFolder.read(tmp_path / "deep")
    assert again.files == {"profile": "../p.json", "plan": "gone.json"}
    assert again.settings == {"sensitivity": "loss"}
    assert again.commands == {"profile": "command"}
    found = again.path("profile")
    assert found is not None
    assert found.samefile(tmp_path / "p.json")
    assert again.path("plan") is None
    assert [path.name for path in (tmp_path / "deep").iterdir()] == [INDEX]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"format": "x"}', '{"format": "flowerpress.tuning/1"}']
)
def test_a_damaged_index_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(ConfigError, match=INDEX):
        TuningFolder.read(tmp_path)
