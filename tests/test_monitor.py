"""Collapse at layers of a model, streamed; in a plain loop and in Lightning's."""

import pickle

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ncbook.adapters import observing, replace_classifier
from ncbook.heads import NearestETFHead
from ncbook.metrics import METRICS, neural_collapse
from ncbook.monitor import CollapseMonitor, lightning_callback, measure_layers, pooled

CLASSES = 4


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(80) % CLASSES
    noise, centres = (torch.randn(n, 3, 8, 8, generator=generator) for n in (80, CLASSES))
    return noise + centres[targets], targets


@pytest.fixture
def model():
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(216, 12), nn.ReLU(),
                         nn.Linear(12, CLASSES))


def loader(images, size=30):
    return list(zip(images[0].split(size), images[1].split(size), strict=True))


def test_layers_have_the_metrics_of_their_outputs_and_the_classifier_of_its_inputs(model, images):
    model.train()
    model[0].eval()
    rows = measure_layers(model, loader(images), ["0", "4"])
    assert model[3].training and not model[0].training
    assert list(rows) == ["0", "4", "6"]
    with torch.no_grad():
        outputs = [images[0]]
        for layer in model.eval():
            outputs.append(layer(outputs[-1]))
    expected = {"0": neural_collapse(outputs[1].mean((2, 3)), images[1]), "4": neural_collapse(outputs[5], images[1]),
                "6": neural_collapse(outputs[6], images[1], model[6].weight, model[6].bias)}
    for name, row in rows.items():
        assert row == pytest.approx({key: expected[name][key] for key in row}, rel=1e-5, abs=1e-9)
    assert set(rows["6"]) == set(METRICS) - {"nc5"}
    assert set(rows["0"]) == {key for key, metric in METRICS.items() if not metric.needs}
    assert model[0]._forward_hooks == model[6]._forward_pre_hooks == {}


def test_out_of_distribution_batches_give_nc5_at_every_layer(model, images):
    known = images[1] < 3
    x, y, out = images[0][known], images[1][known], images[0][~known]
    model[6] = nn.Linear(12, 3)
    rows = measure_layers(model, loader((x, y)), "4", ood=[out[:7], (out[7:], None)], keys=["nc5", "nc1", "accuracy"])
    assert list(rows["4"]) == ["nc1", "nc5"] and list(rows["6"]) == ["nc1", "accuracy", "nc5"]
    with torch.no_grad():
        inside, outside = (model.eval()[:5](part) for part in (x, out))
    means = torch.stack([inside[y == c].mean(0) for c in range(3)])
    cosines = F.cosine_similarity(means, outside.mean(0, keepdim=True))
    assert rows["4"]["nc5"] == pytest.approx(float(cosines.abs().mean()), rel=1e-5)


def test_heads_are_measured_on_what_they_see(model, images):
    replace_classifier(model)
    with observing(model, images[1]):
        model(images[0])
    row = measure_layers(model, loader(images))["6"]
    with torch.no_grad():
        features = model[6].embed(model.eval()[:6](images[0]))
    expected = neural_collapse(features, images[1], model[6].weight, model[6].bias)
    assert row == pytest.approx({key: expected[key] for key in row}, rel=1e-5, abs=1e-9)


def test_a_vision_transformer_of_timm_block_by_block(images):
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, num_classes=CLASSES, depth=2)
    x = F.interpolate(images[0], size=(32, 32))
    rows = measure_layers(model, loader((x, images[1])), ["blocks.0", "blocks.1"], keys=["cdnv", "nc3"],
                          pool=lambda out: out[:, 0] if out.ndim == 3 else out)
    assert list(rows) == ["blocks.0", "blocks.1", "head"] and list(rows["head"]) == ["cdnv", "nc3"]
    with torch.no_grad():
        tokens = model.eval().blocks[0](model.pos_drop(model._pos_embed(model.patch_embed(x))))
    assert rows["blocks.0"]["cdnv"] == pytest.approx(neural_collapse(tokens[:, 0], images[1])["cdnv"], rel=1e-4)


def test_token_classifiers_are_measured_token_by_token(images):
    model = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, CLASSES))
    tokens, labels = images[0][:, 0], images[1][:, None].expand(80, 8)
    rows = measure_layers(model, [(tokens, labels)], keys=["nc1"])
    with torch.no_grad():
        expected = neural_collapse(model[:2](tokens).flatten(0, 1), labels.flatten())
    assert rows["2"]["nc1"] == pytest.approx(expected["nc1"], rel=1e-6)


