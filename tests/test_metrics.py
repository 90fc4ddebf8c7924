import itertools
import pickle

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from ncbook.etf import simplex_etf
from ncbook.metrics import METRICS, NeuralCollapse, neural_collapse

SAMPLE_WISE = {"nc4", "numerical_rank", "cosine_margin", "accuracy"}
NEED_WEIGHT = {"nc3", "nc3_gram", "nc4", "weight_equinorm", "weight_equiangular", "bias_collapse", "cosine_margin",
               "accuracy"}
WITHOUT_OOD = [key for key in METRICS if key != "nc5"]


def mixture(seed, num_classes=4, dim=6, samples=80, spread=1.0, shift=1.0):
    """Unbalanced classes around random means, a classifier that is roughly right; float64."""
    generator = torch.Generator().manual_seed(seed)
    randn = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    targets = torch.cat([torch.arange(num_classes),
                         torch.randint(num_classes, (samples - num_classes,), generator=generator)])
    means = 2 * randn(num_classes, dim)
    mixing = torch.eye(dim, dtype=torch.float64) + 0.4 * randn(dim, dim) / dim ** 0.5
    features = shift * randn(dim) + means[targets] + spread * randn(samples, dim) @ mixing
    return features, targets, means + 0.5 * randn(num_classes, dim), randn(num_classes)


def definitions(features, targets, weight, bias):
    """The table of `neural_collapse`, taken literally: d x d pseudo-inverses and loops."""
    x, y, w, b = (t.numpy() for t in (features, targets, weight, bias))
    num_classes, dim = w.shape
    clouds = [x[y == c] for c in range(num_classes)]
    mu = np.array([cloud.mean(0) for cloud in clouds])
    center = mu.mean(0)
    h = (mu - center).T
    m = np.eye(num_classes) - 1 / num_classes
    within = sum((cloud - mean).T @ (cloud - mean) for cloud, mean in zip(clouds, mu)) / len(x)
    between = h @ h.T / num_classes
    variance = [((cloud - mean) ** 2).sum(1).mean() for cloud, mean in zip(clouds, mu)]
    pairs = list(itertools.combinations(range(num_classes), 2))
    ordered = list(itertools.permutations(range(num_classes), 2))
    cos = lambda a, b: a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    frobenius = np.linalg.norm
    logits = x @ w.T + b
    nearest = np.array([np.argmin([frobenius(row - mean) for mean in mu]) for row in x])
    margins = []
    for row, label in zip(x, y):
        cosines = [cos(row - center, w[c] - w.mean(0)) for c in range(num_classes)]
        margins.append(cosines.pop(label) - max(cosines))
    singular = np.linalg.svd(h, compute_uv=False)
    norms, weight_norms = frobenius(h, axis=0), frobenius(w, axis=1)
    gap = lambda gram: frobenius(gram / frobenius(gram) - m / np.sqrt(num_classes - 1))
    spread = lambda rows: np.mean([abs(cos(rows[i], rows[j]) + 1 / (num_classes - 1)) for i, j in ordered])
    return {
        "nc1": np.trace(within @ np.linalg.pinv(between, rcond=1e-10)) / num_classes,
        "nc1_quotient": np.trace(within) / np.trace(between),
        "cdnv": np.mean([(variance[i] + variance[j]) / (2 * frobenius(mu[i] - mu[j]) ** 2) for i, j in pairs]),
        "vci": 1 - np.trace(np.linalg.pinv(within + between) @ between) / min(dim, num_classes - 1),
        "nc2_equinorm": norms.std() / norms.mean(),
        "nc2_equiangular": spread(h.T),
        "nc2_gram": gap(h.T @ h),
        "etf_distance": 2 - 2 * singular.sum() / np.sqrt(num_classes - 1) / frobenius(h),
        "nc3": frobenius(w.T / frobenius(w) - h / frobenius(h)) ** 2,
        "nc3_gram": gap(w @ h),
        "nc4": np.mean(logits.argmax(1) != nearest),
        "weight_equinorm": weight_norms.std() / weight_norms.mean(),
        "weight_equiangular": spread(w),
        "bias_collapse": frobenius(w @ center + b),
        "numerical_rank": np.mean([(np.linalg.svd(cloud, compute_uv=False).sum() / frobenius(cloud)) ** 2
                                   for cloud in clouds]),
        "cosine_margin": np.mean(margins),
        "accuracy": np.mean(logits.argmax(1) == y),
    }


