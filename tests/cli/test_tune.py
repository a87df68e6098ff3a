"""``flowerpress tune``: a profile, a plan, a front and a verification, from end to end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from flowerpress.compression.rates.plan import RatePlan
from flowerpress.simulations.tuning.profile import Profile
from tests.cli.conftest import Said, command, stamps

COMMANDS = ("profile", "solve", "curve", "verify")
OWN = (
    "import torch\n"
    "from flowerpress.simulations.tasks import Data, Samples, Task\n"
    "class Own(Task):\n"
    "    def load(self):\n"
    "        torch.manual_seed(0)\n"
    "        samples = Samples(torch.randn(90, 4), torch.arange(90) % 3)\n"
    "        return Data(samples, samples, ('ant', 'bee', 'cow'))\n"
    "    def build(self):\n"
    "        return torch.nn.Linear(4, 3)\n"
)
"""A task of somebody's own, in a file."""

SMALL = ("--clients", "3", "--rounds", "1", "--menu", "stc", "training.max_samples=60")


@dataclass(frozen=True)
class Tuned:
    """A folder in which a digits model was tuned, and what the commands said."""

    folder: Path
    said: dict[str, Said]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """Run all four commands."""
    folder = tmp_path_factory.mktemp("tuned") / "deep"
    profile, plan = folder / "profile.json", folder / "plan.json"
    said = {
        "profile": command("tune", "profile", *SMALL, "-o", profile, columns=100),
        "solve": command("tune", "solve", profile, "--target-bytes", "2KiB", columns=100),
        "curve": command("tune", "curve", profile, "--points", "6"),
        "verify": command("tune", "verify", "--plan", plan, "--rounds", "1"),
    }
    return Tuned(folder, said)


def test_all_steps_succeed(tuned: Tuned) -> None:
    for name, said in tuned.said.items():
        assert said.code == 0, (name, said.err)
        assert f"Report:  {tuned.folder / 'report.html'}" in said.out
    assert {path.name for path in tuned.folder.iterdir()} == {
        "curve.csv",
        "curves.png",
        "front.png",
        "plan.json",
        "profile.json",
        "report.html",
        "tensors.png",
        "tuning.json",
        "verify",
        "verify.png",
    }


def test_a_profile_holds_what_was_measured(tuned: Tuned) -> None:
    profile = Profile.read(tuned.folder / "profile.json")
    assert profile.measured() == ("none", "fisher", "loss")
    assert profile.facts["clients"] == 3
    assert profile.config["training"]["max_samples"] == 60
    assert profile.command.startswith("flowerpress tune profile --clients 3")
    out = tuned.said["profile"].out
    for name in profile.points.names:
        assert out.count(name) == 1
    assert "squared gradients of 512 examples" in " ".join(out.split())
    assert "menu: 112 steps" in tuned.said["profile"].err


def test_a_plan_is_within_its_bytes(tuned: Tuned) -> None:
    plan = RatePlan.read(tuned.folder / "plan.json")
    assert plan.target_bytes == 2048
    assert plan.allocator == "lambda"
    out = tuned.said["solve"].out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    for entry in plan.entries:
        assert rows[entry.name][2] == entry.codec
    assert int(rows["all,"][4].replace(",", "")) <= 2048
    assert "never more than 2,048" in " ".join(out.split())


def test_a_front_compares_the_allocators(tuned: Tuned) -> None:
    out = tuned.said["curve"].out
    assert out.split()[:5] == ["target", "lambda", "dp", "uniform", "by-size"]
    assert "Fewer bytes than uniform at equal error" in " ".join(out.split())
    assert len((tuned.folder / "curve.csv").read_text().splitlines()) > 12


def test_a_verification_has_the_heuristics_at_the_same_bytes(tuned: Tuned) -> None:
    said = tuned.said["verify"]
    table = [line.split() for line in said.out[said.out.index("uplink") :].splitlines()]
    labels = [row[0] for row in table[1:6]]
    assert labels == ["none", "uniform", "by-size", "by-phase", "plan"]
    assert "2,048 bytes a message; 1 round, 1 seed; downlink none" in " ".join(said.out.split())
    for label in labels:
        summary = json.loads(
            (tuned.folder / "verify" / label / "seed-0" / "summary.json").read_text()
        )
        config = summary["config"]
        assert config["downlink"] == "none"
        assert (config["clients"], config["training"]["max_samples"]) == (3, 60)
        rounds = (tuned.folder / "verify" / label / "seed-0" / "rounds.jsonl").read_text()
        record = json.loads(rounds.splitlines()[-1])
        if label not in ("none", "by-phase"):
            assert record["bytes_up"] <= 3 * 2048
            assert record["bytes_up"] > 0.8 * 3 * 2048


