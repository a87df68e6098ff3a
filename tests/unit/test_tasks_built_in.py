"""The built-in tasks: their models, and their loaders on small files in each format.

Tests on the real data sets run where FLOWERPRESS_DATA names their folder.
"""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from flowerpress.compression.errors import ConfigError, FormatError, LimitError, WireError
from flowerpress.simulations.partition import split
from flowerpress.simulations.tasks import Data, Task, load_task
from flowerpress.simulations.tasks.plays import speeches_by_role
from flowerpress.simulations.tasks.shakespeare import VOCABULARY

PARAMETERS = {
    "cifar10": 281_882,
    "cifar10-wide": 1_103_402,
    "digits": 38_282,
    "mnist": 1_663_370,
    "shakespeare": 220_913,
    "shakespeare-transformer": 362_113,
}


@pytest.fixture(autouse=True)
def _no_folder_from_outside(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "real" not in request.fixturenames:
        monkeypatch.delenv("FLOWERPRESS_DATA", raising=False)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def real() -> None:
    if not os.environ.get("FLOWERPRESS_DATA"):
        pytest.skip("FLOWERPRESS_DATA does not name a folder with the data sets")


def write_mnist(folder: Path, packed: bool = False) -> None:
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    for part, count in (("train", 30), ("t10k", 12)):
        images = random.integers(0, 256, (count, 28, 28), np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        for stem, values in ((f"{part}-images", images), (f"{part}-labels", labels)):
            content = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
            content += values.tobytes()
            name = f"{stem}-idx{values.ndim}-ubyte"
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)


def write_cifar10(folder: Path, binary: bool = False) -> None:
    folder.mkdir(exist_ok=True, parents=True)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (60, 32, 32, 3), np.uint8)
    labels = (np.arange(60) % 10).astype(np.uint8)
    if not binary:
        np.savez(folder / "train.npz", images=images[:50], labels=labels[:50])
        np.savez(folder / "test.npz", images=images[50:], labels=labels[50:])
        return
    for index, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        records = b""
        for image, label in zip(images[index * 10 :][:10], labels[index * 10 :][:10], strict=True):
            planes = [image[:, :, colour].tobytes() for colour in range(3)]
            records += bytes([label]) + b"".join(planes)
        (folder / f"{name}.bin").write_bytes(records)


