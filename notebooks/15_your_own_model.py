# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own model
#
# *What must change in a training loop of yours to have the nearest simplex ETF as its classifier, and to see collapse
# where it happens?* Two lines, and one call:
#
# ```diff
#   model = torchvision.models.resnet18(num_classes=10)
# + ncbook.replace_classifier(model, ncbook.NearestETFHead)
#   optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
#   for inputs, targets in loader:
# +     with ncbook.observing(model, targets):
#           loss = F.cross_entropy(model(inputs), targets)
#       optimizer.zero_grad()
#       loss.backward()
#       optimizer.step()
# + ncbook.measure_layers(model, loader, ["layer1", "layer2", "layer3", "layer4"])
# ```
#
# The model may be torchvision's, timm's or your own. The classifier then needs no training and no tuning of its own, and
# you know beforehand what shape the class means are drawn to. This chapter does it with a ResNet-18, and says where
# it helps, where it does not, and what to mind.
#
# *You will learn*
#
# - to put any head of this book on a model, to train with it, to save and to load it;
# - to watch collapse layer by layer, also in a model that was trained elsewhere, and on classes that it never saw;
# - what the heads do with imbalanced classes, and what happens where no simplex ETF exists;
# - to use mixed precision, `torch.compile`, several processes and thousands of classes.

# %% [markdown]
# ## Setup
#
# The digits of scikit-learn, 16 pixels wide, in three channels, shifted at random: real images, small enough for a
# ResNet-18 on a laptop.

# %% jupyter={"source_hidden": true}
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
import torchvision
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots
from torch import nn

import ncbook
from ncbook import plots
from ncbook.book import median_range, profile, table
from ncbook.heads import FixedETFHead, LearnedHead, NearestETFHead

PROFILE, EPOCHS, SMALL_EPOCHS, LENGTHS, MANY, SEEDS = profile(
    quick=dict(EPOCHS=1, SMALL_EPOCHS=8, LENGTHS=(8, 16), MANY=(200, 256), SEEDS=2),
    book=dict(EPOCHS=4, SMALL_EPOCHS=20, LENGTHS=(20, 60), MANY=(400, 512), SEEDS=3),
    paper=dict(EPOCHS=100, SMALL_EPOCHS=100, LENGTHS=(20, 60, 200), MANY=(1000, 2048), SEEDS=10),
)
LAYERS, KEYS = ["layer1", "layer2", "layer3", "layer4"], ["cdnv", "etf_distance"]
HEADS = {"linear": LearnedHead, "fixed": FixedETFHead, "nearest": NearestETFHead}
digits = ncbook.load_dataset("digits")


def enlarged(images):
    return F.interpolate(images, size=16, mode="bilinear").expand(-1, 3, -1, -1)


def batches(inputs, targets, size=256):
    return list(zip(inputs.split(size), targets.split(size)))


images, labels = enlarged(digits.train_inputs), digits.train_targets
train_loader, test_loader = batches(images, labels), batches(enlarged(digits.test_inputs), digits.test_targets)

# %% [markdown]
# ## 1. What changes in the loop?
#
# A nearest-ETF head has no parameters, but it must see the targets: from them it keeps the moving averages of the class
# means that its frame is fitted to. Your model calls its classifier as `self.fc(x)`, without targets, so `observing`
# hands them over for the length of a `with`. The loop below does what loops do, whatever the head; `replace_classifier` with a `LearnedHead` gives back the usual `nn.Linear`.