def test_the_report_has_all_steps(tuned: Tuned) -> None:
    text = (tuned.folder / "report.html").read_text()
    for words in (
        "<h2>Plan</h2>",
        "<h2>Training with the plan</h2>",
        "<h2>Pareto front</h2>",
        "<h2>Tensors</h2>",
        "flowerpress tune solve",
        "flowerpress tune verify",
        "by-phase",
        "training.max_samples",
    ):
        assert words in text, words
    assert text.count("<svg ") == 4


def test_a_finished_verification_is_kept(tuned: Tuned) -> None:
    before = stamps(tuned.folder / "verify" / "plan" / "seed-0")
    again = command("tune", "verify", "--plan", tuned.folder / "plan.json", "--rounds", "1")
    assert again.code == 0, again.err
    assert again.out.count("kept: finished before") == 5
    assert stamps(tuned.folder / "verify" / "plan" / "seed-0") == before


def test_a_plan_is_solved_again_only_if_asked(
    tuned: Tuned, flowerpress: Callable[..., Said]
) -> None:
    profile = tuned.folder / "profile.json"
    options = ("--bandwidth", "4k", "--deadline", "3", "--sensitivity", "loss")
    said = flowerpress("tune", "solve", profile, *options, "-o", "own/p.json")
    assert said.code == 0, said.err
    assert RatePlan.read("own/p.json").target_bytes == 1500
    assert "weighted by loss" in " ".join(said.out.split())
    said = flowerpress("tune", "solve", profile, *options, "-o", "own/p.json")
    assert said.code == 2
    assert "--force" in said.err
    said = flowerpress(
        "tune", "solve", profile, "--max-nmse", "0.3", "-o", "own/p.json", "--force",
        "--fix", "*.bias=fp16",
    )  # fmt: skip
    assert said.code == 0, said.err
    plan = RatePlan.read("own/p.json")
    assert plan.target_bytes is None
    assert {e.codec for e in plan.entries if e.name.endswith("bias")} == {"fp16"}
    index = json.loads(Path("own/tuning.json").read_text())
    assert Path("own", index["files"]["profile"]).samefile(profile)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["profile", "--menu", "mixt"], ["unknown menu 'mixt'", "did you mean 'mixed'?"]),
        (["profile", "--menu", "int8,topc"], ["unknown codec 'topc'", "did you mean 'topk'?"]),
        (["profile", "--menu", "int8,rd"], ["looks at all tensors together", "scope=tensor"]),
        (["profile", "--sensitivity", "los"], ["unknown sensitivity 'los'", "'loss'"]),
        (["profile", "--class-weights", "11=2"], ["unknown class '11'"]),
        (["profile", "--class-weights", "3"], ["'3' is not CLASS=WEIGHT"]),
        (["profile", "--time-budget", "0"], ["time budget of 0"]),
        (["profile", "--rounds", "0"], ["--rounds", "x>=1"]),
        (["profile", "--task", "digit"], ["did you mean 'digits'?"]),
        (["profile", "round=3"], ["did you mean 'rounds'?"]),
        (["profile", "-o", "."], ["is a folder"]),
        (["solve", "nowhere.json", "--max-nmse", "0.1"], ["cannot read nowhere.json"]),
        (["solve", "odd.json", "--max-nmse", "0.1"], ["odd.json", "not valid JSON"]),
        (["solve", "odd.json"], ["there is no budget", "--target-bytes", "--max-nmse"]),
        (["solve", "odd.json", "--deadline", "3"], ["--bandwidth is missing"]),
        (["solve", "odd.json", "--target-bytes", "many"], ["--target-bytes many"]),
        (["solve", "odd.json", "--target-bytes", "1k", "--allocator", "best"], ["'best'", "dp"]),
        (["curve", "odd.json"], ["odd.json", "not valid JSON"]),
        (["curve", "odd.json", "--points", "1"], ["--points"]),
        (["verify", "--plan", "nowhere.json"], ["nowhere.json"]),
        (["verify", "--plan", "odd.json"], ["odd.json"]),
        (["verify"], ["--plan"]),
    ],
)
def test_a_mistake_is_explained_and_nothing_is_written(
    flowerpress: Callable[..., Said], words: list[str], parts: list[str]
) -> None:
    Path("odd.json").write_text("{")
    said = flowerpress("tune", *words)
    assert said.code == 2
    for part in parts:
        assert part in said.err
    assert "Traceback" not in said.err
    left = {path.relative_to(Path.cwd()).as_posix() for path in Path.cwd().rglob("*.*")}
    assert left == {"odd.json"}


