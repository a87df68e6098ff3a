"""Simulated links: spacing, times by hand, files, refusals that say where."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowerpress.compression.errors import ConfigError, UnknownNameError
from flowerpress.simulations.config import SimulationConfig, load_config
from flowerpress.simulations.links import Link, absolute, read_links, read_rate
from flowerpress.simulations.loaded import load


@given(st.integers(2, 60), st.integers(0, 2**63 - 1))
def test_loguniform_is_evenly_spaced_and_shuffled_by_the_seed(clients: int, seed: int) -> None:
    links = read_links("loguniform(low=64k,high=20M)", clients, seed)
    assert links == read_links(" loguniform( low = 64000 , high=2e7 )", clients, seed)
    rates = sorted(links.rate(at) for at in range(clients))
    assert rates[0] == pytest.approx(64e3)
    assert rates[-1] == pytest.approx(20e6)
    step = (20e6 / 64e3) ** (1 / (clients - 1))
    assert all(b / a == pytest.approx(step) for a, b in pairwise(rates))


def test_the_seed_decides_who_is_slow() -> None:
    orders = {
        tuple(link.uplink for link in read_links("loguniform", 20, seed).links) for seed in range(5)
    }
    assert len(orders) == 5


def test_one_client_alone_has_the_middle() -> None:
    assert read_links("loguniform(low=10k,high=1M)", 1, 0).rate(0) == pytest.approx(100e3)


def test_times_by_hand() -> None:
    link = Link(uplink=64e3, downlink=1e6, latency=0.1, compute=2.0)
    # 1000 bytes up are 8000 bits: .125 s; 50,000 down are 400,000 bits: .4 s.
    assert link.seconds(50_000, 1_000) == pytest.approx(2.625)
    assert link.seconds(50_000, 0, trained=False) == pytest.approx(0.5)
    assert Link(64e3).seconds(10**9, 8_000) == 1.0


def test_same_gives_everyone_the_same() -> None:
    links = read_links("same(rate=1M,down=8M,latency=0.05,compute=1.5)", 3, 7)
    assert len(links) == 3
    assert set(links.links) == {Link(1e6, 8e6, 0.05, 1.5)}


PROFILES = {"lte": (6e6, 13e6, 0.07), "3g": (768e3, 1.6e6, 0.3), "wifi": (5e6, 20e6, 0.004)}


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_spreads_clients_around_its_middle(name: str) -> None:
    up, down, latency = PROFILES[name]
    assert set(read_links(f"{name}(spread=0)", 3, 0).links) == {Link(up, down, latency)}
    links = read_links(f"{name}(compute=2)", 4001, 5)
    assert links == read_links(f"{name}(compute=2)", 4001, 5) != read_links(name, 4001, 6)
    factors = sorted(link.uplink / up for link in links.links)
    for part, expected in ((0.1587, math.exp(-0.5)), (0.5, 1.0), (0.8413, math.exp(0.5))):
        assert factors[int(part * 4001)] == pytest.approx(expected, rel=0.06)
    assert math.exp(-1.51) <= factors[0] <= factors[-1] <= math.exp(1.51)
    for link in links.links:
        assert link.downlink / link.uplink == pytest.approx(down / up)
        assert link.latency * link.uplink == pytest.approx(latency * up)
        assert link.compute == 2


def test_a_profile_takes_other_numbers() -> None:
    link = read_links("3g(up=64k,down=256k,latency=0.6,spread=0)", 1, 0)[0]
    assert link == Link(64e3, 256e3, 0.6)


def test_lorawan_has_its_data_rates() -> None:
    links = read_links("lorawan(duty=1)", 600, 3)
    rates = [link.uplink for link in links.links]
    assert set(rates) == {250, 440, 980, 1760, 3125, 5470}
    assert all(70 < rates.count(rate) < 130 for rate in set(rates))
    for link, rare in zip(links.links, read_links("lorawan", 600, 3).links, strict=True):
        assert rare == Link(link.uplink / 100, link.uplink / 100, 1.0)


@pytest.mark.parametrize(
    "text",
    ["lte(spread=3)", "3g(spread=-1)", "wifi(up=fast)", "lorawan(duty=0)", "lte(latency=-1)"],
)
def test_profiles_refuse_what_no_link_has(text: str) -> None:
    with pytest.raises(ConfigError, match=r"must be (from|bits)"):
        read_links(text, 3, 0)


def test_files_give_each_client_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[64000, "1M", 2.5e6]')
    assert read_links(str(tmp_path / "a.json"), 3, 0).links == (
        Link(64e3),
        Link(1e6),
        Link(2.5e6),
    )
    (tmp_path / "b.toml").write_text(
        'uplink = ["64k", 1_000_000]\ndownlink = "unlimited"\nlatency = [0.5, 0]\ncompute = 2\n'
    )
    assert read_links(str(tmp_path / "b.toml"), 2, 0).links == (
        Link(64e3, math.inf, 0.5, 2.0),
        Link(1e6, math.inf, 0.0, 2.0),
    )


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", "[1e6, 1e6]", r"a\.json: uplink has 2 values; there are 3 clients"),
        ("a.json", '{"uplink": 1e6, "latancy": 1}', r"'latancy'; did you mean 'latency'"),
        ("a.json", '{"latency": 1}', r"a\.json: has no 'uplink'"),
        ("a.json", "[1e6, true, 1e6]", r"a\.json: uplink\[1\] is True; it must be bits a second"),
        ("a.json", "[1e6, 1e6, NaN]", r"uplink\[2\] is nan"),
        ("a.json", '{"uplink": "unlimited"}', r"uplink\[0\] is 'unlimited'"),
        ("a.json", f"[1e6, 1{'0' * 400}, 1e6]", r"uplink\[1\] is 10+;"),
        ("a.json", "[" * 100_000, r"a\.json: not valid JSON"),
        ("a.toml", "uplink = ", r"a\.toml: not valid TOML"),
        ("a.toml", "uplink = 1e6\nlatency = -1", r"latency\[0\] is -1; it must be seconds from 0"),
        ("a.toml", "uplink = 1e6\ncompute = inf", r"compute\[0\] is inf"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(name: str, text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_links(str(path), 3, 0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("loguniform(low=64q)", r"low of loguniform is '64q'; it must be bits a second .* 64k"),
        ("loguniform(low=0)", r"low of loguniform is '0'"),
        ("loguniform(low=1M,high=64k)", r"low of loguniform is 1M, above high, which is 64k"),
        ("loguniform(down=1e99)", r"down of loguniform is '1e99'; .* or unlimited"),
        ("loguniform(rate=1M)", r"unknown parameter of loguniform 'rate'"),
        ("same(rate=1M,latency=-1)", r"latency of a link is -1 s"),
        ("same(rate=1M,compute=nan)", r"compute of a link is nan s"),
        ("loguniforn", r"unknown links 'loguniforn'; did you mean 'loguniform'"),
        ("same(rate=unlimited)", r"rate of same is 'unlimited'"),
        ("gone.toml", r"cannot read gone\.toml"),
        ("same(", r"write same\(rate=1M"),
    ],
)
def test_refusals_say_what_to_write(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_links(text, 3, 0)


@given(st.text(max_size=20))
def test_any_text_gives_a_rate_or_a_config_error(text: str) -> None:
    try:
        rate = read_rate(text, "it")
    except ConfigError:
        return
    assert 1.0 <= rate <= 1e12


def test_links_are_part_of_a_run(tmp_path: Path) -> None:
    loaded = load(SimulationConfig(clients=4, links="same(rate=1M)", deadline=3.0))
    assert loaded.links is not None
    assert len(loaded.links) == 4
    assert load(SimulationConfig(clients=4)).links is None
    with pytest.raises(ConfigError, match=r"deadline = 3: .* only known with links"):
        load(SimulationConfig(clients=4, deadline=3.0))
    with pytest.raises(UnknownNameError, match="unknown links 'sane'"):
        load(SimulationConfig(clients=4, links="sane"))
    with pytest.raises(ConfigError, match="deadline = 0 is not allowed: it must be seconds"):
        load_config(None, ["links=same", "deadline=0"])
    # A file that changed is read again.
    path = tmp_path / "l.json"
    for rate in (1e6, 2e6):
        path.write_text(json.dumps([rate] * 4))
        links = load(SimulationConfig(clients=4, links=str(path))).links
        assert links is not None
        assert links.rate(3) == rate
    assert absolute("same") == "same"
    assert Path(absolute("some.json")).is_absolute()