# %%
def fit(model, inputs, targets, epochs, lr, augment=lambda x: x, watch=lambda epoch: None):
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * (len(inputs) // 64))
    for epoch in range(1, epochs + 1):
        model.train()
        for batch in torch.randperm(len(inputs)).split(64)[:len(inputs) // 64]:
            with ncbook.observing(model, targets[batch]):
                loss = F.cross_entropy(model(augment(inputs[batch])), targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        watch(epoch)
    return model


# %% [markdown]
# The classifier is found as timm's `get_classifier` names it, or as the last layer with parameters; it may lie deep
# (`head.fc`, `classifier.6`). Where it is not one `nn.Linear` but a pair of them or a 1×1 convolution, an error says
# so and asks for a name: `replace_classifier(model, NearestETFHead, name="head.fc")`. `num_classes` sets another number
# of classes, for fine-tuning.
#
# ## 2. Where does the network collapse?
#
# `measure_layers` runs a loader through the model once and measures any layer that you name: the mean of a feature map
# over its positions, streamed into float64 moments, nothing kept. The classifier comes last, on its inputs, with all
# metrics. **Predict:** two ResNets, one with its own linear classifier, one with the nearest ETF. The CDNV
# (within-class variance against the squared distance of class means, see [Measuring
# collapse](03_measuring_collapse.ipynb)) is measured after each of the four blocks. Does it fall only at the end, where
# the loss acts, or everywhere? And does the head, which has no weights, reach back into the network?

# %%
def shifted(x):
    row, column = torch.randint(5, (2,)).tolist()
    return F.pad(x, (2, 2, 2, 2))[..., row:row + 16, column:column + 16]


def resnet(head, history):
    torch.manual_seed(0)
    model = ncbook.replace_classifier(torchvision.models.resnet18(num_classes=10), head)
    watch = lambda epoch: history.append((epoch, ncbook.measure_layers(model, train_loader, LAYERS, keys=KEYS)))
    watch(0)
    return fit(model, images, labels, EPOCHS, lr=0.02, augment=shifted, watch=watch)


histories = {"linear": [], "nearest": []}
models = {name: resnet(HEADS[name], history) for name, history in histories.items()}

# %% jupyter={"source_hidden": true}
def layer_figure(histories, key="cdnv"):
    fig = make_subplots(1, 2, shared_yaxes=True, subplot_titles=[f"{name} classifier" for name in histories],
                        horizontal_spacing=0.09)
    last = max(epoch for epoch, _ in next(iter(histories.values())))
    for col, history in enumerate(histories.values(), start=1):
        for epoch, rows in history:
            fig.add_scatter(
                x=[*LAYERS, "classifier"], y=[row[key] for row in rows.values()], name=f"{epoch}", mode="lines+markers",
                line_color=sample_colorscale("Viridis", 0.93 * (1 - epoch / last))[0], showlegend=col == 1,
                legendgroup=epoch, row=1, col=col)
    fig.update_yaxes(type="log", dtick="D2", tickformat="~g").update_yaxes(title="CDNV, training set", col=1)
    return plots.finish(fig, "Collapse deepens from layer to layer", "colour: epoch, 0 is before training",
                        width=720, height=380, legend_title_text="epoch")


layer_figure(histories)

# %% jupyter={"source_hidden": true}
ends = {name: history[-1][1] for name, history in histories.items()}
tested = {name: ncbook.measure_layers(model, test_loader)["fc"] for name, model in models.items()}
table(["classifier", *(f"CDNV {layer}" for layer in [*LAYERS, "classifier"]), "ETF distance", "test accuracy, %"],
      [[name, *(row["cdnv"] for row in rows.values()), rows["fc"]["etf_distance"], f"{100 * tested[name]['accuracy']:.1f}"]
       for name, rows in ends.items()])
start = [row["cdnv"] for row in histories["nearest"][0][1].values()]
assert max(start) < 2 * min(start)
if PROFILE != "quick":
    assert all(rows[a]["cdnv"] > rows[b]["cdnv"] for rows in ends.values() for a, b in zip(LAYERS, LAYERS[1:]))
    step = {name: rows["layer3"]["cdnv"] / rows["layer4"]["cdnv"] for name, rows in ends.items()}
    assert step["nearest"] > 1.5 > step["linear"]
    assert ends["nearest"]["fc"]["etf_distance"] < ends["linear"]["fc"]["etf_distance"] / 2

# %% [markdown]
# Before training the CDNV differs by less than a factor of two between the layers. After it, every block separates the
# classes further. Under the nearest ETF each block does so by about the same factor, a law that He and Su (2023) found
# in many trained networks; with the linear classifier the last block adds least. So the head reaches back into the
# network. After so few epochs, and with one seed, this is no contest of accuracies.
#
# **A model trained elsewhere** needs no head and no loop of ours. Here the linear model goes to disk and comes back as
# a stock ResNet-18, in which nothing is from this package; the heads save and load in the same way, averages and frame
# included.

# %%
file = Path(tempfile.mkdtemp()) / "model.pt"
torch.save(models["linear"].state_dict(), file)
stock = torchvision.models.resnet18(num_classes=10)
stock.load_state_dict(torch.load(file, weights_only=True))
row = ncbook.measure_layers(stock, test_loader)["fc"]
print({key: round(row[key], 3) for key in ("accuracy", "cdnv", "nc2_equiangular", "nc3", "etf_distance")})

# %% jupyter={"source_hidden": true}
assert row == tested["linear"]
torch.save(models["nearest"].state_dict(), file)
again = ncbook.replace_classifier(torchvision.models.resnet18(num_classes=10))
again.load_state_dict(torch.load(file, weights_only=True))
assert ncbook.measure_layers(again, test_loader)["fc"] == tested["nearest"]

# %% [markdown]
# In a loop that is not yours to pass over again, `CollapseMonitor` takes the batches as they come,
# `with monitor.batch(targets): model(inputs)`; `lightning_callback(["model.layer4"])` is that for Lightning's `Trainer`,
# and hands the targets to the head as well; `ncbook.torchmetric.CollapseMetric` is the same for a
# `MetricCollection`. (The last two need the extra `own`: `pip install -e '.[own]'`.)
#
# ## 3. Which accuracy may you log?
#
# **Predict:** features of pure noise, labels at random, ten classes. What accuracy do the logits of the first training
# step have?

# %%
torch.manual_seed(0)
head, known, blind = NearestETFHead(512, 10), [], []
for _ in range(100):
    features, targets = torch.randn(64, 512), torch.randint(10, (64,))
    with torch.no_grad():
        before = head(features)            # no targets: the frame of the steps before
    logits = head(features, targets)       # the frame now knows this batch
    known.append((logits.argmax(1) == targets).float().mean().item())
    blind.append((before.argmax(1) == targets).float().mean().item())

# %% jupyter={"source_hidden": true}
table(["step", "with the targets", "without"], [["1", known[0], blind[0]], ["2", known[1], blind[1]],
      ["91 to 100", sum(known[-10:]) / 10, sum(blind[-10:]) / 10]])
assert known[0] > 0.95 and sum(known[-10:]) / 10 > 0.15 > sum(blind) / 100

# %% [markdown]
# The frame has just been fitted to the class means of that very batch: such an accuracy knows the labels. The effect
# fades as the averages get longer, but log what does not have it: accuracy in evaluation mode, or logits that were
# taken before the head saw the targets. In a model, a hook has the features without a second pass:
#
# ```python
# seen = {}
# model.fc.register_forward_pre_hook(lambda layer, args: seen.update(features=args[0].detach()))
# ...
# frame = model.fc.weight.clone(), model.fc.bias.clone()               # before the step
# with ncbook.observing(model, targets):
#     loss = F.cross_entropy(model(inputs), targets)
# blind = F.linear(model.fc.embed(seen["features"]), *frame).argmax(1)   # for the log
# ```
#
# ## 4. What does it make of classes that it never saw?
#
# Ammar et al. (2023) propose a fifth property: as collapse proceeds, features of samples *out of distribution* become
# orthogonal to the class means. With $\mu_O$ the mean feature of those samples, and the class means not centred,
#
# $$ \mathrm{NC5} = \frac1C \sum_c \frac{|\langle \mu_c, \mu_O \rangle|}{\lVert\mu_c\rVert\,\lVert\mu_O\rVert} . $$
#
# A small network learns the digits 0 to 7; 8 and 9 are what it never saw. It is a model of one's own, an
# `nn.Sequential`, and what ends in a ReLU starts with a cosine near 1.

# %%
def network(head, num_classes=10, **options):
    layers = [nn.Flatten()]
    for width, out in ((64, 128), (128, 64)):
        layers += [nn.Linear(width, out), nn.BatchNorm1d(out), nn.ReLU()]
    return ncbook.replace_classifier(nn.Sequential(*layers, nn.Linear(64, num_classes)), head, **options)


seen, unseen = ncbook.load_dataset("digits", classes=8), ncbook.load_dataset("digits", classes=(8, 9)).train_inputs
loader, nc5 = [(seen.train_inputs, seen.train_targets)], {name: [] for name in HEADS}
for name, head in HEADS.items():
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        model = network(head, num_classes=8)
        before = ncbook.measure_layers(model, loader, ood=[unseen])["7"]["nc5"]
        fit(model, seen.train_inputs, seen.train_targets, SMALL_EPOCHS, lr=0.05)
        nc5[name].append((before, ncbook.measure_layers(model, loader, ood=[unseen])["7"]["nc5"]))

# %% jupyter={"source_hidden": true}
table(["classifier", "NC5 before", "NC5 after"],
      [[name, median_range(a for a, _ in pairs), median_range(b for _, b in pairs)] for name, pairs in nc5.items()])
assert all(after < 0.8 * before for pairs in nc5.values() for before, after in pairs)
if PROFILE != "quick":
    assert max(b for name in ("fixed", "nearest") for _, b in nc5[name]) < min(b for _, b in nc5["linear"])

# %% [markdown]
# The angle opens, more so under the two ETFs, which draw the features to a fixed norm. It stays far from a right angle:
# an 8 looks much like a 3, and the unseen classes of one data set are a hard case.
#
# ## 5. Does a fixed shape help rare classes?
#
# With few samples of some classes, the rows of a learned classifier turn towards each other, and at a large enough
# imbalance the rare ones merge: *minority collapse* (Fang et al. 2021). A prescribed frame cannot do that. **Predict:**
# digits 0 to 4 have all their images, 5 to 9 five each. Which classifier finds more of the rare digits in the test set,
# after a short and after a long training?

# %%
rare = digits.test_targets > 4
kept = torch.cat([(labels == c).nonzero().flatten()[:None if c < 5 else 5] for c in range(10)])


def imbalanced(head, epochs, seed):
    torch.manual_seed(seed)
    model = fit(network(head), digits.train_inputs[kept], labels[kept], epochs, lr=0.05).eval()
    with torch.no_grad():
        right = model(digits.test_inputs).argmax(1) == digits.test_targets
    rows = F.normalize(model[7].weight.detach()[5:], dim=1)
    return 100 * right[rare].float().mean().item(), ((rows @ rows.T).sum().item() - 5) / 20


outcomes = {(name, epochs): [imbalanced(head, epochs, seed) for seed in range(SEEDS)]
            for name, head in HEADS.items() for epochs in LENGTHS}

# %% jupyter={"source_hidden": true}
found = {key: [accuracy for accuracy, _ in runs] for key, runs in outcomes.items()}
table(["classifier", *(f"rare digits found after {epochs} epochs, %" for epochs in LENGTHS), "cosine of their rows"],
      [[name, *(median_range(found[name, epochs], ".0f") for epochs in LENGTHS),
        median_range((cosine for _, cosine in outcomes[name, LENGTHS[-1]]), ".2f")] for name in HEADS])
for name in ("fixed", "nearest"):
    assert all(abs(cosine + 1 / 9) < 1e-4 for _, cosine in outcomes[name, LENGTHS[-1]])
assert all(cosine > 0 for _, cosine in outcomes["linear", LENGTHS[-1]])
if PROFILE == "book":
    short, long = LENGTHS
    assert min(found["nearest", short] + found["fixed", short]) > max(found["linear", short])
    assert median(found["nearest", short]) > 1.5 * median(found["linear", short])
    assert max(found["nearest", long] + found["fixed", long]) < min(found["linear", long])

# %% [markdown]
# The frame is there from the first step, so a short training finds far more of the rare digits with it. But the
# linear classifier, given time, overtakes it, although its rare rows lie closer together than the $-1/9$ of the frame.
# A shape prescribed for the classifier prevents its collapse; it does not stand in for the images that are missing. (All
# of this at one learning rate and one norm of the features; ask the same of your data.)
#
# ## 6. Thousands of classes
#
# All metrics stay within arrays of $C \times C$, $C \times d$ and $d \times d$, whatever $N$. The head must find a
# polar factor of size $d \times (C - 1)$ in every step. `update_every=k` does so in each of the first $k$ steps, and in
# every $k$-th after those; averages and bias move in all of them. **Predict:** what does $k = 10$ cost in accuracy and
# in collapse?

# %%
def seconds(head, features, targets, repeats):
    for _ in range(12):
        head(features, targets)             # past the first k steps
    start = time.perf_counter()
    for _ in range(repeats):
        head(features, targets).sum().backward()
    return (time.perf_counter() - start) / repeats


every = (1, 2, 10)
features, targets = torch.randn(64, MANY[1], requires_grad=True), torch.randint(MANY[0], (64,))
linear = seconds(LearnedHead(MANY[1], MANY[0]), features, targets, 10)
cost = {k: seconds(NearestETFHead(MANY[1], MANY[0], update_every=k), features, targets, 10) / linear for k in every}
held = {k: [] for k in every}
for k in every:
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        model = fit(network(NearestETFHead, update_every=k), digits.train_inputs, labels, SMALL_EPOCHS, lr=0.05)
        held[k].append((ncbook.measure_layers(model, batches(digits.test_inputs, digits.test_targets))["7"]["accuracy"],
                        ncbook.measure_layers(model, batches(digits.train_inputs, labels))["7"]["cdnv"]))

# %% jupyter={"source_hidden": true}
table(["k", f"a step of the head, C = {MANY[0]}, d = {MANY[1]}; nn.Linear is 1", "test accuracy on digits, %",
       "CDNV, training set"],
      [[f"{k}", f"{cost[k]:.0f}", median_range((100 * a for a, _ in held[k]), ".1f"),
        median_range(c for _, c in held[k])] for k in every])
assert cost[10] < cost[1] / 2
if PROFILE == "book":
    accuracy = {k: sum(a for a, _ in held[k]) / SEEDS for k in every}
    assert max(accuracy.values()) - min(accuracy.values()) < 0.01

# %% [markdown]
# On ten classes a held frame changes neither accuracy nor CDNV beyond the spread of the seeds: the class means hardly
# turn in ten steps. What a step of the head costs falls with $k$ down to what the averages need.
#
# ## 7. What is out of scope
#
# A simplex ETF of $C$ classes needs $d \ge C - 1$ dimensions. A language model with a vocabulary of 50,000 and features
# of width 768 has no such frame, and the ETF heads say so instead of approximating one. What collapses there is
# described by a *softmax code*, which maximises the smallest margin of one class against the rest (Jiang et al. 2024).
# The metrics can be had for any $d$: NC1, CDNV, NC3 and NC4 mean what they always mean, while NC2 and the ETF distance
# stay away from 0.

# %%
try:
    ncbook.replace_classifier(nn.Sequential(nn.Linear(768, 50_000)), name="0")
except ValueError as error:
    print(error)

# %% [markdown]
# Out of scope are also targets that are not one class a sample. The loss may take soft ones, but the head averages
# features by class and wants integers: with mixup, give it the class with the larger share.
#
# ## 8. Precision, compilation, processes
#
# The head keeps its averages and its frame in float32 or better, whatever the model is cast to, and works under
# `torch.autocast` and `torch.compile`. With `torch.distributed` it sums the classes' features over the processes, so
# that all have the frame of the joint batch, and the metrics merge over processes too. Here is a training script with
# all three, on the parts of this chapter; it runs here with two processes.

# %%
script = '''
import torch, torch.distributed as dist, torch.nn as nn, torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel
import ncbook

dist.init_process_group("gloo")                     # "nccl" on GPUs, one process each
rank, world = dist.get_rank(), dist.get_world_size()
data = ncbook.load_dataset("digits")
batches = list(zip(data.train_inputs.split(48), data.train_targets.split(48)))[rank::world][:14]

torch.manual_seed(0)                                # any model of yours:
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
ncbook.replace_classifier(model, ncbook.NearestETFHead)
trained = torch.compile(DistributedDataParallel(model), backend="aot_eager")    # without `backend`: faster
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
for inputs, targets in batches:
    with ncbook.observing(trained, targets), torch.autocast("cpu", torch.bfloat16):
        loss = F.cross_entropy(trained(inputs), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

frames = [torch.empty_like(model[3].weight) for _ in range(world)]
dist.all_gather(frames, model[3].weight)
rows = ncbook.measure_layers(trained, batches, ["1"], keys=["cdnv", "accuracy"])
if rank == 0:
    print("the frames of the two processes differ by", float((frames[0] - frames[1]).abs().max()))
    for layer, row in rows.items():
        print("layer", layer, {key: round(value, 3) for key, value in row.items()})
dist.destroy_process_group()
'''
file = Path(tempfile.mkdtemp()) / "train.py"
file.write_text(script)
command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(file)]
result = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
print(result.stdout)

# %% jupyter={"source_hidden": true}
assert result.returncode == 0, result.stderr
assert "processes differ by 0.0" in result.stdout

# %% [markdown]
# Started by hand this is `torchrun --standalone --nproc-per-node 2 train.py`; on two nodes of eight GPUs each, on either
# of them,
#
# ```sh
# torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 train.py
# ```
#
# Three things to mind. Activation checkpointing wants the head outside the checkpointed part, or each backward directly
# after its forward. A weight average that averages buffers as well (timm's `ModelEmaV3`) leaves a frame that is no
# simplex ETF: `head.refit()` computes it again from the averages. And for a second pass over a batch, as in a line search
# or in sharpness-aware minimisation, `with head.holding():` keeps averages and frame as they are.
#
# ## Try it
#
# **1.** Put the head on a timm model of your choice (`pip install timm`) and watch its blocks. Which of them is the first
# to have a lower CDNV than the pixels?
#
# <details><summary>Solution</summary>
#
# ```python
# import timm
# model = timm.create_model("resnet10t", num_classes=10, in_chans=3)
# ncbook.replace_classifier(model, ncbook.NearestETFHead)
# fit(model, images, labels, EPOCHS, lr=0.02, augment=shifted)
# rows = ncbook.measure_layers(model, train_loader, ["layer1", "layer2", "layer3", "layer4"])
# pixels = ncbook.neural_collapse(images.flatten(1), labels)
# print(pixels["cdnv"], {name: row["cdnv"] for name, row in rows.items()})
# ```
#
# A transformer has tokens: the mean over them is measured, or with `pool=lambda x: x[:, 0] if x.ndim == 3 else x` the
# class token.
#
# </details>
#
# **2.** Replace the five images of each rare digit by two, then by twenty. Where does the frame help, after short and
# after long training?
#
# <details><summary>Solution</summary>
#
# Change `[:None if c < 5 else 5]` in section 5. With two images the linear classifier may find no rare digit at all in
# twenty epochs, and the frame a quarter of them; with twenty images there is little between the two, at either length.
#
# </details>
#
# **3.** Give `measure_layers` in section 2 the untrained ResNet in training mode, `model.train()`. Why do the numbers not
# change?
#
# <details><summary>Solution</summary>
#
# It measures in evaluation mode whatever the mode before, and gives every layer back the mode that it had: features of
# a batch norm in training mode would depend on the batch.
#
# </details>
#
# ## Summary
#
# - Two lines put a head on a model and train it; one call measures collapse at any layer, in any model.
# - The CDNV falls from block to block of a trained ResNet-18, from 1.06 to 0.17 with a linear
#   classifier, from 0.65 to 0.09 with the nearest ETF.
# - Training logits know their labels: accuracy 1 on noise in the first step, about 0.5 after a hundred. Log what was
#   computed without targets.
# - Features of unseen classes turn away from the class means, from a cosine of 0.95 to 0.46, under an ETF to 0.3.
# - A frame keeps the rows of rare classes apart and finds two thirds of the rare digits early; after a long training
#   the linear classifier finds three quarters, the frame no more than before.
# - `update_every=10` takes four fifths of the price of many classes away, at equal accuracy on ten classes.
#
# ## References
#
# - M. B. Ammar, N. Belkhir, S. Popescu, A. Manzanera, G. Franchi. *NECO: neural collapse based out-of-distribution
#   detection.* ICLR 2024. [arXiv 2310.06823](https://arxiv.org/abs/2310.06823)
# - C. Fang, H. He, Q. Long, W. J. Su. *Exploring deep neural networks via layer-peeled model: minority collapse in
#   imbalanced training.* PNAS 2021. [arXiv 2101.12699](https://arxiv.org/abs/2101.12699)
# - H. He, W. J. Su. *A law of data separation in deep learning.* PNAS 2023.
#   [arXiv 2210.17020](https://arxiv.org/abs/2210.17020)
# - J. Jiang, J. Zhou, P. Wang, Q. Qu, D. G. Mixon, C. You, Z. Zhu. *Generalized neural collapse for a large number of
#   classes.* ICML 2024. [arXiv 2310.05351](https://arxiv.org/abs/2310.05351)
# - E. Markou, T. Ajanthan, S. Gould. *Guiding neural collapse: optimising towards the nearest simplex equiangular tight
#   frame.* NeurIPS 2024. [arXiv 2411.01248](https://arxiv.org/abs/2411.01248)
#
# **Next:** [Where to read on](16_where_to_read_on.ipynb).
