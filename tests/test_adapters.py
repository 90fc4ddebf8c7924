"""Heads on the models of torchvision and timm, and on models that are wrapped or not in the usual form."""

from functools import partial

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from ncbook.adapters import bare, find_classifier, observing, replace_classifier
from ncbook.heads import FixedETFHead, LearnedHead, NearestETFHead

X, Y = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3


def small(out=3):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 8), nn.ReLU(), nn.Linear(8, out))


@pytest.mark.parametrize("name, layer", {
    "resnet18": "fc", "mobilenet_v3_small": "classifier.3", "shufflenet_v2_x0_5": "fc", "mnasnet0_5": "classifier.1",
    "vit_b_16": "heads.head", "swin_t": "head", "convnext_tiny": "classifier.2", "vgg11": "classifier.6",
    "densenet121": "classifier", "maxvit_t": "classifier.5", "googlenet": "fc",
}.items())
def test_torchvision_classifiers_are_found(name, layer):
    with torch.device("meta"):
        model = torchvision.models.get_model(name, weights=None, num_classes=7,
                                             **({"init_weights": False} if name == "googlenet" else {}))
    assert find_classifier(model) == (layer, model.get_submodule(layer))


@pytest.mark.parametrize("name, layer", {
    "resnet18": "fc", "convnext_atto": "head.fc", "vit_tiny_patch16_224": "head", "mobilenetv3_small_050": "classifier",
    "swin_tiny_patch4_window7_224": "head.fc", "regnetx_002": "head.fc", "vgg11": "head.fc",
}.items())
def test_timm_classifiers_are_found_nested_too(name, layer):
    model = timm.create_model(name, pretrained=False, num_classes=7, device="meta")
    assert find_classifier(model) == (layer, model.get_submodule(layer))


@pytest.mark.parametrize("model, message", [
    (torchvision.models.squeezenet1_0, r"one nn.Linear, but the layer 'classifier.1' is of type Conv2d"),
    (partial(timm.create_model, "deit_tiny_distilled_patch16_224"), r"get_classifier\(\) returns is of type tuple"),
    (partial(timm.create_model, "resnet18", num_classes=0), "the layer 'fc' is of type Identity"),
    (partial(nn.Sequential, nn.Linear(3, 3), nn.BatchNorm1d(3)), "the layer '1' is of type BatchNorm1d"),
    (nn.Flatten, "its classifier|is of type Flatten"),
])
def test_other_classifiers_are_refused_by_name(model, message):
    with pytest.raises(ValueError, match=message):
        replace_classifier(model())


def test_what_to_do_for_other_classifiers_is_said_and_works():
    model = timm.create_model("resnetv2_50", num_classes=10, device="meta")
    with pytest.raises(ValueError, match=r"'head.fc' is of type Conv2d: .* nn.Sequential\(model, nn.Linear\(d, C\)\)"):
        replace_classifier(model, name="head.fc")
    body = timm.create_model("dla46_c", num_classes=0)
    model = replace_classifier(nn.Sequential(body, nn.Linear(body.num_features, 3)))
    with observing(model, Y):
        assert model(X).shape == (6, 3) and model[1].averages.count.all()
    pair = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=10, device="meta")
    with pytest.raises(ValueError, match="is of type tuple: give the name of one of them in `name`$"):
        replace_classifier(pair)
    replace_classifier(pair, name="head")
    assert isinstance(pair.head, NearestETFHead) and isinstance(pair.head_dist, nn.Linear)


def test_the_models_own_number_of_classes_follows():
    model = timm.create_model("resnet10t", num_classes=7, device="meta")
    assert replace_classifier(model).num_classes == 7
    assert replace_classifier(model, num_classes=10).num_classes == 10 == model.fc.out_features


def test_a_name_says_which_layer():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3), nn.LayerNorm(3))
    assert isinstance(replace_classifier(model, name="1")[1], NearestETFHead)
    with pytest.raises(ValueError, match="name must be that of a layer .* got 'head'"):
        replace_classifier(small(), name="head")
    with pytest.raises(ValueError, match="'1' is of type ReLU"):
        replace_classifier(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), name="1")
    with pytest.raises(ValueError, match="model must contain its classifier"):
        replace_classifier(nn.Linear(4, 3))
    with pytest.raises(TypeError, match="model must be an nn.Module, got list"):
        replace_classifier([])


def test_the_head_takes_sizes_bias_device_dtype_mode_and_options_of_the_layer():
    model = small().double().eval()
    assert replace_classifier(model, NearestETFHead, scale=2, num_classes=5) is model
    head = model[3]
    assert (head.in_features, head.out_features, head.scale, head.weight.dtype) == (8, 5, 2, torch.float64)
    assert not head.training and head.bias is not None
    model[3] = nn.Linear(8, 3, bias=False, device="meta")
    assert replace_classifier(model, FixedETFHead)[3].bias is None and model[3].weight.is_meta
    assert replace_classifier(small(), partial(LearnedHead, cosine=True))[3].bias is None
    assert find_classifier(model) == ("3", model[3])


@pytest.mark.parametrize("wrap", [lambda model: model, lambda model: torch.compile(model, backend="eager")])
def test_observing_hands_targets_to_the_heads_inside(wrap):
    model = replace_classifier(torchvision.models.resnet18(num_classes=3))
    reference = NearestETFHead(512, 3)
    features = []
    model.fc.register_forward_pre_hook(lambda _, args: features.append(args[0]))
    with observing(wrap(model), Y):
        logits = wrap(model)(X)
    assert torch.equal(logits, reference(features[0], Y)) and model.fc.averages.count.all()
    F.cross_entropy(logits, Y).backward()
    assert model.conv1.weight.grad.norm() > 0


def test_observing_needs_a_head_of_ours_and_leaves_others_alone():
    with pytest.raises(ValueError, match="model must hold a head of ncbook.heads"), observing(small(), Y):
        pass
    model = replace_classifier(small(), LearnedHead)
    with observing(model, Y):
        assert model(X).shape == (6, 3)


def test_bare_model_of_a_compiled_one():
    model = small()
    assert bare(torch.compile(model)) is model and bare(model) is model
