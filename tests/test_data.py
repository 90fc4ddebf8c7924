import pickle
from urllib.error import URLError

import numpy as np
import pytest
import scipy.io
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from sklearn.datasets import load_digits
from torchvision import datasets

from ncbook.training.data import SameClassSampler, load_dataset


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NCBOOK_DATA", str(tmp_path))

    def offline(*args, **kwargs):
        raise URLError("no network in tests")

    for module in (datasets.mnist, datasets.cifar, datasets.stl10):
        monkeypatch.setattr(module, "download_and_extract_archive", offline)
    monkeypatch.setattr(datasets.svhn, "download_url", offline)
    return tmp_path


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def write_idx(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">i4").tobytes()
    path.write_bytes(header + array.tobytes())


def assert_images(inputs, expected):
    """`inputs` are the uint8 images (N, c, h, w) `expected` as float32 in [0, 1]."""
    assert inputs.dtype == torch.float32 and inputs.is_contiguous()
    np.testing.assert_allclose(inputs.numpy(), expected / 255, atol=1e-7)


def test_digits_are_sklearns_own_images():
    data = load_dataset("digits")
    images, targets = load_digits(return_X_y=True)
    assert data.train_inputs.shape == (1437, 1, 8, 8) and data.test_inputs.shape == (360, 1, 8, 8)
    ours = torch.cat([data.train_inputs, data.test_inputs]).flatten(1).mul(16).numpy()
    labelled = np.c_[ours, torch.cat([data.train_targets, data.test_targets]).numpy()]
    theirs = np.c_[images, targets]
    np.testing.assert_array_equal(labelled[np.lexsort(labelled.T)], theirs[np.lexsort(theirs.T)])
    assert data.class_names == tuple("0123456789") and data.num_classes == 10 and data.input_shape == (1, 8, 8)
    assert data.train_targets.dtype == torch.int64 and data.train_inputs.max() == 1


def test_digits_split_is_fixed_and_stratified():
    first, second = load_dataset("digits"), load_dataset("digits")
    assert torch.equal(first.train_inputs, second.train_inputs) and torch.equal(first.test_targets, second.test_targets)
    share = first.test_targets.bincount() / (first.test_targets.bincount() + first.train_targets.bincount())
    assert (share - 0.2).abs().max() < 0.01


def test_classes_are_relabelled_in_the_order_given():
    whole, few = load_dataset("digits"), load_dataset("digits", classes=(7, 0, 3))
    assert few.class_names == ("7", "0", "3") and few.num_classes == 3
    for new, old in enumerate((7, 0, 3)):
        assert torch.equal(few.train_inputs[few.train_targets == new], whole.train_inputs[whole.train_targets == old])
        assert torch.equal(few.test_inputs[few.test_targets == new], whole.test_inputs[whole.test_targets == old])
    assert len(few.train_targets) == sum((whole.train_targets == old).sum() for old in (7, 0, 3))


def test_an_integer_takes_the_first_classes():
    first, named = load_dataset("digits", classes=4), load_dataset("digits", classes=(0, 1, 2, 3))
    assert torch.equal(first.train_inputs, named.train_inputs) and torch.equal(first.train_targets, named.train_targets)


@pytest.mark.parametrize("size", [10, 100, 250])
def test_train_size_keeps_the_class_proportions(size):
    whole, few = load_dataset("digits"), load_dataset("digits", train_size=size)
    assert len(few.train_targets) == len(few.train_inputs) == size
    expected = whole.train_targets.bincount() * size / len(whole.train_targets)
    assert (few.train_targets.bincount(minlength=10) - expected).abs().max() < 1
    assert torch.equal(few.test_inputs, whole.test_inputs)


def test_train_size_takes_distinct_samples_and_split_chooses_them():
    same = [load_dataset("digits", train_size=200, split=split) for split in (0, 0, 1)]
    assert torch.equal(same[0].train_inputs, same[1].train_inputs)
    assert not torch.equal(same[0].train_inputs, same[2].train_inputs)
    assert len(load_dataset("gaussians", train_size=500).train_inputs.unique(dim=0)) == 500