def write_shakespeare(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    text = "A title\n\n"
    for turn in range(60):
        text += f"ANNE:\nSpeech {turn} of Anne, who says this and that.\nAnd more of it.\n\n"
        text += f"First Ghost:\nBoo! Boo {turn}. I haunt this place until the morning.\n\n"
    text += "SERVANT:\nMy lord.\n"
    (folder / "input.txt").write_text(text, encoding="utf-8")


WRITERS = {
    "cifar10": write_cifar10,
    "cifar10-wide": write_cifar10,
    "mnist": write_mnist,
    "shakespeare": write_shakespeare,
    "shakespeare-transformer": write_shakespeare,
}


def written(name: str, folder: Path) -> Task:
    if name in WRITERS:
        WRITERS[name](folder)
    return load_task(name, folder)


def built(task: Task) -> nn.Module:
    torch.manual_seed(0)
    return task.build()


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_number_of_parameters(name: str) -> None:
    model = load_task(name, None).build()
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not list(model.buffers())


def test_mnist_has_the_tensors_of_the_fedavg_cnn() -> None:
    shapes = {
        key: tuple(v.shape) for key, v in load_task("mnist", None).build().state_dict().items()
    }
    assert shapes == {
        "conv1.weight": (32, 1, 5, 5),
        "conv1.bias": (32,),
        "conv2.weight": (64, 32, 5, 5),
        "conv2.bias": (64,),
        "fc1.weight": (512, 3136),
        "fc1.bias": (512,),
        "fc2.weight": (10, 512),
        "fc2.bias": (10,),
    }


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_a_round_runs_and_repeats_bit_for_bit(name: str, tmp_path: Path) -> None:
    task = written(name, tmp_path)
    data = task.load()
    some = data.train.take(np.arange(20, dtype=np.int64))
    # More steps than one: the residual blocks start as the identity, and their inner weights
    # move from the second step on.
    training = replace(task.training, batch_size=8)
    states = []
    for _ in range(2):
        model = built(task)
        result = task.train(model, some, training, torch.Generator().manual_seed(5))
        states.append(model.state_dict())
    assert result.examples == 20
    assert np.isfinite(result.loss)
    for key, value in built(task).state_dict().items():
        assert torch.equal(states[0][key], states[1][key])
        assert not torch.equal(states[0][key], value)
        assert states[0][key].is_contiguous()  # its bytes are sent as they lie
    evaluation = task.evaluate(model, data.test)
    assert evaluation.loss.shape == evaluation.correct.shape == (len(data.test),)
    assert evaluation.right.shape == evaluation.total.shape == (len(data.classes),)
    assert int(evaluation.total.sum()) == data.test.labels.numel()


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_inputs_are_stored_small_and_prepared_as_floats_or_symbols(
    name: str, tmp_path: Path
) -> None:
    task = written(name, tmp_path)
    inputs = task.load().train.inputs
    assert inputs.dtype == torch.uint8
    before = inputs.clone()
    prepared = task.prepare(inputs[:7])
    text = name.startswith("shakespeare")
    assert prepared.dtype == (torch.int64 if text else torch.float32)
    assert prepared.abs().max() < (len(VOCABULARY) if text else 5)
    assert torch.equal(inputs, before)


def test_digits_split_is_stratified_and_fixed() -> None:
    data = load_task("digits", None).load()
    assert (len(data.train), len(data.test)) == (1433, 364)
    share = torch.bincount(data.test.labels) / (
        torch.bincount(data.test.labels) + torch.bincount(data.train.labels)
    )
    assert float((share - 0.2).abs().max()) < 0.005
    # The first images of the set are 0, 1, ..., 9: each is its class's first, a test image.
    assert data.test.labels[:10].tolist() == list(range(10))


def test_digits_reach_95_percent_quickly() -> None:
    task = load_task("digits", None)
    data, model = task.load(), built(task)
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        task.train(model, data.train, task.training, generator)
    assert task.evaluate(model, data.test).accuracy >= 0.95


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("below", [True, False])
def test_mnist_is_found_and_read(tmp_path: Path, packed: bool, below: bool) -> None:
    write_mnist(tmp_path / "mnist" if below else tmp_path, packed)
    data = load_task("mnist", tmp_path).load()
    assert data.train.inputs.shape == (30, 28, 28)
    assert data.test.inputs.shape == (12, 28, 28)
    expected = np.random.default_rng(0).integers(0, 256, (30, 28, 28), np.uint8)
    np.testing.assert_array_equal(data.train.inputs.numpy(), expected)
    assert data.test.labels.tolist() == [*range(10), 0, 1]


def test_the_environment_variable_names_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shakespeare(tmp_path / "shakespeare")
    monkeypatch.setenv("FLOWERPRESS_DATA", str(tmp_path))
    assert len(load_task("shakespeare", None).load().train) > 0
    with pytest.raises(ConfigError, match="does not exist"):
        load_task("shakespeare", tmp_path / "other").load()  # what is named outright comes first


def test_both_forms_of_cifar10_are_the_same_data(tmp_path: Path) -> None:
    write_cifar10(tmp_path / "npz")
    write_cifar10(tmp_path / "bin" / "cifar-10-batches-bin", binary=True)
    first, second = (load_task("cifar10", tmp_path / form).load() for form in ("npz", "bin"))
    for a, b in ((first.train, second.train), (first.test, second.test)):
        assert torch.equal(a.inputs, b.inputs)
        assert torch.equal(a.labels, b.labels)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mnist", ["MNIST", "train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]),
        ("cifar10", ["CIFAR-10 binary version", "data_batch_5.bin", "test_batch.bin", "train.npz"]),
        ("shakespeare", ["tiny Shakespeare", "input.txt"]),
    ],
)
def test_missing_data_is_explained(tmp_path: Path, name: str, says: list[str]) -> None:
    for folder, extra in ((None, "FLOWERPRESS_DATA"), (tmp_path, str(tmp_path / name))):
        with pytest.raises(ConfigError) as caught:
            load_task(name, folder).load()
        for words in [*says, extra, "Download"]:
            assert words in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist")
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(ConfigError, match=r"mnist lacks t10k-labels-idx1-ubyte\.gz\."):
        load_task("mnist", tmp_path).load()


def test_mnist_whose_files_do_not_fit_is_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    labels = struct.pack(">BBBBI", 0, 0, 8, 1, 3) + bytes(3)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(labels)
    with pytest.raises(FormatError, match="3 labels for 30 images"):
        load_task("mnist", tmp_path).load()


def test_a_label_that_is_no_class_is_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    labels = struct.pack(">BBBBI", 0, 0, 8, 1, 30) + bytes([11]) * 30
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(labels)
    with pytest.raises(ConfigError, match="label 11 names none of the 10 classes"):
        load_task("mnist", tmp_path).load()


@pytest.mark.parametrize(
    ("size", "error"), [(3072, FormatError), (3074, FormatError), ((1 << 30) + 1, LimitError)]
)
def test_cifar10_of_a_wrong_size_is_refused(
    tmp_path: Path, size: int, error: type[WireError]
) -> None:
    write_cifar10(tmp_path, binary=True)
    with (tmp_path / "data_batch_3.bin").open("wb") as file:
        file.truncate(size)  # sparse: takes no room on the disk
    with pytest.raises(error) as caught:
        load_task("cifar10", tmp_path).load()
    assert caught.value.field == "data_batch_3.bin"


