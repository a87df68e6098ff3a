"""Records and the folder of a run: round trips, growth, torn ends, refusals."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from hypothesis import given
from hypothesis import strategies as st

from flowerpress.compression.errors import ConfigError, StorageError, UnknownNameError
from flowerpress.simulations.client_bytes import ClientBytes
from flowerpress.simulations.record import (
    LeftOut,
    RoundRecord,
    RunReader,
    RunWriter,
    Summary,
    WorstClient,
    codec_label,
    is_finished,
    read_run,
)
from flowerpress.simulations.recording import save_model
from flowerpress.simulations.treated import Treated
from tests.unit.synthetic_runs import made_up_records, write_made_up_run

_finite = st.floats(allow_nan=False, allow_infinity=False)
_count = st.integers(0, 2**60)
_sizes = st.dictionaries(st.text(max_size=8), _count, max_size=3)
_list = st.none() | st.lists(st.none() | _finite, max_size=4).map(tuple)

records = st.builds(
    RoundRecord,
    round=_count,
    seconds=_finite,
    accuracy=st.none() | _finite,
    loss=st.none() | _finite,
    recall=_list,
    worst_client=st.none() | st.builds(WorstClient, _count, _finite),
    client_accuracy=_list,
    train_loss=st.none() | _finite,
    clients=_count,
    bytes_up=_count,
    bytes_down=_count,
    raw_bytes_up=_count,
    raw_bytes_down=_count,
    up_by_tensor=_sizes,
    down_by_tensor=_sizes,
    left_out=st.lists(
        st.builds(LeftOut, _count, st.text(max_size=5), st.text(max_size=5), st.text(max_size=5)),
        max_size=2,
    ).map(tuple),
    simulated_seconds=st.none() | _finite,
    missed=_count,
    owed=_finite,
    dropped=_finite,
    orphaned=_finite,
    plan=st.none() | st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3),
    target_bytes=st.none() | st.tuples(_count, _count).map(sorted).map(tuple),
    client_bytes=st.lists(
        st.builds(
            ClientBytes,
            st.integers(0, 100),
            st.dictionaries(st.text(), st.integers(0)),
            st.dictionaries(st.text(), st.integers(0)),
        ),
        max_size=3,
    ).map(tuple),
    treated=st.lists(
        st.builds(Treated, _count, _finite, _finite, _finite, _finite), max_size=2
    ).map(tuple),
)

LATER = (
    "simulated_seconds",
    "missed",
    "plan",
    "target_bytes",
    "treated",
    "client_bytes",
    "owed",
    "dropped",
    "orphaned",
)
"""Keys that records of earlier versions lack."""


@given(records)
def test_a_record_survives_its_json(record: RoundRecord) -> None:
    line = json.dumps(record.to_json(), allow_nan=False)
    assert RoundRecord.from_json(json.loads(line), "here") == record


def test_the_keys_of_a_line_are_the_documented_ones() -> None:
    assert list(RoundRecord(round=0, seconds=0.0).to_json()) == [
        "round",
        "seconds",
        "accuracy",
        "loss",
        "recall",
        "worst_client",
        "client_accuracy",
        "train_loss",
        "clients",
        "bytes_up",
        "bytes_down",
        "raw_bytes_up",
        "raw_bytes_down",
        "up_by_tensor",
        "down_by_tensor",
        "left_out",
        *LATER,
    ]


def test_lines_of_earlier_versions_are_read() -> None:
    data = made_up_records(rounds=1)[1].to_json()
    for key in LATER:
        del data[key]
    record = RoundRecord.from_json(data, "here")
    assert record == made_up_records(rounds=1)[1]
    assert (record.simulated_seconds, record.missed) == (None, 0)
    assert (record.plan, record.target_bytes) == (None, None)
    assert not record.treated
    assert not record.client_bytes
    assert (record.owed, record.dropped, record.orphaned) == (0.0, 0.0, 0.0)


def test_numpy_numbers_become_plain_and_a_diverged_loss_null() -> None:
    array: Any = np.array([0.5, 0.25], np.float32)
    record = RoundRecord(
        round=np.int64(3),  # type: ignore[arg-type]
        seconds=1.0,
        accuracy=array[0],
        loss=math.nan,
        recall=(array[1], math.inf),
    )
    data = json.loads(json.dumps(record.to_json(), allow_nan=False))
    assert (data["round"], data["accuracy"], data["loss"]) == (3, 0.5, None)
    assert data["recall"] == [0.25, None]


@pytest.mark.parametrize(
    "key", [key for key in RoundRecord(round=0, seconds=0.0).to_json() if key not in LATER]
)
def test_each_missing_key_is_named_with_file_and_line(key: str, tmp_path: Path) -> None:
    good, bad = (record.to_json() for record in made_up_records(rounds=1))
    del bad[key]
    path = tmp_path / "rounds.jsonl"
    path.write_text(f"{json.dumps(good)}\n{json.dumps(bad)}\n")
    with pytest.raises(ConfigError, match=rf"rounds\.jsonl, line 2: missing key '{key}'"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("round", -1),
        ("round", True),
        ("round", 1.0),
        ("seconds", "1"),
        ("accuracy", [0.5]),
        ("loss", 10**400),
        ("recall", 0.5),
        ("recall", ["0.5"]),
        ("worst_client", 3),
        ("up_by_tensor", {"w": -1}),
        ("left_out", {}),
        ("bytes_up", None),
        ("simulated_seconds", "1"),
        ("missed", None),
        ("plan", {"w": 1}),
        ("plan", []),
        ("target_bytes", [1]),
        ("target_bytes", [2, 1]),
        ("target_bytes", [-1, 1]),
        ("target_bytes", [1.0, 2.0]),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(key: str, value: object) -> None:
    data = made_up_records(rounds=1)[1].to_json() | {key: value}
    with pytest.raises(ConfigError, match=rf"^here.*{key}"):
        RoundRecord.from_json(data, "here")


def test_an_unknown_key_is_named_with_the_nearest() -> None:
    data = made_up_records(rounds=1)[1].to_json() | {"acuracy": 1}
    with pytest.raises(ConfigError, match=r"unknown key 'acuracy'; did you mean 'accuracy'"):
        RoundRecord.from_json(data, "here")
    assert not issubclass(ConfigError, UnknownNameError)


def test_a_run_survives_its_folder(tmp_path: Path) -> None:
    written = made_up_records(bad_rounds=[4], every=3)
    run = write_made_up_run(tmp_path / "deep" / "run", written, seed=7)
    assert list(run.records) == written
    assert run.summary is not None
    assert (run.label, run.seed, run.notes) == ("stc", 7, ())
    assert (run.summary.left_out, run.summary.finished) == (1, True)
    assert run.summary.total_bytes_up == sum(record.bytes_up for record in written)
    assert run.summary.final.accuracy == written[12].accuracy
    assert Summary.from_json(run.summary.to_json(), "again") == run.summary
    assert sorted(path.name for path in run.folder.iterdir()) == ["rounds.jsonl", "summary.json"]


def test_the_final_metrics_are_those_of_the_last_evaluated_round(tmp_path: Path) -> None:
    written = made_up_records(rounds=5, every=2)
    run = write_made_up_run(tmp_path, written)
    assert run.summary is not None
    assert written[5].accuracy is None
    assert run.summary.final.accuracy == written[4].accuracy
    assert run.summary.final.recall == written[4].recall


def test_a_reader_follows_a_growing_file(tmp_path: Path) -> None:
    written = made_up_records(rounds=3)
    with RunWriter(tmp_path) as writer:
        reader = RunReader(tmp_path)
        assert reader.poll() == []
        writer.append(written[0])
        writer.append(written[1])
        assert reader.poll() == written[:2]
        assert reader.poll() == []
        writer.append(written[2])
        assert reader.poll() == [written[2]]
    assert reader.summary() is None


@pytest.mark.parametrize("cut", [1, 2, 40, 200])
def test_a_torn_last_line_is_left_out_with_a_note(cut: int, tmp_path: Path) -> None:
    written = made_up_records(rounds=3)
    write_made_up_run(tmp_path, written, finish=False)
    path = tmp_path / "rounds.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    reader = RunReader(tmp_path)
    run = reader.read()
    assert list(run.records) == written[:3]
    assert any("line 4: cut off" in note for note in run.notes)
    assert any("has not finished" in note for note in run.notes)
    path.write_bytes(whole)  # the writer was only slow: the reader goes on where it stopped
    assert reader.poll() == written[3:]


def test_a_bad_line_in_the_middle_is_an_error(tmp_path: Path) -> None:
    write_made_up_run(tmp_path, made_up_records(rounds=3))
    path = tmp_path / "rounds.jsonl"
    lines = path.read_text().splitlines()
    for bad in ("{", "NaN", "[" * 100_000, "[]", "null"):
        path.write_text("\n".join([lines[0], bad, lines[2]]) + "\n")
        with pytest.raises(ConfigError, match="line 2"):
            read_run(tmp_path)
    path.write_text("\n".join([lines[1], lines[0]]) + "\n")
    with pytest.raises(ConfigError, match="line 2: round 0 after round 1"):
        read_run(tmp_path)


def test_a_summary_of_another_format_is_refused(tmp_path: Path) -> None:
    run = write_made_up_run(tmp_path, made_up_records())
    assert run.summary is not None
    path = tmp_path / "summary.json"
    path.write_text(json.dumps(run.summary.to_json() | {"format": 2}))
    with pytest.raises(ConfigError, match=r"summary\.json: format 2 is not 1"):
        read_run(tmp_path)
    for key in run.summary.to_json():
        data = run.summary.to_json()
        del data[key]
        with pytest.raises(ConfigError, match=f"missing key '{key}'"):
            Summary.from_json(data, "here")


def test_a_finished_run_is_overwritten_only_when_told(tmp_path: Path) -> None:
    write_made_up_run(tmp_path, made_up_records())
    (tmp_path / "report.html").write_text("old")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds a finished run"):
        RunWriter(tmp_path)
    assert len(read_run(tmp_path).records) == 13
    with RunWriter(tmp_path, overwrite=True):
        assert not is_finished(tmp_path)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["notes.txt", "rounds.jsonl"]


def test_an_unfinished_run_may_be_started_again(tmp_path: Path) -> None:
    written = made_up_records()
    write_made_up_run(tmp_path, written, finish=False)
    with RunWriter(tmp_path) as writer:
        writer.append(written[0])
    assert list(read_run(tmp_path).records) == written[:1]


def test_an_unreadable_summary_protects_its_folder(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(ConfigError, match="finished"):
        RunWriter(tmp_path)


def test_a_failed_summary_leaves_no_file_behind(tmp_path: Path) -> None:
    written = made_up_records()
    with RunWriter(tmp_path) as writer:
        (tmp_path / "summary.json").mkdir()
        with pytest.raises(StorageError, match=r"summary\.json: cannot write it"):
            writer.finish(Summary.of(written, config={}))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["rounds.jsonl", "summary.json"]


def test_rounds_must_increase(tmp_path: Path) -> None:
    first, second = made_up_records(rounds=1)
    with RunWriter(tmp_path) as writer:
        writer.append(second)
        with pytest.raises(ValueError, match="round 0 after round 1"):
            writer.append(first)


def test_a_folder_without_a_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run there"):
        read_run(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write a run there"):
        RunWriter(tmp_path / "file")


def test_labels(tmp_path: Path) -> None:
    assert codec_label({"uplink": "stc", "downlink": "same"}) == "stc"
    assert codec_label({"uplink": "stc", "downlink": "stc"}) == "stc"
    assert codec_label({"uplink": "stc", "downlink": "int8"}) == "stc up, int8 down"
    assert codec_label({}) is None
    unfinished = write_made_up_run(tmp_path / "qsgd" / "seed-4", made_up_records(), finish=False)
    assert (unfinished.label, unfinished.seed) == ("qsgd", 4)
    assert read_run(unfinished.folder, "mine").label == "mine"


def test_a_full_disk_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rounds.jsonl").symlink_to("/dev/full")
    with pytest.raises(StorageError, match=r"rounds\.jsonl: cannot write to it: No space left"):
        write_made_up_run(tmp_path, made_up_records(rounds=2))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StorageError, match=r"summary\.json: cannot write it: No space left"):
        write_made_up_run(tmp_path / "other", made_up_records(rounds=2))
    assert [each.name for each in (tmp_path / "other").iterdir()] == ["rounds.jsonl"]
    with pytest.raises(StorageError, match="the model cannot be written: Error"):
        save_model(tmp_path / "none" / "m", ArrayRecord({"w": Array(np.zeros(3, np.float32))}))
