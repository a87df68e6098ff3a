"""Policies and plans that people have on their disks are read forever, and mean the same."""

from __future__ import annotations

from pathlib import Path

from flowerpress.compression import Manifest, TensorSpec
from flowerpress.compression.rates.budget import BudgetSpec
from flowerpress.compression.rates.choice import choose
from flowerpress.compression.rates.plan import Entry, RatePlan
from flowerpress.compression.rates.policy import Policy
from flowerpress.compression.rates.rules import Rule
from flowerpress.compression.rates.schedule import Schedule

FOLDER = Path(__file__).parent / "policies"
MODEL = Manifest(
    (
        TensorSpec("conv1.weight", (8, 1, 3, 3)),
        TensorSpec("conv1.bias", (8,)),
        TensorSpec("conv2.weight", (16, 8, 3, 3)),
        TensorSpec("conv2.count", (), "int64"),
        TensorSpec("fc1.weight", (10, 256)),
    )
)


def test_a_policy() -> None:
    policy = choose(FOLDER / "policy.toml")
    assert policy == Policy(
        rules=(Rule("conv1.*", "int8"), Rule(r"re:fc\d\.weight", "stc(density=0.05)", 2)),
        default="rd(relative=2)",
        vectors="fp16",
        budget=BudgetSpec(
            target_bytes=8192,
            allocator="dp",
            error="norm",
            menu=("int8", "nf4", "stc(density=0.01)"),
            every=5,
            split=100_000,
        ),
        weights=(("conv2.*", 4.0), ("*", 0.5)),
        schedule=Schedule(
            kind="cubic",
            start=4.0,
            end=1.0,
            first=2,
            length=10,
            warmup=3,
            warmup_factor=2.0,
            accordion=True,
            gentle_factor=3.0,
            threshold=0.25,
        ),
    )


def test_a_plan() -> None:
    plan = choose(FOLDER / "plan.json")
    near, far = "rd(relative=1,scope=tensor)", "rd(relative=2,scope=tensor)"
    assert plan == RatePlan(
        (
            Entry("conv1.weight", near, bytes=120.5, error=0.25, sensitivity=4.0),
            Entry("conv1.bias", "fp16", bytes=16.0, error=1e-7),
            Entry("conv2.weight", far),
            Entry("conv2.count", "none"),
            Entry("fc1.weight", "int8", ("int8", "stc(density=0.05)")),
        ),
        MODEL.digest.hex(),
        target_bytes=4096,
        menu=(near, far),
        allocator="lambda",
    )
    assert len(plan.plan(MODEL).codecs) == len(MODEL)


def test_a_policy_that_starts_from_a_plan() -> None:
    policy = choose(FOLDER / "from_a_plan.toml")
    assert isinstance(policy, Policy)
    assert policy.base == choose(FOLDER / "plan.json")
    assert policy.budget == BudgetSpec(deadline=10.0, rate=64_000.0)
    texts = policy.resolve(MODEL).texts
    assert texts["fc1.weight"] == "int8"
    assert texts["conv2.weight"] == "rd(relative=2,scope=tensor)"
