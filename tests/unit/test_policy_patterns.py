"""Patterns over tensor names: what they match, and what is refused."""

from __future__ import annotations

import time

import pytest

from flowerpress.compression import ConfigError
from flowerpress.compression.rates.patterns import (
    LONGEST_PATTERN,
    check_pattern,
    matches,
    matching,
    names_at_hand,
    unmatched,
)

NAMES = ("conv1.weight", "conv1.bias", "conv10.weight", "fc.weight", "Conv1.weight")


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*", NAMES),
        ("conv*", NAMES[:3]),
        ("conv?.weight", ("conv1.weight",)),
        ("*.weight", ("conv1.weight", "conv10.weight", "fc.weight", "Conv1.weight")),
        ("[Cc]onv1.*", ("conv1.weight", "conv1.bias", "Conv1.weight")),
        ("[!cC]*", ("fc.weight",)),
        ("conv1", ()),
        ("fc.weight", ("fc.weight",)),
        (r"re:conv\d+\.weight", ("conv1.weight", "conv10.weight")),
        ("re:conv1", ()),
        ("re:conv1.*|fc.*", ("conv1.weight", "conv1.bias", "conv10.weight", "fc.weight")),
        ("re:(?i:conv1).*", ("conv1.weight", "conv1.bias", "conv10.weight", "Conv1.weight")),
    ],
)
def test_a_pattern_is_about_the_whole_name(pattern: str, found: tuple[str, ...]) -> None:
    assert matching(pattern, NAMES) == found


def test_a_name_written_out_matches_itself() -> None:
    assert matches("layers[0].w*", "layers[0].w*")
    assert not matches("layers[0].w*", "layers[0].weight")
    assert matches("layers[[]0].w*", "layers[0].weight")
    assert matches("re:x", "x")


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("", "is empty; write *"),
        ("  ", "is empty"),
        ("re:", "is empty"),
        ("a" * (LONGEST_PATTERN + 1), "257 characters, at most 256"),
        ("re:(", "not a valid regular expression"),
        ("re:*", "not a valid regular expression"),
        ("re:a{9999999999999}", "not a valid regular expression"),
        ("re:(a+)+b", "repeats a group that itself repeats"),
        ("re:(a|aa)*b", "repeats a group that itself repeats or chooses"),
        ("re:(?:a?){40}b", "repeats a group"),
        ("re:(?x: (a+) +)", "flag x"),
        ("re:(a+)(?#)+", "comments"),
        ("re:" + ".*" * 20 + "x", "can take too long"),
        ("re:" + "(a|aa)" * 40 + "b", "can take too long"),
        ("re:" + "a?" * 60 + "a" * 60, "can take too long"),
    ],
)
def test_what_is_no_pattern_or_takes_forever_is_refused(pattern: str, says: str) -> None:
    start = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        check_pattern(pattern)
    assert says in str(caught.value)
    assert len(str(caught.value)) < 500
    assert time.monotonic() - start < 1


@pytest.mark.parametrize(
    "pattern",
    [
        r"re:(blocks|layers)\.\d+\.(attn|mlp)\..*\.(weight|bias)",
        r"re:layer[1-3]\.[01]\.conv\d\.weight",
        r"re:(?!fc).*",
        r"re:encoder\.layer\.\d{1,2}\..*(?<!bias)",
        r"re:[]a[(*]*\.w",
        "*[a-z]*[0-9]*.*.*.*.*.weight",
    ],
)
def test_what_people_write_is_accepted_and_fast(pattern: str) -> None:
    name = "encoder.layer.11." + "attention.self.query." * 10 + "lora"
    start = time.monotonic()
    for _ in range(20):
        matches(pattern, name)
    assert time.monotonic() - start < 1


def test_a_pattern_without_a_match_lists_the_nearest_names_first() -> None:
    names = [f"layers.{i}.weight" for i in range(200)] + ["head.bias", "x" * 500]
    said = str(unmatched("here", "Head.bia*", names))
    assert said.startswith("here: 'Head.bia*' matches no tensor of the model; it has head.bias, ")
    assert said.endswith(" and 182 more")
    assert len(said) < 1000
    assert names_at_hand((), "*") == "none"
    assert "x" * 80 + "..." in names_at_hand(["x" * 500], "*")