def test_cifar10_with_other_values_is_refused(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    np.savez(tmp_path / "test.npz", images=np.zeros((2, 32, 32, 3), np.int16), labels=[0, 1])
    with pytest.raises(FormatError, match="int16; uint8 is expected"):
        load_task("cifar10", tmp_path).load()


def test_speeches_are_collected_by_role() -> None:
    text = (
        "Lost line\n\nANNE:\r\nOne: two:\nthree\n\n\nBOB:\n\nfour\n\nANNE:\nfive\n\nsix:seven\n"
        "\nMUTE:\n\nBOB:\nTo wit:\n"
    )
    assert speeches_by_role(text) == {
        "ANNE": "One: two:\nthree\nfive\nsix:seven\n",
        "BOB": "four\nTo wit:\n",
    }


def decoded(data: Data, client: int) -> tuple[str, str]:
    """The text that a client's windows cover, put together again: train part and test part."""
    partition = split("natural", data, None, seed=0)
    texts = []
    for samples, indices in ((data.train, partition.train), (data.test, partition.test)):
        own = samples.take(indices[client])
        texts.append("".join(VOCABULARY[int(code)] for code in own.inputs.flatten()))
        last = [VOCABULARY[int(code)] for code in own.labels[:, -1]]
        assert own.labels[:, :-1].equal(own.inputs[:, 1:].long())
        assert last[:-1] == [VOCABULARY[int(code)] for code in own.inputs[1:, 0]]
    return texts[0], texts[1]


def test_shakespeare_windows_are_the_text_and_the_last_part_is_the_test(tmp_path: Path) -> None:
    write_shakespeare(tmp_path)
    data = load_task("shakespeare", tmp_path).load()
    roles = speeches_by_role((tmp_path / "input.txt").read_text(encoding="utf-8"))
    assert data.train.groups is not None
    assert set(data.train.groups.tolist()) == {0, 1}  # the servant says too little
    for client, role in enumerate(("ANNE", "First Ghost")):
        train, test = decoded(data, client)
        whole = len(roles[role]) // 80 * 80
        assert roles[role].startswith(train + test)
        assert len(train + test) in (whole, whole - 80)
        assert len(test) == len(train + test) // 80 // 5 * 80


def test_shakespeare_takes_any_bytes_as_text(tmp_path: Path) -> None:
    (tmp_path / "input.txt").write_bytes(
        b"R\xff:\n" + "é\u2603\U0001f600~".encode() * 600 + b"\xff"
    )
    data = load_task("shakespeare", tmp_path).load()
    assert set(np.unique(data.train.inputs.numpy()).tolist()) == {0, VOCABULARY.index("~")}


def test_a_transformer_does_not_look_ahead() -> None:
    model = built(load_task("shakespeare-transformer", None)).eval()
    first = torch.randint(len(VOCABULARY), (2, 80), generator=torch.Generator().manual_seed(0))
    second = first.clone()
    second[:, 50] = (first[:, 50] + 1) % len(VOCABULARY)
    with torch.no_grad():
        change = (model(first) - model(second)).abs().amax((0, 2))
    assert not change[:50].any()
    assert (change[50:] > 0).all()


@pytest.mark.parametrize("content", [b"", b"no roles here\n" * 500, b"A:\nshort\n"])
def test_a_text_without_long_roles_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "input.txt").write_bytes(content)
    with pytest.raises(FormatError, match="ROLE:"):
        load_task("shakespeare", tmp_path).load()


@pytest.mark.parametrize(
    ("name", "train", "test"),
    [("mnist", 60_000, 10_000), ("cifar10", 20_000, 4_000), ("shakespeare", 5_000, 1_000)],
)
@pytest.mark.usefixtures("real")
def test_real_data(name: str, train: int, test: int) -> None:
    task = load_task(name, None)
    data = task.load()
    assert len(data.train) >= train
    assert len(data.test) >= test
    values = task.prepare(data.train.inputs[:2000])
    if name == "shakespeare":
        assert int(data.train.inputs.min()) > 0  # no character is unknown
    else:
        assert abs(float(values.mean())) < 0.1
        assert abs(float(values.std()) - 1.0) < 0.1
        assert len(np.unique(data.train.labels.numpy())) == 10
    model = built(task)
    some = data.train.take(np.arange(0, 320, dtype=np.int64))
    generator = torch.Generator().manual_seed(0)
    before = task.evaluate(model, some).mean_loss
    task.train(model, some, task.training, generator)
    assert task.evaluate(model, some).mean_loss < before
