"""Policies: which codec each tensor gets, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowerpress.compression import ConfigError, Manifest, TensorSpec, UnknownNameError
from flowerpress.compression.presets.ratedistortion import ENVELOPE
from flowerpress.compression.rates.budget import BudgetSpec, least_bytes
from flowerpress.compression.rates.plan import Entry, RatePlan
from flowerpress.compression.rates.policy import Policy
from flowerpress.compression.rates.rules import Rule
from flowerpress.compression.rates.schedule import Schedule

MODEL = Manifest(
    (
        TensorSpec("conv1.weight", (8, 1, 3, 3)),
        TensorSpec("conv1.bias", (8,)),
        TensorSpec("conv2.weight", (16, 8, 3, 3)),
        TensorSpec("conv2.bias", (16,)),
        TensorSpec("norm.steps", (), "int64"),
        TensorSpec("fc.weight", (10, 256)),
        TensorSpec("fc.bias", (10,)),
        TensorSpec("scale", ()),
    )
)
EVERYTHING = """
vectors = "fp16"
default = "rd(relative=2)"

[[tensor]]
match = "conv1.*"
codec = "int8"

[[tensor]]
match = "re:fc\\\\.weight"
codec = "stc(density=0.05)"
groups = 2

[budget]
target_bytes = 8192
allocator = "dp"
error = "norm"
menu = ["int8", "nf4", "stc(density=0.01)"]
every = 5

[weights]
"conv2.*" = 4
"*" = 0.5