def test_train_size_of_the_whole_set_is_the_whole_set():
    assert torch.equal(load_dataset("digits", train_size=1437).train_inputs, load_dataset("digits").train_inputs)


def test_subset_and_to_keep_inputs_and_targets_together():
    data = load_dataset("digits")
    part = data.subset(np.array([5, 2]))
    assert torch.equal(part.train_inputs, data.train_inputs[[5, 2]])
    assert torch.equal(part.train_targets, data.train_targets[[5, 2]])
    assert torch.equal(part.test_inputs, data.test_inputs) and part.num_classes == 10
    moved = part.to("meta")
    assert moved.train_inputs.device.type == moved.test_targets.device.type == "meta"
    assert load_dataset("unconstrained").to("cpu").test_inputs is None


def test_gaussians_cannot_be_separated_by_a_linear_map():
    data = load_dataset("gaussians")
    assert data.train_inputs.shape == (600, 2) and data.test_inputs.shape == (300, 2) and data.input_shape == (2,)
    assert data.train_targets.bincount().tolist() == [200] * 3 and data.test_targets.bincount().tolist() == [100] * 3
    points = torch.cat([data.train_inputs, torch.ones(600, 1)], dim=1)
    one_hot = torch.eye(3)[data.train_targets]
    fit = points @ torch.linalg.lstsq(points, one_hot).solution
    assert (fit.argmax(1) == data.train_targets).float().mean() < 0.8
    assert torch.equal(data.train_inputs, load_dataset("gaussians").train_inputs)


@pytest.mark.parametrize("num_classes", [2, 3, 5, 10])
def test_gaussians_of_different_classes_do_not_overlap(num_classes):
    data = load_dataset("gaussians", classes=num_classes)
    nearest = torch.cdist(data.test_inputs, data.train_inputs).argmin(1)
    assert (data.train_targets[nearest] == data.test_targets).float().mean() > 0.995
    means = torch.stack([data.train_inputs[data.train_targets == c].mean(0) for c in range(num_classes)])
    assert means.norm(dim=1).std() < 0.05


def test_unconstrained_inputs_are_the_sample_indices():
    data = load_dataset("unconstrained", classes=4, train_size=22)
    assert torch.equal(data.train_inputs, torch.arange(22)) and data.input_shape == ()
    assert sorted(data.train_targets.bincount().tolist()) == [5, 5, 6, 6] and data.num_classes == 4
    assert data.test_inputs is None and data.test_targets is None
    assert load_dataset("unconstrained").train_targets.bincount().tolist() == [100] * 10