def test_budgets_that_a_plan_cannot_meet(tuned: Tuned, flowerpress: Callable[..., Said]) -> None:
    profile = tuned.folder / "profile.json"
    for words, part in (
        (["--target-bytes", "50"], "empty one takes"),
        (["--max-nmse", "1e-9"], "menu"),
        (["--target-bytes", "2k", "--sensitivity", "fischer"], "did you mean 'fisher'?"),
        (["--target-bytes", "2k", "--fix", "nope*=fp16"], "'nope*' matches no tensor"),
    ):
        said = flowerpress("tune", "solve", profile, *words, "-o", "p.json")
        assert said.code == 2, words
        assert part in said.err
        assert list(Path.cwd().iterdir()) == []


def test_a_plan_for_another_model_is_not_verified(
    tuned: Tuned, flowerpress: Callable[..., Said]
) -> None:
    Path("own.py").write_text(OWN)
    plan = tuned.folder / "plan.json"
    said = flowerpress("tune", "verify", "--plan", plan, "--task", "own.py", "-o", "here")
    assert said.code == 2
    assert "another model" in said.err


def test_a_task_of_ones_own_is_tuned_by_its_class_weights(
    flowerpress: Callable[..., Said],
) -> None:
    Path("own.py").write_text(OWN)
    words = ("tune", "profile", "--task", "./own.py:Own", "--menu", "int8,int4,nf4")
    said = flowerpress(*words, "--class-weights", "bee=5", "--clients", "2", "--time-budget", "60")
    assert said.code == 0, said.err
    path = Path("runs/tune-own/profile.json")
    if not path.is_file():
        path = next(Path("runs").glob("*/profile.json"))
    profile = Profile.read(path)
    assert profile.class_weights == {"bee": 5.0}
    assert profile.points.settings == ("int8", "int4", "nf4")
    assert "class weights bee = 5" in " ".join(said.out.split())
    said = flowerpress("tune", "solve", path, "--target-bytes", "400", "--sensitivity", "fisher")
    assert said.code == 0, said.err
    assert "own" in (path.parent / "report.html").read_text()


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("columns", [80, 120])
def test_help_has_an_example_and_explains_everything(name: str, columns: int) -> None:
    said = command("tune", name, "--help", columns=columns)
    assert (said.code, said.err) == (0, "")
    text = " ".join(said.out.split())
    assert f"Example: flowerpress tune {name}" in text
    assert "\\[" not in text
    lines = said.out.splitlines()
    assert max(map(len, lines)) <= columns
    for at, line in enumerate(lines):
        if line.startswith("  ") and line.split()[0].startswith(("--", "-c,", "-o,", "FILE")):
            explained = "  " in line.strip() or lines[at + 1].startswith(" " * 10)
            assert explained, line


def test_help_of_the_group_lists_the_steps() -> None:
    said = command("tune")
    text = said.out + said.err
    for name in COMMANDS:
        assert f"\n  {name} " in text
    assert "..." not in text.partition("Commands:")[2]
    assert "\n  tune " in command("--help").out


@pytest.mark.parametrize("words", [["--help"], ["solve", "--help"], ["solve", "x.json"]])
def test_nothing_heavy_is_imported_for_help(words: list[str]) -> None:
    script = (
        "import sys\n"
        "from flowerpress.simulations.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'flwr', 'matplotlib', 'ray', 'sklearn', 'grpc'}\n"
        "heavy |= {'numpy', 'numba'} if '--help' in sys.argv else set()\n"
        "sys.exit(' '.join(sorted(heavy & sys.modules.keys())) or 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "tune", *words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_ctrl_c_keeps_what_was_measured(tmp_path: Path) -> None:
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from flowerpress.simulations.cli import main; main()"
    )
    slow = "    def prepare(self, inputs):\n        time.sleep(0.02)\n        return inputs\n"
    (tmp_path / "own.py").write_text(f"import time\n{OWN}{slow}")
    words = ("tune", "profile", "--task", "./own.py", "--menu", "topk", "--rounds", "1")
    process = subprocess.Popen(
        [sys.executable, "-c", script, *words, "-o", "p.json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("gradients"):
            break
    time.sleep(0.3)  # of the two seconds that this stage takes
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "cut short: what came after Ctrl-C" in out
    assert Profile.read(tmp_path / "p.json").points.names == ("weight", "bias")