def test_the_state_does_not_grow_and_resets(model, images):
    monitor, sizes = CollapseMonitor(model, ["0"]), []
    for _ in range(3):
        with torch.inference_mode(), monitor.batch(images[1]):
            model(images[0])
        sizes.append(len(pickle.dumps(monitor.states)))
    assert sizes[0] == sizes[2]
    monitor.reset()
    with pytest.raises(ValueError, match="no samples so far"):
        monitor.compute()


def test_bad_arguments(model, images):
    with pytest.raises(ValueError, match=r"layers must be names in model.named_modules\(\), got \['conv9'\]"):
        CollapseMonitor(model, ["0", "conv9"])
    monitor = CollapseMonitor(model, ["0"])
    with pytest.raises(ValueError, match="'0' was not seen in it"), monitor.batch(images[1]):
        model[6](torch.zeros(3, 12))
    with pytest.raises(RuntimeError, match="mat1"), monitor.batch(images[1]):
        model(images[0][..., 1:])
    assert model[0]._forward_hooks == {} and monitor.states == {}
    with pytest.raises(ValueError, match=r"keys must be metrics, .* got \['nc9'\]"):
        monitor.compute(["nc9"])
    with monitor.batch(images[1]):
        model(images[0])
    with pytest.raises(ValueError, match=r"keys \['accuracy', 'nc5'\] cannot be had here: .* keep_features=True"):
        monitor.compute(iter(["nc1", "accuracy", "nc5"]))
    with pytest.raises(ValueError, match="'1' is of type ReLU: give the name of an nn.Linear in `classifier`"):
        CollapseMonitor(model, classifier="1")
    with pytest.raises(ValueError, match=r"pool must make \(N, d\) of the shape \(1, 2, 3, 4, 5\)"):
        pooled(torch.zeros(1, 2, 3, 4, 5))


def test_a_compiled_model_is_measured_by_the_one_inside(model, images):
    compiled = torch.compile(model, backend="eager")
    compiled(images[0])
    assert measure_layers(compiled, loader(images), ["0"]) == measure_layers(model, loader(images), ["0"])


def lightning_module(model):
    from lightning import pytorch as lightning

    class Classify(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = model

        def training_step(self, batch, index):
            return F.cross_entropy(self.model(batch[0]), batch[1])

        def validation_step(self, batch, index):
            self.model(batch[0])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01)

    return Classify()


@pytest.mark.filterwarnings("ignore")
def test_lightning_callback_hands_targets_over_and_logs_collapse(model, images, tmp_path):
    from lightning import pytorch as lightning

    replace_classifier(model, NearestETFHead)

    data = DataLoader(TensorDataset(*images), batch_size=16)
    trainer = lightning.Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False,
                                enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
                                callbacks=[lightning_callback(["model.0"], keys=["nc1", "nc3"])])
    module = lightning_module(model)
    trainer.fit(module, data, data)
    assert (model[6].averages.count == 10).all()
    logged = {key: float(value) for key, value in trainer.callback_metrics.items()}
    rows = measure_layers(module.model, loader(images), ["0"], keys=["nc1", "nc3"])
    assert logged == pytest.approx({"val_model.0/nc1": rows["0"]["nc1"], "val_model.6/nc1": rows["6"]["nc1"],
                                    "val_model.6/nc3": rows["6"]["nc3"]}, rel=1e-5)
    assert model[6]._targets is None and model[0]._forward_hooks == {}


@pytest.mark.filterwarnings("ignore")
def test_an_error_in_a_lightning_step_leaves_no_hooks_and_no_targets(model, images, tmp_path):
    from lightning import pytorch as lightning

    replace_classifier(model, NearestETFHead)

    class Fails(type(lightning_module(model))):
        def validation_step(self, batch, index):
            if not self.trainer.sanity_checking:
                raise KeyError("mine")

    data = DataLoader(TensorDataset(*images), batch_size=16)
    trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
                                num_sanity_val_steps=0, enable_progress_bar=False, enable_model_summary=False,
                                default_root_dir=tmp_path, callbacks=[lightning_callback()])
    with pytest.raises(KeyError, match="mine"):
        trainer.fit(Fails(), data, data)
    assert model[6]._targets is None and model[6]._forward_pre_hooks == {}
