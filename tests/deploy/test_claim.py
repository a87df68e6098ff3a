"""A state folder is free when all that worked in it has ended, also what a killed command left."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from flowerpress.simulations.deploy.claim import claimed
from tests.wire.deployment import marked

# Claims a folder, and starts at a leash what does not end when it is asked to.
COMMAND = """
import sys
from pathlib import Path
from subprocess import PIPE
from flowerpress.simulations.deploy.claim import claimed
from flowerpress.simulations.engines.flower import FlowerHome

STUBBORN = '''
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("started", flush=True)
time.sleep(600)
'''
with claimed(Path("state"), "command", print) as claim:
    started = FlowerHome(claim.folder, kept=[claim.lock]).start(["python", "-c", STUBBORN], PIPE)
    print(started.output.readline().decode(), end="", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_command_left_behind_is_waited_for(tmp_path: Path, mark: str) -> None:
    command = subprocess.Popen(
        [sys.executable, "-P", "-c", COMMAND],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert command.stdout is not None
    assert command.stdout.readline() == b"started\n"
    command.kill()
    command.communicate()
    assert marked(mark)  # nobody has ended it yet
    said: list[str] = []
    with claimed(tmp_path / "state", "command", said.append):
        assert marked(mark) == []
    assert said == ["waiting for what a killed command left behind to end"]


def test_a_folder_on_a_full_disk_is_claimed_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to("/dev/full")
    with claimed(tmp_path, "flowerpress client", print) as claim:
        assert claim.folder == tmp_path