def exact_variability(features, targets):
    """The metrics that scatter decides, in 60 digits."""
    with mpmath.workdps(60):
        num_classes, dim = int(targets.max()) + 1, features.shape[1]
        clouds = [mpmath.matrix(features[targets == c].tolist()) for c in range(num_classes)]
        mean = lambda rows: (mpmath.ones(1, rows.rows) * rows / rows.rows)
        mu = [mean(cloud) for cloud in clouds]
        center = sum(mu[1:], mu[0]) / num_classes
        deviations = [cloud - mpmath.ones(cloud.rows, 1) * m for cloud, m in zip(clouds, mu)]
        within = sum((d.T * d for d in deviations), mpmath.zeros(dim)) / len(features)
        between = sum(((m - center).T * (m - center) for m in mu), mpmath.zeros(dim)) / num_classes
        trace = lambda a: sum(a[i, i] for i in range(dim))
        values, axes = mpmath.eigsy(between)
        inverse = mpmath.diag([1 / v if v > mpmath.mpf(10) ** -40 else 0 for v in values])
        variance = [sum(v ** 2 for v in d) / d.rows for d in deviations]
        pairs = list(itertools.combinations(range(num_classes), 2))
        ratio = lambda i, j: (variance[i] + variance[j]) / (2 * sum(v ** 2 for v in mu[i] - mu[j]))
        ranks = [sum(mpmath.svd_r(c, compute_uv=False)) ** 2 / sum(v ** 2 for v in c) for c in clouds]
        return {key: float(value) for key, value in {
            "nc1": trace(within * axes * inverse * axes.T) / num_classes,
            "nc1_quotient": trace(within) / trace(between),
            "cdnv": sum(ratio(i, j) for i, j in pairs) / len(pairs),
            "vci": 1 - trace(mpmath.inverse(within + between) * between) / min(dim, num_classes - 1),
            "numerical_rank": sum(ranks) / num_classes,
        }.items()}


def assert_same(got, expected, rel=1e-6, abs=1e-12):
    assert list(got) == [key for key in METRICS if key in got]
    assert {key: got[key] for key in expected} == pytest.approx(expected, rel=rel, abs=abs, nan_ok=True)


@settings(max_examples=30)
@given(seed=st.integers(0, 2 ** 31), num_classes=st.integers(2, 6), dim=st.integers(1, 9),
       spread=st.sampled_from([3.0, 1.0, 1e-2]))
def test_agrees_with_the_definitions(seed, num_classes, dim, spread):
    data = mixture(seed, num_classes, dim, spread=spread)
    got, expected = neural_collapse(*data), definitions(*data)
    assert list(got) == WITHOUT_OOD
    assert all(type(value) is float for value in got.values())
    # Taken literally, 1 - tr(...) cancels; the test in 60 digits looks closer.
    assert got["vci"] == pytest.approx(expected.pop("vci"), rel=1e-6, abs=1e-8)
    assert_same(got, expected)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spread", [1.0, 1e-3, 1e-6, 1e-9])
def test_agrees_with_60_digits_when_scatter_vanishes(seed, spread):
    features, targets, weight, bias = mixture(seed, spread=spread, samples=48)
    exact = exact_variability(features, targets)
    assert exact["nc1_quotient"] / spread ** 2 == pytest.approx(1, abs=0.95)
    assert_same(neural_collapse(features, targets), exact, abs=0)
    stream = NeuralCollapse(4, 6)
    for part in torch.arange(48).split(5):
        stream.update(features[part], targets[part])
    assert_same(stream.compute(), exact, abs=0)
    expected = definitions(features, targets, weight, bias)
    assert_same(neural_collapse(features, targets, weight, bias),
                {key: value for key, value in expected.items() if key not in exact}, abs=1e-12)


