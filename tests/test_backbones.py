import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ncbook.training.backbones import build_backbone
from ncbook.training.data import load_dataset

IMAGE_BACKBONES = [
    ("mlp", (2,), 64),
    ("mlp", (1, 8, 8), 64),
    ("small_cnn", (1, 8, 8), 64),
    ("small_cnn", (1, 28, 28), 64),
    ("small_cnn", (3, 32, 32), 64),
    ("mnist_cnn", (1, 28, 28), 128),
    ("cnn13", (3, 32, 32), 128),
    ("resnet18", (3, 16, 16), 512),
    ("resnet18_7x7", (1, 28, 28), 512),
]


def num_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name, input_shape, own_dim", IMAGE_BACKBONES)
@pytest.mark.parametrize("feature_dim", [None, 3])
def test_features_have_the_stated_width_and_every_weight_a_gradient(name, input_shape, own_dim, feature_dim):
    torch.manual_seed(0)
    backbone = build_backbone(name, input_shape, feature_dim=feature_dim)
    features = backbone(torch.rand(4, *input_shape))
    assert features.shape == (4, backbone.feature_dim) and backbone.feature_dim == (feature_dim or own_dim)
    features.square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in backbone.parameters() if parameter.ndim > 1)
    if feature_dim is not None or name in ("mlp", "small_cnn"):
        assert (features < 0).any() and (features > 0).any()


@pytest.mark.parametrize("name, input_shape, own_dim", IMAGE_BACKBONES)
def test_in_eval_mode_features_do_not_depend_on_the_batch(name, input_shape, own_dim):
    torch.manual_seed(0)
    backbone = build_backbone(name, input_shape)
    inputs = torch.rand(3, *input_shape)
    backbone(inputs)
    backbone.eval()
    with torch.no_grad():
        torch.testing.assert_close(backbone(inputs)[:1], backbone(inputs[:1]), atol=1e-5, rtol=1e-4)


def test_mnist_cnn_has_the_published_layers():
    # Weights and biases of the convolutions 1-8-32-64-128, then scale and shift of each batch norm.
    convolutions = 9 * (1 * 8 + 8 * 32 + 32 * 64 + 64 * 128) + (8 + 32 + 64 + 128)
    assert num_parameters(build_backbone("mnist_cnn", (1, 28, 28))) == convolutions + 2 * (8 + 32 + 64 + 128) == 95_232


def test_mnist_cnn_equals_pooling_after_the_activation():
    torch.manual_seed(0)
    backbone = build_backbone("mnist_cnn", (1, 28, 28))
    for module in backbone:
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    inputs = torch.rand(5, 1, 28, 28)
    published = inputs
    for convolution, norm in zip(backbone[0::4], backbone[1::4]):
        published = convolution(published)
        published = F.batch_norm(published, None, None, norm.weight, norm.bias, training=True)
        published = F.max_pool2d(F.leaky_relu(published, 0.1), 2)
    torch.testing.assert_close(backbone(inputs), published.flatten(1), atol=1e-5, rtol=1e-4)


def test_cnn13_has_the_published_layers():
    widths = [(3, 128, 9), (128, 128, 9), (128, 128, 9), (128, 256, 9), (256, 256, 9), (256, 256, 9)]
    widths += [(256, 512, 9), (512, 256, 1), (256, 128, 1)]
    expected = sum(channels * width * window + 3 * width for channels, width, window in widths)
    backbone = build_backbone("cnn13", (3, 32, 32))
    assert num_parameters(backbone) == expected
    assert [module.p for module in backbone if isinstance(module, nn.Dropout)] == [0.5, 0.5]