[schedule]
kind = "phase"
early = 1.5
"""


def codecs(text: str) -> dict[str, str]:
    plan = Policy.from_toml(text).resolve(MODEL)
    plan.plan(MODEL)
    return {entry.name: entry.codec for entry in plan.entries}


def refused(text: str, manifest: Manifest = MODEL) -> str:
    with pytest.raises(ConfigError) as caught:
        Policy.from_toml(text, "mine.toml").plan(manifest)
    assert str(caught.value).startswith(("mine.toml", "unknown ")), caught.value
    return str(caught.value)


def rule(match: str, codec: str, more: str = "") -> str:
    return f'[[tensor]]\nmatch = "{match}"\ncodec = "{codec}"\n{more}\n'


def test_an_empty_policy_is_the_default_codec() -> None:
    assert codecs("") == {s.name: "rd" if s.is_float else "none" for s in MODEL.specs}


def test_the_first_match_decides_then_vectors_then_the_default() -> None:
    found = codecs(
        'default = "stc"\nvectors = "fp16"\n' + rule("conv1.*", "int8") + rule("conv*", "nf4")
    )
    assert found == {
        "conv1.weight": "int8",
        "conv1.bias": "int8",
        "conv2.weight": "nf4",
        "conv2.bias": "nf4",
        "norm.steps": "none",
        "fc.weight": "stc",
        "fc.bias": "fp16",
        "scale": "fp16",
    }


def test_groups_are_blocks_of_rows_with_the_codec_of_the_rule() -> None:
    plan = Policy.from_toml(rule("fc.weight", "int8", "groups = 5")).resolve(MODEL)
    assert plan.entries[5] == Entry("fc.weight", "int8", ("int8",) * 5, kept=True)
    assert plan.entries[0].groups == ()


def test_everything_that_a_policy_can_say() -> None:
    policy = Policy.from_toml(EVERYTHING)
    assert policy == Policy(
        rules=(Rule("conv1.*", "int8"), Rule("re:fc\\.weight", "stc(density=0.05)", 2)),
        default="rd(relative=2)",
        vectors="fp16",
        budget=BudgetSpec(
            target_bytes=8192,
            allocator="dp",
            error="norm",
            menu=("int8", "nf4", "stc(density=0.01)"),
            every=5,
        ),
        weights=(("conv2.*", 4.0), ("*", 0.5)),
        schedule=Schedule(kind="phase", early=1.5),
    )
    small = Manifest((*MODEL.specs, TensorSpec("other", (4, 4))))
    assert policy.open(small) == ("conv2.weight", "other")
    assert policy.fixed(small) == {
        "conv1.weight": "int8",
        "conv1.bias": "int8",
        "conv2.bias": "fp16",
        "fc.weight": "stc(density=0.05)",
        "fc.bias": "fp16",
        "scale": "fp16",
    }
    weights = policy.tensor_weights(small)
    assert (weights["conv2.weight"], weights["other"]) == (4, 0.5)
    plan = policy.resolve(small)
    assert plan.target_bytes == 8192
    assert plan.allocator == "dp"
    assert plan.menu == ("int8", "nf4", "stc(density=0.01)")
    assert plan.entries[2] == Entry("conv2.weight", "rd(relative=2)", sensitivity=4)
    assert Policy.from_toml(policy.to_toml()) == policy


@pytest.mark.parametrize(
    ("menu", "guess"),
    [
        ("", "rd"),
        ('menu = "rd"', "rd"),
        ('menu = ["int8", "nf4", "int4"]', "nf4"),
        ('menu = ["none"]', "none"),
    ],
)
def test_what_a_budget_decides_about_starts_from_the_middle_of_its_menu(
    menu: str, guess: str
) -> None:
    found = codecs(f"[budget]\ntarget_bytes = 60000\n{menu}")
    assert found["conv2.weight"] == guess


def test_a_budget_of_error_starts_from_that_error() -> None:
    assert codecs("[budget]\nmax_nmse = 0.125")["fc.weight"] == "rd(max_nmse=0.125)"


@pytest.mark.parametrize(
    ("budget", "rate", "target"),
    [
        ("target_bytes = 8192", None, 8192),
        ("target_bytes = 8192", 1e6, 8192),
        ("target_ratio = 10", None, MODEL.nbytes // 10),
        ("deadline = 10.0\nrate = 640", None, 800),
        ("deadline = 10.0\nrate = 640", 400.0, 500),
        ("deadline = 10.0\nrate = 640", 1e9, least_bytes(MODEL) + MODEL.nbytes // 16),
        ("max_nmse = 0.1", None, None),
        ("max_nmse = 0.1", 8000.0, None),
    ],
)
def test_a_budget_in_bytes(budget: str, rate: float | None, target: int | None) -> None:
    policy = Policy.from_toml(f"[budget]\n{budget}")
    assert policy.target(MODEL, rate) == target
    assert policy.resolve(MODEL).target_bytes == policy.target(MODEL)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf"), True])
def test_an_impossible_rate_of_a_client_is_refused(rate: float) -> None:
    policy = Policy.from_toml("[budget]\ndeadline = 10.0\nrate = 64000")
    with pytest.raises(ConfigError, match=r"rate is .*it must be a number of bits a second"):
        policy.target(MODEL, rate)


def test_a_plan_to_start_from_and_patterns_over_it(tmp_path: Path) -> None:
    base = Policy.from_toml('default = "stc"').resolve(MODEL)
    base.save(tmp_path / "plan.json")
    file = tmp_path / "mine.toml"
    file.write_text('plan = "plan.json"\nvectors = "bf16"\n' + rule("fc.weight", "int8"))
    policy = Policy.read(file)
    plan = policy.resolve(MODEL)
    assert plan.texts == {
        "conv1.weight": "stc",
        "conv1.bias": "bf16",
        "conv2.weight": "stc",
        "conv2.bias": "bf16",
        "norm.steps": "none",
        "fc.weight": "int8",
        "fc.bias": "bf16",
        "scale": "bf16",
    }
    assert policy.open(MODEL) == ()
    again = tmp_path / "again.toml"
    again.write_text(policy.to_toml("plan.json"))
    assert Policy.read(again) == policy
    with pytest.raises(ConfigError, match="save that, and give its path"):
        policy.to_toml()


def test_a_plan_keeps_its_budget_under_patterns(tmp_path: Path) -> None:
    base = RatePlan(
        tuple(Entry(s.name, "rd(relative=2)" if s.is_float else "none") for s in MODEL.specs),
        MODEL.digest.hex(),
        target_bytes=4096,
    )
    policy = Policy(base=base, rules=(Rule("fc.*", "int8"),))
    assert policy.resolve(MODEL).target_bytes == policy.target(MODEL) == 4096
    shared = Policy(base=base, rules=(Rule("fc.*", "int8"),), budget=BudgetSpec(target_bytes=5000))
    plan = shared.resolve(MODEL)
    assert plan.target_bytes == 5000
    assert plan.entries[0].codec == "rd(relative=2)"
    assert shared.open(MODEL) == (
        "conv1.weight",
        "conv1.bias",
        "conv2.weight",
        "conv2.bias",
        "scale",
    )


def test_a_plan_of_another_model_is_refused_with_the_tensors_that_differ(tmp_path: Path) -> None:
    other = Manifest((TensorSpec("head.weight", (4, 4)),))
    Policy().resolve(other).save(tmp_path / "plan.json")
    file = tmp_path / "mine.toml"
    file.write_text('plan = "plan.json"')
    policy = Policy.read(file)
    with pytest.raises(ConfigError, match=r"mine\.toml.*another model.*head\.weight"):
        policy.plan(MODEL)


def test_whether_a_reference_is_needed() -> None:
    assert Policy().uses_reference
    assert not Policy(default="stc").uses_reference
    assert Policy(default="stc", rules=(Rule("*", "rd"),)).uses_reference
    assert Policy(budget=BudgetSpec(target_bytes=10_000)).uses_reference
    assert not Policy(budget=BudgetSpec(target_bytes=10_000, menu=("int8",))).uses_reference
    assert not Policy(base=Policy(default="stc").resolve(MODEL)).uses_reference
    assert Policy(base=Policy().resolve(MODEL)).uses_reference


def test_integers_are_sent_exactly_whatever_matches_them() -> None:
    assert codecs(rule("*", "stc"))["norm.steps"] == "none"
    assert codecs(rule("norm.*", "lossless"))["norm.steps"] == "none"
    plan = Policy.from_toml(rule("n*", "none") + rule("*", "stc", "")).plan(MODEL)
    assert [codec.lossless for codec in plan.codecs[3:6]] == [False, True, False]


BUDGET = "[budget]\ntarget_bytes = 9000\n"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("defualt = 'rd'", ["unknown key in mine.toml 'defualt'", "did you mean 'default'?"]),
        ("default = 3", ["mine.toml: default is 3; it must be a text"]),
        ("default = ''", ["default is ''"]),
        ("default = 'stcc'", ["unknown codec in mine.toml: default 'stcc'", "mean 'stc'?"]),
        ("default = 'stc(density=2)'", ["mine.toml: default", "density is 2.0"]),
        ("default = 'stc(densty=.2)'", ["densty", "did you mean 'density'?"]),
        ("default = 'plan.json'", ["unknown codec", "'plan.json'"]),
        ("default = 'stc' 'x'", ["mine.toml is not valid TOML", "line 1"]),
        ("vectors = true", ["vectors is true"]),
        ("when = 2020-01-01", ["mine.toml: 'when': a date"]),
        ("plan = 'plan.json'", ["mine.toml: plan", "only a policy in a file"]),
        ("tensor = 3", ["tensor is 3; write each rule under a line [[tensor]]"]),
        ("[tensor]\nmatch='*'\ncodec='rd'", ["tensor is a table; write each rule under a line"]),
        ("[[tensor]]\nmatch = 'fc*'", ["mine.toml: tensor[0] has no codec"]),
        ("[[tensor]]\ncodec = 'rd'", ["mine.toml: tensor[0] has no match"]),
        (rule("fc*", "rd", "group = 2"), ["key in mine.toml: tensor[0] 'group'", "'groups'"]),
        (rule("fc*", "rd", "groups = 0"), ["tensor[0].groups is 0", "from 1 to 256"]),
        (rule("fc*", "rd", "groups = true"), ["tensor[0].groups is true", "whole number"]),
        (rule("fc*", "rd", "groups = 2.0"), ["tensor[0].groups is 2.0", "whole number"]),
        (rule("fc*", "rd", "groups = 11"), ["fc.weight has 10 rows", "at most 10"]),
        (rule("scale", "rd", "groups = 2"), ["scale has 1 rows", "[]"]),
        (rule("", "rd"), ["tensor[0].match is ''"]),
        (rule("re:(", "rd"), ["tensor[0].match", "not a valid regular expression"]),
        (rule("fc*", "rdd"), ["unknown codec in mine.toml: tensor[0].codec 'rdd'", "'rd'"]),
        (rule("cnv*", "rd"), ["tensor[0].match: 'cnv*' matches no tensor", "has conv"]),
        (rule("*", "rd") + rule("fc*", "stc"), ["tensor[1].match: 'fc*'", "'*'", "in front of"]),
        (rule("*.steps", "rd"), ["integers only (norm.steps)", "always sent exactly", "with rd"]),
        ("budget = 3", ["mine.toml: budget is 3; it must be a table"]),
        ("[budget]", ["budget does not say what is to be met", "target_bytes, target_ratio"]),
        (BUDGET + "max_nmse = 0.1", ["has target_bytes and max_nmse", "exactly one"]),
        (BUDGET + "targt_ratio = 3", ["'targt_ratio'", "did you mean 'target_ratio'?"]),
        ("[budget]\ntarget_bytes = 9e3", ["target_bytes is 9000.0", "whole number of bytes"]),
        ("[budget]\ntarget_bytes = -1", ["target_bytes is -1", "from 1 to"]),
        ("[budget]\ntarget_bytes = '9k'", ["target_bytes is '9k'"]),
        ("[budget]\ntarget_bytes = 110", ["makes 110 bytes", f"takes up to {least_bytes(MODEL)}"]),
        ("[budget]\ntarget_ratio = 1e6", ["budget.target_ratio = 1e+06 makes 0 bytes"]),
        ("[budget]\ntarget_ratio = 0.01", ["how many times smaller", "such as 100"]),
        ("[budget]\ntarget_ratio = nan", ["target_ratio is nan"]),
        ("[budget]\nmax_nmse = 0", ["max_nmse is 0", "lossless"]),
        ("[budget]\nmax_nmse = 1.5", ["max_nmse is 1.5", "from 0 to 1"]),
        ("[budget]\nmax_nmse = inf", ["max_nmse is inf"]),
        ("[budget]\ndeadline = 3", ["need each other", "rate is missing"]),
        (BUDGET + "rate = 3", ["need each other", "deadline is missing"]),
        ("[budget]\ndeadline = 0\nrate = 1", ["deadline is 0", "seconds"]),
        ("[budget]\ndeadline = 1\nrate = -1", ["rate is -1", "bits a second"]),
        (BUDGET + "allocator = 'lamda'", ["budget.allocator 'lamda'", "mean 'lambda'?"]),
        (BUDGET + "error = 'norms'", ["budget.error 'norms'", "did you mean 'norm'?"]),
        (BUDGET + "error = 'norm'", ['error = "norm" is for allocator = "dp" only']),
        (BUDGET + "menu = 'rdd'", ["budget.menu", "unknown menu 'rdd'", "mean 'rd'?"]),
        (BUDGET + "menu = []", ["budget.menu is a list of 0", "1 to 64"]),
        (BUDGET + "menu = ['int8', 3]", ["budget.menu[1] is 3"]),
        (BUDGET + "menu = ['int8', 'int9']", ["budget.menu[1] 'int9'", "known: "]),
        (BUDGET + "menu = ['int8', 'int8']", ["budget.menu has 'int8' twice"]),
        (BUDGET + "every = -1", ["budget.every is -1", "rounds"]),
        (BUDGET + "every = 1.5", ["budget.every is 1.5"]),
        (rule("*", "rd") + BUDGET, ["decides about nothing", "leave out [budget]"]),
        (BUDGET + "[weights]\n'fcc*' = 2", ["weights: 'fcc*' matches no tensor", "fc."]),
        (BUDGET + "[weights]\n'*' = 2\n'fc*' = 3", ["weights: 'fc*' matches only what '*'"]),
        (BUDGET + "[weights]\n'fc*' = 0", ["weights: 'fc*' is 0", "from 1e-06 to 1e+06"]),
        (BUDGET + "[weights]\nfc.bias = 2", ["weights: 'fc' is a table", "quotes"]),
        (BUDGET + "[weights]\n're:(' = 2", ["weights", "not a valid regular expression"]),
        ("[weights]\n'fc*' = 2", ["mine.toml: [weights]", "there is none"]),
        ("weights = 3", ["weights is 3"]),
        ("[schedule]\nkind = 'fase'", ["'fase'", "did you mean 'phase'?"]),
        ("schedule = 3", ["mine.toml: schedule"]),
    ],
)
def test_what_is_wrong_is_named_with_its_place(text: str, parts: list[str]) -> None:
    said = refused(text)
    for part in parts:
        assert part in said, said
    assert len(said) < 1200


def test_a_default_beside_a_plan_is_never_used() -> None:
    with pytest.raises(ConfigError, match="default is never used beside plan"):
        Policy(base=Policy().resolve(MODEL), default="rd")


def test_the_least_a_message_takes_counts_integers() -> None:
    assert least_bytes(MODEL) == ENVELOPE + 4 * 8 + 8
    counters = Manifest((*MODEL.specs, TensorSpec("table", (1000,), "int32")))
    assert "4" in refused("[budget]\ntarget_bytes = 4000", counters)
    Policy(budget=BudgetSpec(target_bytes=least_bytes(counters))).check(counters)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("nowhere.toml", None, "no such file"),
        ("folder.toml", b"\0dir", "is no file"),
        ("binary.toml", b"\xff\xfe\x00", "not UTF-8"),
        ("large.toml", b"#" * (1 << 20) + b"#", "more than 1048576 bytes"),
        ("broken.toml", b"default = ", "not valid TOML"),
        ("no\0name.toml", None, "no such file"),
    ],
)
def test_a_file_that_is_no_policy(
    tmp_path: Path, name: str, content: bytes | None, says: str
) -> None:
    path = tmp_path / name
    if content == b"\0dir":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        Policy.read(path)
    assert says in str(caught.value)


def test_unknown_names_are_the_error_for_them() -> None:
    for text in ("defualt = 'rd'", "default = 'rdd'", "[budget]\ntarget = 3"):
        with pytest.raises(UnknownNameError):
            Policy.from_toml(text)
    with pytest.raises(UnknownNameError, match="tensor of the plan 'other'"):
        Policy(base=Policy().resolve(MODEL)).codec(TensorSpec("other", (2, 2)))