@settings(max_examples=40)
@given(seed=st.integers(0, 2 ** 31), spread=st.sampled_from([1.0, 1e-3, 1e-6]), data=st.data())
def test_streaming_equals_one_batch_for_any_batching(seed, spread, data):
    samples = 30
    features, targets, weight, bias = mixture(seed, num_classes=3, dim=5, samples=samples, spread=spread)
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(seed))
    cuts = sorted(data.draw(st.sets(st.integers(1, samples - 1), max_size=samples - 1)))
    processes = data.draw(st.integers(1, 4))
    states = [NeuralCollapse(3, 5) for _ in range(processes)]
    for part in torch.tensor_split(order, cuts):
        states[data.draw(st.integers(0, processes - 1))].update(features[part], targets[part])
    merged = pickle.loads(pickle.dumps(states[0]))
    for state in states[1:]:
        merged.merge(pickle.loads(pickle.dumps(state)))
    whole = neural_collapse(features, targets, weight, bias)
    assert list(whole) == WITHOUT_OOD
    assert_same(merged.compute(weight, bias), whole, rel=1e-8, abs=1e-13)


@pytest.mark.parametrize("num_classes, dim", [(2, 1), (2, 5), (4, 3), (10, 32)])
def test_exact_simplex_etf_gives_the_limits(num_classes, dim):
    generator = torch.Generator().manual_seed(0)
    etf = simplex_etf(num_classes, dim, generator=generator, dtype=torch.float64)
    center = torch.randn(dim, generator=generator, dtype=torch.float64)
    targets = torch.arange(num_classes).repeat(5)
    got = neural_collapse((center + 3 * etf)[targets], targets, 2 * etf, -2 * etf @ center)
    limits = dict.fromkeys(WITHOUT_OOD, 0.0) | {"numerical_rank": 1, "accuracy": 1,
                                            "cosine_margin": num_classes / (num_classes - 1)}
    assert got == pytest.approx(limits, abs=1e-12)


@settings(max_examples=20)
@given(seed=st.integers(0, 2 ** 31), scale=st.floats(1e-3, 1e3), samples=st.integers(12, 80))
def test_invariances(seed, scale, samples):
    features, targets, weight, bias = mixture(seed, samples=samples)
    base = neural_collapse(features, targets, weight, bias)
    rotation = torch.linalg.qr(mixture(seed + 1, 6, 6)[2]).Q
    assert_same(neural_collapse(features @ rotation, targets, weight @ rotation, bias), base, abs=1e-9)
    assert_same(neural_collapse(scale * features, targets, weight / scale, bias), base, abs=1e-9)
    relabel = torch.tensor([2, 0, 3, 1])
    renamed = neural_collapse(features, relabel[targets], weight[relabel.argsort()], bias[relabel.argsort()])
    assert_same(renamed, base, abs=1e-9)
    moved = neural_collapse(features + 5, targets, weight, bias - 5 * weight.sum(1))
    assert_same(moved, {key: value for key, value in base.items() if key != "numerical_rank"}, abs=1e-9)


def test_numerical_rank_of_a_low_rank_class():
    # Squaring would lose these: the clouds have rank 2 in 40 dimensions.
    features, targets, *_ = mixture(0, num_classes=2, dim=2, samples=200)
    frame = torch.linalg.qr(mixture(1, 40, 40)[2]).Q[:2]
    exact = np.mean([(np.linalg.svd(features[targets == c], compute_uv=False).sum()
                      / np.linalg.norm(features[targets == c])) ** 2 for c in (0, 1)])
    assert neural_collapse(features @ frame, targets)["numerical_rank"] == pytest.approx(exact, rel=1e-10)


def test_vci_is_nearly_zero_where_the_classes_are_separated_without_scatter():
    features, targets, *_ = mixture(0, num_classes=3, dim=4, samples=60)
    offsets = torch.eye(3, dtype=torch.float64)[targets]
    separated = neural_collapse(torch.cat([features, offsets], 1), targets)
    assert 0 <= separated["vci"] < 1e-10