def test_resnet18_keeps_small_images_large():
    backbone = build_backbone("resnet18", (1, 28, 28))
    # torchvision's network less its classifier (512 x 1000 + 1000), with a 3x3 instead of a 7x7x3 first convolution.
    assert num_parameters(backbone) == 11_689_512 - 513_000 - 64 * 3 * 49 + 64 * 9
    sizes = []
    backbone[0].layer1.register_forward_hook(lambda module, inputs, output: sizes.append(output.shape[-2:]))
    backbone(torch.rand(2, 1, 28, 28))
    assert sizes == [(28, 28)]


def test_free_features_are_one_vector_a_sample():
    torch.manual_seed(0)
    backbone = build_backbone("free_features", (), num_samples=1000)
    assert backbone.feature_dim == 512 and num_parameters(backbone) == 512_000
    features = backbone(torch.tensor([3, 7, 3]))
    assert torch.equal(features[0], features[2]) and not torch.equal(features[0], features[1])
    features.sum().backward()
    assert backbone.weight.grad[[3, 7]].abs().sum() > 0 and backbone.weight.grad[4:7].abs().sum() == 0
    norms = backbone(torch.arange(1000)).norm(dim=1)
    assert 0.8 < norms.min() and norms.max() < 1.2
    assert build_backbone("free_features", (), feature_dim=4, num_samples=9)(torch.arange(9)).shape == (9, 4)


def test_a_copy_restored_from_a_state_dict_gives_the_same_features():
    backbone, other = (build_backbone("mnist_cnn", (1, 28, 28)).eval() for _ in range(2))
    inputs = torch.rand(3, 1, 28, 28)
    assert not torch.equal(backbone(inputs), other(inputs))
    other.load_state_dict(copy.deepcopy(backbone.state_dict()))
    assert torch.equal(backbone(inputs), other(inputs))


@pytest.mark.parametrize(
    "name, dataset, feature_dim, epochs, reached",
    [("small_cnn", "digits", None, 5, 0.97), ("mlp", "gaussians", 2, 20, 0.98)],
)
def test_backbone_learns_its_data_set(name, dataset, feature_dim, epochs, reached):
    torch.manual_seed(0)
    data = load_dataset(dataset)
    backbone = build_backbone(name, data.input_shape, feature_dim=feature_dim)
    model = nn.Sequential(backbone, nn.Linear(backbone.feature_dim, data.num_classes))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    steps = len(data.train_targets) // 64
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(data.train_targets))[: 64 * steps].split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(data.train_inputs[batch]), data.train_targets[batch]).backward()
            optimizer.step()
            decay.step()
    model.eval()
    assert (model(data.test_inputs).argmax(1) == data.test_targets).float().mean() > reached


@pytest.mark.parametrize(
    "name, input_shape, arguments, message",
    [
        ("resnet", (3, 32, 32), {}, "name must be one of 'mlp', 'small_cnn', .*'resnet'"),
        ("mlp", (), {}, "input_shape of 'mlp'"),
        ("small_cnn", (8, 8), {}, r"input_shape of 'small_cnn' must be \(c, h, w\)"),
        ("small_cnn", (1, 3, 8), {}, "h, w >= 4"),
        ("mnist_cnn", (3, 32, 32), {}, r"input_shape of 'mnist_cnn' must be \(c, 28, 28\), not \(3, 32, 32\)"),
        ("cnn13", (1, 28, 28), {}, r"\(c, 32, 32\)"),
        ("resnet18", (2,), {}, "input_shape of 'resnet18'"),
        ("resnet18", (0, 32, 32), {}, "input_shape of 'resnet18'"),
        ("free_features", (2,), {"num_samples": 5}, "input_shape of 'free_features' .* indices"),
        ("free_features", (), {}, "num_samples must be an integer, got None"),
        ("mlp", (2,), {"feature_dim": 0}, "feature_dim must be at least 1, got 0"),
        ("mlp", (2,), {"feature_dim": 2.5}, "feature_dim must be an integer, got 2.5"),
    ],
)
def test_bad_arguments_are_named(name, input_shape, arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        build_backbone(name, input_shape, **arguments)