@pytest.mark.parametrize(
    "name, class_name", [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST"), ("kmnist", "KMNIST")]
)
def test_idx_files_in_the_folder_are_read_without_network(name, class_name, folder, rng):
    images = {part: rng.integers(0, 256, (20, 28, 28), dtype=np.uint8) for part in ("train", "t10k")}
    labels = np.arange(20, dtype=np.uint8) % 10
    for part, array in images.items():
        write_idx(folder / class_name / "raw" / f"{part}-images-idx3-ubyte", array)
        write_idx(folder / class_name / "raw" / f"{part}-labels-idx1-ubyte", labels)
    data = load_dataset(name)
    assert_images(data.train_inputs, images["train"][:, None])
    assert_images(data.test_inputs, images["t10k"][:, None])
    assert data.train_targets.tolist() == data.test_targets.tolist() == labels.tolist()
    assert len(data.class_names) == 10 and (name != "mnist" or data.class_names == tuple("0123456789"))
    few = load_dataset(name, classes=(9, 4))
    assert_images(few.train_inputs, images["train"][[4, 9, 14, 19]][:, None])
    assert few.train_targets.tolist() == [1, 0, 1, 0]


def test_svhn_files_keep_their_axes_and_label_ten_is_the_digit_zero(folder, rng, monkeypatch):
    images = rng.integers(0, 256, (32, 32, 3, 12), dtype=np.uint8)
    labels = np.array([10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1], dtype=np.uint8)[:, None]
    for part in ("train", "test"):
        scipy.io.savemat(folder / f"{part}_32x32.mat", {"X": images, "y": labels})
    files = {part: ["", f"{part}_32x32.mat", None] for part in ("train", "test", "extra")}
    monkeypatch.setattr(datasets.SVHN, "split_list", files)
    data = load_dataset("svhn")
    assert_images(data.train_inputs, images.transpose(3, 2, 0, 1))
    assert data.test_targets.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert data.class_names == tuple("0123456789") and data.test_targets.dtype == torch.int64


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_files_keep_their_axes(name, folder, rng, monkeypatch):
    source, key, names_key = {
        "cifar10": (datasets.CIFAR10, "labels", "label_names"),
        "cifar100": (datasets.CIFAR100, "fine_labels", "fine_label_names"),
    }[name]
    images = rng.integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
    base = folder / source.base_folder
    base.mkdir()
    for file in ("one", "two", "three"):
        (base / file).write_bytes(pickle.dumps({"data": images.reshape(5, -1), key: [3, 1, 0, 2, 2]}))
    (base / "names").write_bytes(pickle.dumps({names_key: ["cat", "dog", "frog", "ship"]}))
    monkeypatch.setattr(source, "train_list", [["one", None], ["two", None]])
    monkeypatch.setattr(source, "test_list", [["three", None]])
    monkeypatch.setattr(source, "meta", {"filename": "names", "key": names_key, "md5": None})
    data = load_dataset(name)
    assert_images(data.train_inputs, np.concatenate([images, images]))
    assert_images(data.test_inputs, images)
    assert data.test_targets.tolist() == [3, 1, 0, 2, 2] and data.class_names == ("cat", "dog", "frog", "ship")


def test_stl10_files_are_column_major_and_count_labels_from_one(folder, rng, monkeypatch):
    images = rng.integers(0, 256, (6, 3, 96, 96), dtype=np.uint8)
    base = folder / "stl10_binary"
    base.mkdir()
    for part in ("train", "test"):
        (base / f"{part}_X.bin").write_bytes(images.transpose(0, 1, 3, 2).tobytes())
        (base / f"{part}_y.bin").write_bytes(bytes([1, 2, 10, 4, 5, 1]))
        monkeypatch.setattr(datasets.STL10, f"{part}_list", [[f"{part}_X.bin", None], [f"{part}_y.bin", None]])
    names = [f"class {i}" for i in range(10)]
    (base / "class_names.txt").write_text("\n".join(names))
    data = load_dataset("stl10", classes=(0, 9))
    assert_images(data.train_inputs, images[[0, 2, 5]])
    assert data.test_targets.tolist() == [0, 1, 0] and data.class_names == ("class 0", "class 9")


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "kmnist", "svhn", "cifar10", "cifar100", "stl10"])
@pytest.mark.parametrize("download", [True, False])
def test_absent_files_offline_are_one_error_that_says_what_to_do(name, download, folder):
    with pytest.raises(RuntimeError, match="NCBOOK_DATA.*network.*'digits'") as error:
        load_dataset(name, download=download)
    assert repr(name) in str(error.value) and str(folder) in str(error.value)


def test_absent_files_are_downloaded(folder, monkeypatch):
    def download(url, download_root, **kwargs):
        shape = (10, 28, 28) if "images" in url else (10,)
        write_idx(folder / "MNIST" / "raw" / url.split("/")[-1].removesuffix(".gz"), np.zeros(shape, dtype=np.uint8))

    monkeypatch.setattr(datasets.mnist, "download_and_extract_archive", download)
    assert load_dataset("mnist").train_inputs.shape == (10, 1, 28, 28)