def test_fewer_dimensions_than_the_etf_needs():
    data = mixture(0, num_classes=5, dim=2)
    got = neural_collapse(*data)
    assert_same(got, {key: value for key, value in definitions(*data).items() if key != "etf_distance"}, abs=1e-12)
    assert got["nc2_gram"] > 0.1 and got["etf_distance"] > 0.1


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
def test_identical_class_means(scale):
    cloud = scale * (7 + torch.randn(9, 4, dtype=torch.float64))
    targets = torch.arange(3).repeat_interleave(9)
    got = neural_collapse(cloud.repeat(3, 1), targets, torch.ones(3, 4))
    assert [got[key] for key in ("nc1", "nc1_quotient", "cdnv")] == [torch.inf] * 3
    assert (got["vci"], got["etf_distance"]) == (1, 2)
    assert all(np.isnan(got[key]) for key in ("nc2_equinorm", "nc2_equiangular", "nc2_gram", "nc3", "nc3_gram"))
    assert all(np.isfinite(got[key]) for key in ("nc4", "accuracy", "cosine_margin", "numerical_rank"))
    point = neural_collapse(cloud[:1].repeat(27, 1), targets)
    assert all(np.isnan(point[key]) for key in ("nc1", "nc1_quotient", "cdnv"))


def test_two_equal_means_among_others():
    features, targets, *_ = mixture(0, num_classes=4)
    split = torch.where((targets == 3) & (torch.arange(80) % 2 == 0), 4, targets)
    features[split == 4] += features[split == 3].mean(0) - features[split == 4].mean(0)
    got = neural_collapse(features, split)
    expected = definitions(features, split, torch.eye(5, 6, dtype=torch.float64), torch.zeros(5))
    assert got["nc1"] == pytest.approx(expected["nc1"], rel=1e-6)
    assert got["vci"] == pytest.approx(expected["vci"], rel=1e-6)
    assert got["vci"] > 0.25


def test_without_weight_only_the_keys_of_features():
    features, targets, weight, bias = mixture(0)
    assert set(neural_collapse(features, targets)) == set(WITHOUT_OOD) - NEED_WEIGHT
    assert neural_collapse(features, targets, weight) == neural_collapse(features, targets, weight, 0 * bias)


