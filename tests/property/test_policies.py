"""Policies drawn at random: written, read back, and resolved as a person reads them."""

from __future__ import annotations

import fnmatch
import string
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from flowerpress.compression import ConfigError, Manifest, TensorSpec
from flowerpress.compression.rates.budget import BudgetSpec
from flowerpress.compression.rates.patterns import matches
from flowerpress.compression.rates.policy import Policy
from flowerpress.compression.rates.rules import Rule
from flowerpress.compression.rates.schedule import Schedule

TEXTS = ("rd", "rd(relative=2,scope=tensor)", "stc(density=0.05)", "int8", "fp16", "none", "topk")
LAYERS = ("conv1", "conv2", "fc1", "fc2", "norm")
KINDS = ("weight", "bias", "steps")
GLOBS = ("*", "conv*", "*.weight", "fc?.bias", "[cn]*", "conv2.weight", "*.[wb]*", "nothing*")

codecs = st.sampled_from(TEXTS)
rules = st.builds(Rule, st.sampled_from(GLOBS), codecs, st.integers(1, 3))
bounded = st.floats(1e-6, 1e6, allow_nan=False)
budgets = st.one_of(
    st.builds(lambda n: {"target_bytes": n}, st.integers(1, 1 << 40)),
    st.builds(lambda r: {"target_ratio": r}, st.floats(1.001, 1e9)),
    st.builds(lambda e: {"max_nmse": e}, st.floats(1e-12, 1.0)),
    st.builds(lambda d, r: {"deadline": d, "rate": r}, st.floats(1e-3, 1e6), st.floats(1.0, 1e12)),
).flatmap(
    lambda kind: st.builds(
        BudgetSpec,
        **{name: st.just(value) for name, value in kind.items()},
        menu=st.one_of(
            st.sampled_from(("rd", "stc", "topk", "formats")),
            st.lists(st.sampled_from(("int8", "nf4", "topk", "stc")), min_size=1, unique=True).map(
                tuple
            ),
        ),
        every=st.integers(0, 1000),
    )
)
schedules = st.one_of(
    st.none(),
    st.builds(Schedule, st.just("phase"), early=st.floats(1.0, 1.99)),
    st.builds(Schedule, st.just("cubic"), start=st.floats(0.01, 100.0), length=st.integers(0, 99)),
    st.builds(Schedule, warmup=st.integers(1, 9), warmup_factor=st.floats(0.01, 100.0)),
)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    budget = draw(st.one_of(st.none(), budgets))
    weights = st.lists(st.tuples(st.sampled_from(GLOBS), bounded), unique_by=lambda pair: pair[0])
    return Policy(
        rules=tuple(draw(st.lists(rules, max_size=4))),
        default=draw(st.one_of(st.none(), codecs)),
        vectors=draw(st.one_of(st.none(), codecs)),
        budget=budget,
        weights=tuple(draw(weights)) if budget else (),
        schedule=draw(schedules),
    )


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    specs = []
    for layer in draw(st.lists(st.sampled_from(LAYERS), min_size=1, unique=True)):
        for kind in draw(st.lists(st.sampled_from(KINDS), min_size=1, unique=True)):
            rank = {"weight": draw(st.integers(2, 4)), "bias": 1, "steps": 0}[kind]
            shape = tuple(draw(st.integers(1, 4)) for _ in range(rank))
            name = f"{layer}.{kind}"
            specs.append(TensorSpec(name, shape, "int64" if kind == "steps" else "float32"))
    return Manifest(tuple(specs))


@settings(max_examples=150, deadline=None)
@given(policies())
def test_a_policy_is_written_and_read_back(policy: Policy) -> None:
    assert Policy.from_toml(policy.to_toml()) == policy


def by_hand(policy: Policy, spec: TensorSpec) -> str | None:
    """Return the codec of a tensor by reading the policy from the top; None: the budget's."""
    if "int" in spec.dtype:
        return "none"
    for rule in policy.rules:
        if fnmatch.fnmatchcase(spec.name, rule.match):
            return rule.codec
    if policy.vectors and len(spec.shape) <= 1:
        return policy.vectors
    return None if policy.budget else policy.default or "rd"


@st.composite
def fitting(draw: st.DrawFn) -> tuple[Manifest, Policy]:
    """Draw a model, and a policy of which every part has an effect on it."""
    model = draw(manifests())
    left, kept = list(model.specs), []
    names = st.sampled_from([*GLOBS, *(spec.name for spec in model.specs)])
    for drawn in draw(st.lists(st.builds(Rule, names, codecs, st.integers(1, 3)), max_size=5)):
        own = [spec for spec in left if fnmatch.fnmatchcase(spec.name, drawn.match)]
        fewest = min((spec.shape[0] for spec in own if spec.is_float), default=0)
        if fewest:
            kept.append(Rule(drawn.match, drawn.codec, min(drawn.groups, fewest)))
            left = [spec for spec in left if spec not in own]
    vectors = draw(st.one_of(st.none(), st.just("fp16")))
    shared = [s for s in left if s.is_float and (len(s.shape) > 1 or vectors is None)]
    budget = draw(st.sampled_from((None, BudgetSpec(target_bytes=4096), BudgetSpec(max_nmse=0.1))))
    if budget and shared:
        # Steps of rules under a budget of bytes would have to say how they stand to each other.
        kept = [replace(rule, codec="int8") for rule in kept]
        return model, Policy(tuple(kept), None, vectors, budget=budget)
    return model, Policy(tuple(kept), draw(st.one_of(st.none(), codecs)), vectors)


@settings(max_examples=200, deadline=None)
@given(fitting())
def test_tensors_get_what_a_person_reads_in_the_policy(pair: tuple[Manifest, Policy]) -> None:
    model, policy = pair
    plan = policy.resolve(model)
    expected = {spec.name: by_hand(policy, spec) for spec in model.specs}
    assert policy.open(model) == tuple(name for name, codec in expected.items() if codec is None)
    assert policy.fixed(model) == {
        s.name: expected[s.name] for s in model.specs if s.is_float and expected[s.name] is not None
    }
    nmse = policy.budget.max_nmse if policy.budget else None
    guess = f"rd(max_nmse={nmse})" if nmse else "rd"
    for entry in plan.entries:
        assert entry.codec == (expected[entry.name] or policy.default or guess)
    assert len(plan.plan(model).codecs) == len(model)


@settings(max_examples=100, deadline=None)
@given(policies(), manifests())
def test_any_policy_is_accepted_or_refused_as_a_whole(policy: Policy, model: Manifest) -> None:
    without_effect = [
        rule
        for i, rule in enumerate(policy.rules)
        if not any(
            fnmatch.fnmatchcase(s.name, rule.match)
            and not any(fnmatch.fnmatchcase(s.name, r.match) for r in policy.rules[:i])
            for s in model.specs
        )
    ]
    try:
        plan = policy.resolve(model)
    except ConfigError:
        return
    assert not without_effect
    assert [entry.name for entry in plan.entries] == [spec.name for spec in model.specs]


@given(
    st.text(string.ascii_letters[:4] + "*?[]!-.", min_size=1, max_size=20),
    st.text(string.ascii_letters[:4] + ".[]", max_size=20),
)
def test_globs_match_as_in_a_shell(pattern: str, name: str) -> None:
    assert matches(pattern, name) == (fnmatch.fnmatchcase(name, pattern) or name == pattern)