def test_data_folder_defaults_to_the_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("NCBOOK_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(RuntimeError, match="ncbook") as error:
        load_dataset("mnist", download=False)
    assert str(tmp_path / "ncbook") in str(error.value)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"name": "minst"}, ValueError, "name must be one of 'digits', 'mnist'.*'minst'"),
        ({"classes": 1}, ValueError, "classes must be at least 2"),
        ({"classes": 11}, ValueError, r"classes .*0\.\.9"),
        ({"classes": (0, 10)}, ValueError, r"classes .*0\.\.9.*10"),
        ({"classes": (0, -1)}, ValueError, "classes"),
        ({"classes": (3, 3, 4)}, ValueError, "different"),
        ({"classes": (3,)}, ValueError, "two or more"),
        ({"classes": "01"}, TypeError, "classes"),
        ({"classes": (0.0, 1.0)}, TypeError, "classes"),
        ({"classes": True}, TypeError, "classes"),
        ({"train_size": 1438}, ValueError, "train_size must be from 10 .*1437, not 1438"),
        ({"train_size": 1430}, ValueError, "train_size must be from 10 .* to 1427"),
        ({"train_size": 9}, ValueError, "train_size must be from 10"),
        ({"train_size": 0.5}, TypeError, "train_size must be an integer"),
        ({"name": "gaussians", "classes": (0, 1)}, TypeError, "classes must be an integer"),
        ({"name": "unconstrained", "train_size": 9}, ValueError, "train_size must be at least 10, got 9"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        load_dataset(**{"name": "digits", **arguments})


def test_a_split_that_would_lose_a_class_is_an_error(folder):
    labels = np.array([0] * 40 + [1] * 40 + [2] * 2, dtype=np.uint8)
    for part in ("train", "t10k"):
        write_idx(folder / "MNIST" / "raw" / f"{part}-images-idx3-ubyte", np.zeros((82, 28, 28), dtype=np.uint8))
        write_idx(folder / "MNIST" / "raw" / f"{part}-labels-idx1-ubyte", labels)
    with pytest.raises(ValueError, match=r"train_size 4 is too small .*\[2\]"):
        load_dataset("mnist", classes=3, train_size=4)


@settings(max_examples=50)
@given(
    targets=st.lists(st.integers(0, 5), min_size=1, max_size=30),
    anchors=st.lists(st.integers(0, 10**6), max_size=8),
    points=st.integers(1, 6),
    seed=st.integers(0, 2**31),
)
def test_sampler_draws_from_the_class_of_the_anchor(targets, anchors, points, seed):
    targets = torch.tensor(targets)
    anchors = torch.tensor(anchors, dtype=torch.long) % len(targets)
    drawn = SameClassSampler(targets)(anchors, points, torch.Generator().manual_seed(seed))
    assert drawn.shape == (len(anchors), points) and drawn.dtype == torch.int64
    assert torch.equal(drawn[:, 0], anchors)
    assert (targets[drawn] == targets[anchors].unsqueeze(1)).all()


def test_sampler_draws_uniformly_with_replacement():
    targets = torch.tensor([2, 0, 2, 1, 2, 0, 2, 2])
    drawn = SameClassSampler(targets)(torch.tensor([4]), 10_001, torch.Generator().manual_seed(0))[0, 1:]
    counts = drawn.bincount(minlength=8)
    assert counts[[1, 3, 5]].sum() == 0
    assert chisquare(counts[[0, 2, 4, 6, 7]].numpy()).pvalue > 1e-3


def test_sampler_repeats_with_the_seed_and_takes_a_whole_epoch_of_anchors():
    targets = torch.arange(100) % 7
    anchors = torch.randint(100, (5, 8), generator=torch.Generator().manual_seed(0))
    sampler = SameClassSampler(targets)
    first, second, other = (sampler(anchors, 16, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert first.shape == (5, 8, 16)
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert len(first[0, 0].unique()) < 16


def test_sampler_repeats_the_only_sample_of_a_class():
    assert SameClassSampler(torch.tensor([0, 3, 0]))(torch.tensor([1]), 4).tolist() == [[1, 1, 1, 1]]


def test_sampler_stays_in_the_class_where_a_uniform_number_rounds_up_to_one(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda shape, **kwargs: torch.ones(shape))
    assert SameClassSampler(torch.tensor([0, 0, 1]))(torch.tensor([0]), 3).tolist() == [[0, 1, 1]]


@pytest.mark.parametrize(
    "targets, error",
    [(torch.zeros(3), TypeError), (torch.zeros(2, 2).long(), ValueError), (torch.zeros(0).long(), ValueError)],
)
def test_sampler_names_bad_targets(targets, error):
    with pytest.raises(error, match="targets must"):
        SameClassSampler(targets)


def test_sampler_needs_a_point():
    with pytest.raises(ValueError, match="points must be at least 1, not 0"):
        SameClassSampler(torch.tensor([0, 1]))(torch.tensor([0]), 0)