def test_constant_memory_leaves_out_the_sample_wise_keys():
    features, targets, weight, bias = mixture(0)
    small = NeuralCollapse(4, 6, keep_features=False).update(features, targets)
    whole = neural_collapse(features, targets, weight, bias)
    assert small.compute(weight, bias) == {key: value for key, value in whole.items() if key not in SAMPLE_WISE}
    assert len(pickle.dumps(small)) < len(pickle.dumps(NeuralCollapse(4, 6).update(features, targets)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_any_floating_dtype_is_computed_in_float64(dtype):
    features, targets, weight, bias = (t.to(dtype) if t.is_floating_point() else t for t in mixture(0))
    expected = definitions(*(t.double() if t.is_floating_point() else t for t in (features, targets, weight, bias)))
    features.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = neural_collapse(features, targets.to(torch.uint8), torch.nn.Parameter(weight), bias)
        stream = NeuralCollapse(4, 6).update(features[:9], targets[:9]).update(features[9:], targets[9:])
        streamed = stream.compute(weight, bias)
    assert_same(got, expected)
    assert_same(streamed, expected)


def test_state_survives_inference_mode_and_reused_buffers():
    features, targets, weight, bias = mixture(0)
    buffer = torch.empty(40, 6, dtype=torch.float64)
    with torch.inference_mode():
        stream = NeuralCollapse(4, 6)
        stream.update(buffer.copy_(features[:40]), targets[:40])
    stream.update(buffer.copy_(features[40:]), targets[40:])
    assert_same(stream.compute(weight, bias), neural_collapse(features, targets, weight, bias))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_equals_cpu():
    data = mixture(0)
    features, targets, weight, bias = (t.cuda() for t in data)
    stream = NeuralCollapse(4, 6)
    with torch.inference_mode():
        stream.update(features[:9], targets[:9])
    stream.update(features[9:], targets[9:])
    for got in (neural_collapse(features, targets, weight, bias), stream.compute(weight, bias)):
        assert_same(got, neural_collapse(*data), rel=1e-9)


X, Y, W, B = mixture(0)


@pytest.mark.parametrize("features, targets, error, message", [
    (X.where(X < 2, torch.nan), Y, ValueError, "features must be finite, got NaN or inf"),
    (X.where(X < 2, torch.inf), Y, ValueError, "features must be finite, got NaN or inf"),
    (X.long(), Y, TypeError, "features must be a floating-point tensor, got torch.int64"),
    (X.numpy(), Y, TypeError, "features must be a floating-point tensor, got ndarray"),
    (X[0], Y, ValueError, r"features must have 2 dimension\(s\), got shape \(6,\)"),
    (X[:0], Y[:0], ValueError, r"features must hold at least one sample .* got shape \(0, 6\)"),
    (X[:, :0], Y, ValueError, r"features must hold .* one dimension, got shape \(80, 0\)"),
    (X, Y.double(), TypeError, "targets must be an integer tensor .* got torch.float64"),
    (X, Y == 1, TypeError, "targets must be an integer tensor .* got torch.bool"),
    (X, Y.tolist(), TypeError, "targets must be an integer tensor .* got list"),
    (X, Y[:-1], ValueError, r"targets must have shape \(80,\), .* got \(79,\)"),
    (X, Y[:, None], ValueError, r"targets must have shape \(80,\), .* got \(80, 1\)"),
    (X, Y - 1, ValueError, "targets must be labels .*-1"),
    (X, Y * 0, ValueError, "targets must hold at least two classes"),
    (X, Y + (Y > 1), ValueError, "targets hold no sample of class 2, but each of the 5 classes needs"),
    (X, Y * 10 ** 15, ValueError, "targets hold no sample of class 1, 2, 3"),
])
def test_bad_batches(features, targets, error, message):
    with pytest.raises(error, match=message):
        neural_collapse(features, targets)


@pytest.mark.parametrize("weight, bias, error, message", [
    (W.long(), B, TypeError, "weight must be a floating-point tensor"),
    (W[0], B, ValueError, r"weight must have 2 dimension\(s\)"),
    (W[:, :5], B, ValueError, r"weight must have shape \(4, 6\), got \(4, 5\)"),
    (W[:3], B[:3], ValueError, r"targets must lie in 0..2, got 0..3"),
    (W[:1], B[:1], ValueError, "num_classes must be at least 2, got 1"),
    (W.repeat(2, 1), B, ValueError, "targets hold no sample of class 4, 5, 6, 7, but each of the 8"),
    (W * torch.nan, B, ValueError, "weight must be finite"),
    (W, B[:3], ValueError, r"bias must have shape \(4,\), got \(3,\)"),
    (W, B / 0, ValueError, "bias must be finite"),
    (W, B.long(), TypeError, "bias must be a floating-point tensor"),
    (None, B, ValueError, "bias was given without weight"),
])
def test_bad_classifiers(weight, bias, error, message):
    with pytest.raises(error, match=message):
        neural_collapse(X, Y, weight, bias)


def test_bad_streams():
    with pytest.raises(ValueError, match="num_classes must be at least 2, got 1"):
        NeuralCollapse(1, 6)
    with pytest.raises(ValueError, match="dim must be at least 1, got 0"):
        NeuralCollapse(4, 0)
    stream = NeuralCollapse(4, 6)
    with pytest.raises(ValueError, match="no samples so far, call update"):
        stream.compute()
    with pytest.raises(ValueError, match=r"features must have 6 columns, got shape \(80, 5\)"):
        stream.update(X[:, :5], Y)
    with pytest.raises(ValueError, match="weight must have shape"):
        NeuralCollapse(4, 6).update(X, Y).compute(W[:3])
    with pytest.raises(ValueError, match="no sample of class 3, but"):
        NeuralCollapse(4, 6).update(X[Y < 3], Y[Y < 3]).compute()
    with pytest.raises(TypeError, match="other must be a NeuralCollapse, got dict"):
        stream.merge({})
    with pytest.raises(ValueError, match="other must agree"):
        stream.merge(NeuralCollapse(5, 6))


def test_a_rejected_batch_leaves_the_state_as_it_was():
    stream = NeuralCollapse(4, 6).update(X, Y)
    before = stream.compute(W, B)
    for features, targets in ((X * torch.nan, Y), (X, Y + 1)):
        with pytest.raises(ValueError, match="NaN|targets must lie in 0..3, got 1..4"):
            stream.update(features, targets)
    assert stream.compute(W, B) == before


def test_nc5_is_the_mean_cosine_of_the_class_means_with_the_mean_out_of_distribution():
    outside = mixture(1)[0] + 0.3
    mu, far = (np.array([X[Y == c].numpy().mean(0) for c in range(4)]), outside.numpy().mean(0))
    expected = np.mean([abs(row @ far) / np.linalg.norm(row) / np.linalg.norm(far) for row in mu])
    got = neural_collapse(X, Y, W, B, ood=outside)
    assert list(got) == list(METRICS)
    assert got["nc5"] == pytest.approx(expected, rel=1e-12)
    first, second = (NeuralCollapse(4, 6).update(X[k::2], Y[k::2]) for k in (0, 1))
    first.update_ood(outside[:3].float()).update_ood(outside[3:20])
    merged = first.merge(second.update_ood(outside[20:]))
    assert merged.compute(keys=["nc5"])["nc5"] == pytest.approx(expected, rel=1e-6)
    orthogonal = torch.eye(6, dtype=torch.float64)
    assert neural_collapse(orthogonal[:4], torch.arange(4), ood=orthogonal[5:])["nc5"] == 0


@pytest.mark.parametrize("ood, error, message", [
    (X.long(), TypeError, "ood must be a floating-point tensor"),
    (X[:, :5], ValueError, r"ood must have 6 columns, got shape \(80, 5\)"),
    (X[:0], ValueError, "ood must hold at least one sample"),
    (X * torch.inf, ValueError, "ood must be finite"),
])
def test_bad_samples_out_of_distribution(ood, error, message):
    with pytest.raises(error, match=message):
        neural_collapse(X, Y, ood=ood)


def test_scatter_below_the_rounding_of_the_means_survives_streaming():
    far = X * 1e-6 + 1e3 + Y[:, None]
    exact = exact_variability(far, Y)
    states = [NeuralCollapse(4, 6, keep_features=False) for _ in range(3)]
    for k, part in enumerate(torch.arange(80).split(7)):
        states[k % 3].update(far[part], Y[part])
    got = states[0].merge(states[1]).merge(states[2]).compute(keys=["nc1_quotient", "cdnv"])
    assert got == pytest.approx({key: exact[key] for key in got}, rel=1e-9)


def test_reset_and_a_state_that_starts_from_another_one():
    state = NeuralCollapse(4, 6).update(X, Y).update_ood(X)
    whole = state.compute(W, B)
    again = NeuralCollapse(4, 6, packed=state.packed.clone(), samples=[(X, Y)])
    assert again.compute(W, B) == whole
    assert NeuralCollapse(4, 6).update(X, Y).to("cpu").compute(W, B) == state.reset().update(X, Y).compute(W, B)
    with pytest.raises(ValueError, match=r"packed must be float64 of shape \(99,\), got torch.float32 of \(99,\)"):
        NeuralCollapse(4, 6, packed=again.packed.float())


def test_features_whose_squares_overflow():
    state = NeuralCollapse(4, 6).update(X * 1e200, Y)
    with pytest.raises(ValueError, match="features must be so small that the sums of their squares are finite"):
        state.compute()


def test_thousands_of_classes_need_neither_samples_by_classes_nor_a_matrix_a_class():
    num_classes, dim, samples = 1000, 32, 20_000
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for x in out if isinstance(out, (tuple, list)) else [out]:
                largest = max(largest, x.numel() if isinstance(x, torch.Tensor) else 0)
            return out

    features, targets = torch.randn(samples, dim), torch.arange(samples) % num_classes
    with Watch():
        neural_collapse(features, targets, torch.randn(num_classes, dim))
    assert num_classes ** 2 <= largest <= 5 * num_classes ** 2 < samples * num_classes < num_classes ** 2 * dim
