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
# # Moving averages of the class means
#
# *The nearest simplex ETF needs the class means, and a training step sees only a batch: a few samples a class,
# sometimes none. How should batches be averaged?* A short memory follows the means, a long one is quiet, and no
# constant is right throughout training. The average that Markou, Ajanthan and Gould (2024) call exponential is in truth
# a straight **ramp**: it forgets the untrained network, grows quieter as training goes on, and has no constant to tune.
# Three sliders: how noisy batches are, how fast the means come to rest, and the weight $\alpha$ of an average that has
# a constant one.

# %% jupyter={"source_hidden": true}
from ncbook import plots

plots.tracking_explorer(noises=(0.1, 0.3, 0.6), settling=(10, 30, 100), alphas=(0.02, 0.05, 0.1, 0.2, 0.5, 1.0))

# %% [markdown]
# Left, one run: dots are batches, the black line is what they scatter around; after the settling time 63% of its way is
# done. Right, how far each average is off, over all runs. ($\alpha = 1$ is the batch alone.)
#
# Why care? The classifier is computed from this average. If it is restless, features have nothing to aim at; if it is
# late, they aim at where the network was; and what it does with a class that is not in the batch can undo a classifier
# in one step.
#
# *You will learn*
#
# - what cumulative and "exponential" averages remember, and the price of each in variance and in lag;
# - how well they track the class means of a network that is being trained, and how steady the nearest ETF is;
# - what to do with a class that is absent from a batch, and with one that has never been seen;
# - why the averages belong in the checkpoint.
#
# ## Setup

# %% jupyter={"source_hidden": true}
import copy
import io
from collections import defaultdict
from functools import partial
from statistics import mean, median_low

import torch

import ncbook
from ncbook.book import median_range, profile, say, show_code, table

# EPOCHS: of each run, SEEDS: where seeds are compared, BATCHES: batch sizes; paper takes five to ten minutes
PROFILE, EPOCHS, SEEDS, BATCHES = profile(
    quick=dict(EPOCHS=2, SEEDS=1, BATCHES=(16, 64, 256)),
    book=dict(EPOCHS=8, SEEDS=3, BATCHES=(16, 64, 256)),
    paper=dict(EPOCHS=100, SEEDS=5, BATCHES=(16, 64, 256)),
)
ALPHA, SEED = 0.1, 0
CONSTANT = f"constant α = {ALPHA}"
NAMES = ("batch alone", "cumulative", "ramp", CONSTANT)
DIGITS = ncbook.load_dataset("digits")


class ConstantAverage(ncbook.ClassMeanAverage):
    """a_t = (1 - alpha) a_{t-1} + alpha m_t, for the classes in the batch; alpha = 1 is the batch alone."""

    def __init__(self, num_classes, dim, alpha):
        super().__init__(num_classes, dim)
        self.alpha = alpha

    def forward(self, features, targets):
        batch = ncbook.ClassMeanAverage(*self.mean.shape)  # its first update is the batch's own class means
        batch_mean = batch(features, targets)
        alpha = torch.where(self.seen, self.alpha, 1.0) * batch.seen
        mean = torch.lerp(self.mean.clone(), batch_mean, alpha[:, None])
        self.mean.copy_(mean.detach())
        self.count += batch.seen
        return mean


AVERAGES = dict(zip(NAMES, (partial(ConstantAverage, alpha=1.0), partial(ncbook.ClassMeanAverage, method="cma"),
                            ncbook.ClassMeanAverage, partial(ConstantAverage, alpha=ALPHA))))


def averages(num_classes, dim):
    return {name: average(num_classes, dim) for name, average in AVERAGES.items()}


def trained(average, seed, data):
    """A trainer at the end of its run, with average(C, d) in the head."""
    trainer = ncbook.Trainer(recipe(seed=seed), data=data)
    trainer.head.averages = average(*trainer.head.weight.shape)
    while not trainer.finished:
        trainer.step()
    return trainer


def recipe(**changes):
    settings = dict(dataset="digits", backbone="mlp", head="nearest", epochs=EPOCHS, seed=SEED, device="cpu")
    return ncbook.Recipe(**settings | changes)


# %% [markdown]
# ## 1. What does an average remember?
#
# Let $m_t \in \mathbb{R}^d$ be the mean feature of one class in batch $t = 1, 2, \dots$ (only batches that hold the
# class count). Both published averages are of the form
#
# $$ a_t = (1 - \alpha_t)\, a_{t-1} + \alpha_t\, m_t, \qquad
#    \alpha_t = \begin{cases} 1/t & \text{cumulative (cma)} \\
#    \max\!\big(\tfrac{2}{t+1},\ 10^{-4}\big) & \text{``exponential'' (ema)} \end{cases} $$
#
# with $\alpha_1 = 1$, so that the first batch sets the average. Unrolled, batch $s$ enters $a_t$ with the weight
# $\omega_s = \alpha_s \prod_{j=s+1}^{t} (1 - \alpha_j)$. For the cumulative average this is $1/t$ for all $s$. For
# $\alpha_t = 2/(t+1)$ the product telescopes, since $1 - \alpha_j = \frac{j-1}{j+1}$:
#
# $$ \omega_s = \frac{2}{s+1} \cdot \frac{s\,(s+1)}{t\,(t+1)} = \frac{2 s}{t\,(t+1)} . $$
#
# A straight ramp. It becomes exponential only when $\alpha_t$ reaches its floor, at update 19,999: with batches of 64,
# the digits take about 900 epochs to get there. The weights can be read off the module itself: if the feature of batch
# $s$ is the unit vector $e_s$, the average *is* the vector of weights.

# %%
T = 100
weights = averages(2, T)
for unit in torch.eye(T):
    for average in weights.values():
        average(unit[None], torch.tensor([0]))
weights = {name: average.mean[0] for name, average in weights.items()}

# %% jupyter={"source_hidden": true}
steps = torch.arange(1, T + 1)
plots.curve_panels({"": {name: (steps, weights[name]) for name in NAMES[1:]}}, x="batch", styles=plots.AVERAGE_STYLES,
                   title=f"What an average remembers after {T} batches",
                   subtitle="weight of each batch; every curve sums to 1")

# %% [markdown]
# The cumulative average gives the first batch, of an untrained network, as much weight as the last. The ramp lets it
# fade: the newer half of the batches has three quarters of the weight. Both remember ever longer as time goes on; the
# constant one always forgets at the same rate. In the package each class has a count $t$ of its own (the published code
# has one for all), and the gradient runs through this batch alone:

# %%
show_code(ncbook.ClassMeanAverage.forward)

# %% [markdown]
# ## 2. Variance against lag
#
# Let batch means scatter around the true mean, independently, with variance $\sigma^2$ per coordinate: the average has
# variance $\sigma^2 \sum_s \omega_s^2$. Let the true mean move at constant speed $v$: the average shows where it was
# $\sum_s \omega_s\,(t-s)$ batches ago, its **lag**, and is off by $v$ times that. Summing up the weights:
#
# | average | $\sum_s \omega_s^2$ | lag in batches |
# |---|---:|---:|
# | cumulative | $\frac1t$ | $\frac{t-1}{2}$ |
# | ramp, $\alpha_t = \frac{2}{t+1}$ | $\frac{2(2t+1)}{3t(t+1)} \approx \frac{4}{3t}$ | $\frac{t-1}{3}$ |
# | constant $\alpha$, for $t \to \infty$ | $\frac{\alpha}{2-\alpha}$ | $\frac{1-\alpha}{\alpha}$ |

# %% jupyter={"source_hidden": true}
formulas = {"cumulative": (1 / T, (T - 1) / 2), "ramp": (2 * (2 * T + 1) / (3 * T * (T + 1)), (T - 1) / 3),
            CONSTANT: (ALPHA / (2 - ALPHA), (1 - ALPHA) / ALPHA)}
measured = {name: (float(w.double().square().sum()), float((w.double() * (T - steps)).sum()))
            for name, w in weights.items()}
table([f"after {T} batches", "$\\sum \\omega^2$ of the module", "formula", "lag of the module", "formula"],
      [[name, f"{measured[name][0]:.4f}", f"{variance:.4f}", f"{measured[name][1]:.2f}", f"{lag:.2f}"]
       for name, (variance, lag) in formulas.items()])

# %% [markdown]
# Against the cumulative average, the ramp pays a third more variance for a third less lag. Which is the better deal
# depends on how the target moves. In the first picture class means move fast and then settle. *With the middle
# settings, which average is ahead at batch 40, and which at the end?* On the moving target a constant weight wins, and
# pays for it later with a floor of noise; the ramp ends below both, without a number to tune, as long as the target
# does settle. Make it settle slowly, and it does not.
#
# ## 3. On a real run
#
# Now the digits. We train with the nearest-ETF head and show every batch to all four averages; only the head's own, the
# ramp, steers the classifier, so all see the same run. What they should track is the class means of the *whole*
# training set under the network of that moment (with the batch norm's statistics over the whole set). *At which batch
# size is it better not to average at all?*

# %% jupyter={"source_hidden": true}
def centred(x):
    return x - x.mean(0)


def true_class_means(trainer):
    backbone = copy.deepcopy(trainer.backbone).train()  # a copy: batch norm must not take note of this
    with torch.no_grad():
        features = trainer.head.embed(backbone(trainer.data.train_inputs))
    return torch.stack([features[trainer.data.train_targets == c].mean(0) for c in range(trainer.data.num_classes)])


def off_by(average, truth):
    return float((centred(average) - centred(truth)).norm() / centred(truth).norm())


# %%
def watch(trainer):
    """Train to the end; yields, after each step, four averages that saw the head's batches."""
    seen, shadows = {}, averages(*trainer.head.weight.shape)

    def note(head, given):
        seen["batch"] = head.embed(given[0]).detach(), given[1]

    trainer.head.register_forward_pre_hook(note)
    while not trainer.finished:
        trainer.step()
        for average in shadows.values():
            average(*seen["batch"])
        yield shadows


errors, epochs_at = {size: defaultdict(list) for size in BATCHES}, defaultdict(list)
for size in BATCHES:
    trainer = ncbook.Trainer(recipe(batch_size=size), data=DIGITS)
    for shadows in watch(trainer):
        if trainer.steps % max(1, trainer.steps_per_epoch * EPOCHS // 60) == 0 or trainer.steps <= 5:
            epochs_at[size].append(trainer.steps / trainer.steps_per_epoch)
            for name, average in shadows.items():
                errors[size][name].append(off_by(average.mean, true_class_means(trainer)))

# %% jupyter={"source_hidden": true}
fig = plots.curve_panels({f"batch size {size}": {name: (epochs_at[size], errors[size][name]) for name in NAMES}
                          for size in BATCHES}, x="epoch", styles=plots.AVERAGE_STYLES,
                         title="How far the averages are from the true class means",
                         subtitle="Frobenius distance of centred means, relative to the norm of the true ones")
fig.update_yaxes(type="log", tickvals=[0.02, 0.05, 0.1, 0.2, 0.5, 1, 2], matches="y")

# %% jupyter={"source_hidden": true}
late = {size: {name: mean(values[-len(values) // 4:]) for name, values in errors[size].items()} for size in BATCHES}
table(["mean over the last quarter, batch size", *NAMES], [[size, *late[size].values()] for size in BATCHES], text=0)

# %% [markdown]
# - With one or two samples a class (16), every average is soon better than the batch alone.
# - The ramp is closer than the cumulative average at each size: it forgets the untrained network sooner.
# - With the largest batches lag costs more than noise. An epoch has few of them and averages count in batches, so in a
#   run this short *the batch alone is closer than the published ramp*.
# - The constant weight is closer than the ramp, too: the means never come to rest here, which by section 2 is its case.
#   It is a number to tune, though, and good values depend on the batch size and on the length of the run.
#
# ## 4. What the classifier makes of it
#
# The classifier sees an average only through its nearest ETF. Take the angle between two ETFs $W$ and $W'$, matrices of
# norm $\sqrt C$, as $\arccos\big(\langle W, W'\rangle/C\big)$. *From step to step: is the classifier steady? And to the
# ETF of the true means: is it right?*

# %% jupyter={"source_hidden": true}
def angle(w, other):
    # The arc from the chord: the arccosine of a cosine near 1 would lose all digits of a small angle.
    chord = (w.double() - other.double()).square().sum().sqrt() / len(w) ** 0.5
    return float(torch.rad2deg(2 * torch.asin((chord / 2).clamp(max=1))))


settled = ncbook.Trainer(recipe(batch_size=64), data=DIGITS)
frames, turn, off = {}, defaultdict(list), defaultdict(list)
for shadows in watch(settled):
    target_etf = ncbook.nearest_simplex_etf(true_class_means(settled))
    for name, average in shadows.items():
        frame = ncbook.nearest_simplex_etf(average.mean, previous=frames.get(name))
        if name in frames:
            turn[name].append(angle(frame, frames[name]))
        off[name].append(angle(frame, target_etf))
        frames[name] = frame
halves = {name: [median_low(values[name][len(values[name]) // 2:]) for values in (turn, off)] for name in NAMES}
results = defaultdict(list)
for name, average in AVERAGES.items():
    for seed in range(SEEDS):
        shot = trained(average, seed, DIGITS).snapshot()
        results[name].append((100 * shot.test["accuracy"], shot.train["nc1"], shot.train["nc3"]))
table(["batch size 64", "turn in a step, degrees", "off by, degrees", "trained so: test accuracy, %", "NC1", "NC3"],
      [[name, *halves[name], *map(median_range, zip(*results[name]), (".1f", ".3f", ".4f"))] for name in NAMES])
say(f"*First two columns: medians over the second half of one run. Others: {SEEDS} seed(s), {EPOCHS} epochs, median"
    " (range).*")

# %% [markdown]
# The batch alone makes a restless classifier, which turns by degrees at each step however well it tracks on average.
# The averages with a long memory are steady. Does it matter for the network? For accuracy hardly, on a task as easy as
# the digits: look at the ranges. For NC3, the agreement of class means and classifier, having an average helps most;
# which one matters less.
#
# ## 5. A class that is not in the batch
#
# *How often is a class absent?* With $C$ classes of equal size and batches of $B$ samples, one is absent with
# probability about $(1 - 1/C)^B$:

# %% jupyter={"source_hidden": true}
table(["classes", "batch size", "classes absent from a batch, expected"],
      [[c, b, c * (1 - 1 / c) ** b] for c, b in ((10, 16), (10, 64), (10, 256), (100, 256), (1000, 256))], text=0)

# %% [markdown]
# Rare, then, or the rule: one batch in 85 with ten classes and batches of 64, and most classes with a thousand. An
# average needs an answer, and there are three.
#
# - *Keep*: the class keeps its average and its count. `ClassMeanAverage` does this.
# - *Fill*: put the mean of the batch in the place of what is missing, and update as usual. No mask, one count.
# - *Fill, with a memory*: the published code keeps the average of an absent class if it has noted that the class has
#   been seen. But it takes notes only in batches in which *some* class is missing. A class that was in every batch so
#   far, all of them complete, has no note: when it is absent for once, its average is overwritten.
#
# (So we read file `nc/models/ddn_modules.py` of the [authors'
# repository](https://github.com/evanmarkou/Guiding-Neural-Collapse). There class means are stored relative to the batch
# mean and filled with the batch mean itself; here they are filled with the centre, which is kinder. In fairness: their
# nearest-ETF script draws *stratified* batches, in which every class has its share, so with ten classes and 256 images
# the case does not arise there.)

# %%
class Filled(ncbook.ClassMeanAverage):
    def __init__(self, num_classes, dim, memory=False):
        super().__init__(num_classes, dim)
        self.memory, self.noted = memory, torch.zeros(num_classes, 1, dtype=torch.bool)

    def forward(self, features, targets):
        batch = ncbook.ClassMeanAverage(*self.mean.shape)
        new, present, old, filler = batch(features, targets), batch.seen[:, None], self.mean.clone(), features.mean(0)
        if self.memory and not present.all():
            self.noted |= present
            old = filler = torch.where(self.noted, old, filler)
        mean = torch.lerp(old, torch.where(present, new, filler), max(2 / (int(self.count[0]) + 2), 1e-4))
        self.mean.copy_(mean.detach())
        self.count += 1
        return mean


RULES = {"keep": ncbook.ClassMeanAverage, "fill": Filled, "fill, with memory": partial(Filled, memory=True)}

# %% [markdown]
# First on frozen features, those of the network just trained, so that nothing moves but the averages. All batches have
# six samples of each class, except for number 100, from which class 9 is missing. *What does a single absence do?*

# %%
with torch.no_grad():
    features, targets = settled.head.embed(settled.backbone.eval()(DIGITS.train_inputs)), DIGITS.train_targets
true_means = torch.stack([features[targets == c].mean(0) for c in range(10)])
members = [torch.nonzero(targets == c)[:, 0] for c in range(10)]
rules, frames = {name: rule(*true_means.shape) for name, rule in RULES.items()}, {}
distance, vertex, generator = defaultdict(list), defaultdict(list), torch.Generator().manual_seed(SEED)
for step in range(1, 301):
    present = members[:9] if step == 100 else members
    batch = torch.cat([m[torch.randint(len(m), (6,), generator=generator)] for m in present])
    for name, average in rules.items():
        average(features[batch], targets[batch])
        frames[name] = ncbook.nearest_simplex_etf(average.mean, previous=frames.get(name))
        distance[name].append(float((average.mean[9] - true_means[9]).norm() / centred(true_means)[9].norm()))
        vertex[name].append(angle(frames[name][9:], ncbook.nearest_simplex_etf(true_means)[9:]))

# %% jupyter={"source_hidden": true}
batches = torch.arange(1, 301)
panels = {"average: relative distance to its mean": distance, "vertex: degrees from its place": vertex}
plots.curve_panels({part: {rule: (batches, y) for rule, y in lines.items()} for part, lines in panels.items()},
                   title="Class 9, absent from batch 100 alone", x="batch", styles={
                       "fill": (plots.TONES[3], "dash"), "fill, with memory": (plots.TONES[5], "dashdot")})

# %% jupyter={"source_hidden": true}
def batches_until(values, limit):
    return next((k for k in range(99, 300) if values[k] < limit), 299) - 99


table(["rule", "distance at batch 99", "at batch 100", "vertex at batch 100, degrees", "batches until distance 0.2"],
      [[name, *distance[name][98:100], vertex[name][99], batches_until(distance[name], 0.2)] for name in RULES])

# %% [markdown]
# With *keep* nothing happens. *Fill* mixes in a small share of the centre. *With a memory* the average of class 9 is
# gone in one step and its vertex turns away; the average returns only as fast as averages forget, the vertex sooner,
# because a small share of the right mean points the right way.
#
# With classes of equal size such an accident is rare. *And for a class that is absent often, because it is rare?* Most
# samples of class 9 are taken out of the training set, and a network is trained with each rule.

# %% jupyter={"source_hidden": true}
RARE, is_nine = 14, targets == 9
rare = DIGITS.subset(torch.cat([torch.nonzero(~is_nine)[:, 0], torch.nonzero(is_nine)[:RARE, 0]]))
outcome = defaultdict(list)
for name, rule in RULES.items():
    for seed in range(SEEDS):
        trainer = trained(rule, seed, rare)
        shot, truth = trainer.snapshot(), true_class_means(trainer)
        nine = (centred(trainer.head.averages.mean) - centred(truth))[9].norm() / centred(truth)[9].norm()
        outcome[name].append((100 * shot.test["accuracy"], float(nine), shot.train["nc3"]))
table(["rule", "test accuracy, all classes, %", "average of class 9: distance to its mean", "NC3"],
      [[name, *map(median_range, zip(*values), (".1f", ".2f", ".3f"))] for name, values in outcome.items()])
say(f"*{RARE} training samples of class 9, which is absent from {(1 - RARE / len(rare.train_targets)) ** 64:.0%} of the"
    f" batches; {EPOCHS} epochs, {SEEDS} seed(s), median (range).*")

# %% [markdown]
# *Fill* leaves the average of the rare class short of its mean: each absence pulls it towards the centre. The nearest
# ETF looks at directions more than at lengths and forgives most of that. *With a memory* the rare class meets its worst
# case. It is the only one that is ever absent, so incomplete batches are exactly those without it, and it is never
# noted: each absence erases its average. The point of *keep* is that nothing of this can happen.
#
# ## 6. A class that has never been seen
#
# Before its first sample a class has no average to keep; its row of `mean` is zero, which is *not* neutral. Features of
# an untrained network share a large common part, and zero is far from all of them: taken for a class mean, it says that
# the unseen classes lie opposite to everything. `NearestETFHead` puts such a class at the centre of the others, where
# its column of $H$ is zero and takes no part in the fit. An untrained network is shown a batch of the digits 0 to 6:

# %% jupyter={"source_hidden": true}
untrained = ncbook.Trainer(recipe(), data=DIGITS)
head, backbone = untrained.head.train(), untrained.backbone.train()
order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(SEED))
early, later = order[targets[order] < 7][:256], order[targets[order] >= 7][:64]
with torch.no_grad():
    head(backbone(DIGITS.train_inputs[early]), targets[early])
    embedded = head.embed(backbone(DIGITS.train_inputs))
unseen, means = ~head.averages.seen, head.averages.mean.clone()
centre = means[~unseen].mean(0)


def judge(weight, middle):
    """Cosine of the unseen classes' vertices with minus the centre, and the loss on samples of the unseen classes."""
    logits, theirs = (embedded - middle) @ weight.T, unseen[targets]
    opposite = torch.cosine_similarity(weight[unseen].mean(0), -centre, dim=0)
    return float(opposite), float(torch.nn.functional.cross_entropy(logits[theirs], targets[theirs]))


at_centre = judge(head.weight.clone(), centre)
at_zero = judge(ncbook.nearest_simplex_etf(means, previous=ncbook.simplex_etf(*means.shape)), means.mean(0))
table(["unseen classes", "cosine of their vertices with minus the centre", "loss on their samples"],
      [["at the centre", *at_centre], ["zero rows", *at_zero]])
with torch.no_grad():
    head(backbone(DIGITS.train_inputs[later]), targets[later])
say(f"Updates of each class after a batch of the digits 7 to 9: {head.averages.count.tolist()}.")

# %% [markdown]
# With zero rows the ETF spends a direction on what says nothing, and the loss would push samples of the unseen classes
# *away* from their vertices. At the centre, the fit takes no side. The unseen classes own their vertices already, since
# all rows of $W$ are a simplex ETF; when the first sample arrives, $\alpha_1 = 1$ makes it the average, whatever the
# counts of the others are.
#
# ## 7. Checkpoints
#
# The averages are not parameters, and an optimiser knows nothing of them. Without them, a run that goes on from a
# checkpoint begins again at $t = 1$ and takes the first batch for the truth. In the package they are buffers, and in
# every `state_dict`. *By how much does the classifier turn in the first step after a checkpoint?*

# %%
half = ncbook.Trainer(recipe(), data=DIGITS)
while half.epoch < EPOCHS // 2:
    half.step()
file = io.BytesIO()
torch.save(half.state_dict(), file)


def turn_after(trainer):
    before = trainer.head.weight.clone()
    trainer.step()
    return angle(before, trainer.head.weight)


def resumed():
    file.seek(0)
    trainer = ncbook.Trainer(recipe(), data=DIGITS)
    trainer.load_state_dict(torch.load(file, weights_only=True))
    return trainer


whole, forgetful = resumed(), resumed()
forgetful.head.averages = ncbook.ClassMeanAverage(*half.head.weight.shape)
turned = {"uninterrupted": turn_after(half), "resumed": turn_after(whole),
          "resumed without averages": turn_after(forgetful)}

# %% jupyter={"source_hidden": true}
table(["first step after the checkpoint", "classifier turns by, degrees"],
      [[name, f"{x:.2f}"] for name, x in turned.items()])
for trainer in (half, whole):
    while not trainer.finished:
        trainer.step()
same = all(torch.equal(a, b) for a, b in zip(half.head.state_dict().values(), whole.head.state_dict().values()))
say(f"At the end of training the heads of the first two are {'equal' if same else 'not equal'}, bit for bit.")

# %% jupyter={"source_hidden": true}
# Checks of what the text says; what belongs to short runs is checked in those alone.
assert next(t for t in range(1, 10**6) if 2 / (t + 1) <= 1e-4) == 19_999
assert 850 < 19_999 / settled.steps_per_epoch < 960 and abs(weights["ramp"][T // 2:].sum() - 0.75) < 1 / T
assert torch.allclose(weights["ramp"], 2 * steps / (T * (T + 1)), atol=1e-6)
assert torch.allclose(weights["cumulative"], torch.full((T,), 1 / T), atol=1e-6)
for name, (variance, lag) in formulas.items():
    assert abs(measured[name][0] - variance) < 1e-3 * variance and abs(measured[name][1] - lag) < 1e-2 * lag
plain, ramp, constant = (plots.tracking_error(0.3, 30, alpha) for alpha in ("cma", "ema", ALPHA))
assert constant[39] < min(plain[39], ramp[39]) and ramp[-1] < min(plain[-1], constant[-1])
assert plots.tracking_error(0.3, 100, ALPHA)[-1] < plots.tracking_error(0.3, 100, "ema")[-1]
small, large = BATCHES[0], BATCHES[-1]
assert all(late[size]["ramp"] < late[size]["cumulative"] for size in BATCHES)
assert max(late[small][name] for name in NAMES[1:]) < late[small]["batch alone"]
if PROFILE == "book":
    assert late[large]["batch alone"] < min(late[large]["ramp"], late[large]["cumulative"])
    assert all(late[size][CONSTANT] < late[size]["ramp"] for size in BATCHES)
    nines = {name: [value for _, value, _ in values] for name, values in outcome.items()}
    assert max(nines["keep"]) < min(nines["fill"]) < max(nines["fill, with memory"])
turns = [halves[name][0] for name in ("cumulative", "ramp", CONSTANT, "batch alone")]
assert turns == sorted(turns) and halves["ramp"][1] < halves["batch alone"][1]
assert all(accuracy > 90 for values in results.values() for accuracy, _, _ in values)
assert 1 / 86 < 10 * 0.9**64 < 1 / 84
assert distance["keep"][99] == distance["keep"][98] and distance["fill, with memory"][99] > 0.9
assert batches_until(vertex["fill, with memory"], 5) < batches_until(distance["fill, with memory"], 0.2) < 200
cosines = (head.weight @ head.weight.T)[~torch.eye(10, dtype=torch.bool)]
assert (cosines + 1 / 9).abs().max() < 1e-5 and head.averages.count.tolist() == [1] * 10
assert at_zero[0] > 0.9 and abs(at_centre[0]) < 0.5 and at_centre[1] < at_zero[1]
assert same and turned["resumed"] == turned["uninterrupted"]
assert turned["resumed without averages"] > 2 * turned["resumed"]

# %% [markdown]
# ## Try it
#
# **1. A constant that is as quiet as the ramp.** Choose $\alpha$ so that its variance in the long run is the ramp's at
# batch 1,000. Which of the two lags less?
#
# <details><summary>Solution</summary>
#
# Setting $\frac{\alpha}{2-\alpha} = \frac{2(2t+1)}{3t(t+1)} =: q$ gives $\alpha = \frac{2q}{1+q} \approx \frac{8}{3t}$
# with lag $\approx \frac{3t}{8}$; the ramp's is about $\frac t3$: less, for the same variance.
#
# ```python
# t = 1000
# q = 2 * (2 * t + 1) / (3 * t * (t + 1))
# alpha = 2 * q / (1 + q)
# print(alpha, "lag", (1 - alpha) / alpha, "ramp", (t - 1) / 3)
# ```
# </details>
#
# **2. The best weights.** Of all weights on the last 100 batches that sum to 1, which have the least variance for a lag
# of 33? Guess their shape before you solve for them.
#
# <details><summary>Solution</summary>
#
# Minimise $\sum \omega_s^2$ subject to $\sum \omega_s = 1$ and $\sum \omega_s (t - s) = \ell$. The Lagrange conditions
# say that $\omega_s$ is linear in $s$: a ramp, and almost exactly the published one.
#
# ```python
# age = (T - torch.arange(1.0, T + 1)).double()
# constraints = torch.stack([torch.ones_like(age), age])
# best = constraints.T @ torch.linalg.solve(constraints @ constraints.T, torch.tensor([1.0, 33.0]).double())
# print((best - weights["ramp"]).abs().max())
# ```
# </details>
#
# **3. A restart.** A target stands at 1 and jumps to $-1$ at batch 300, as after a change of data. How many batches
# does each average need to get half the way?
#
# <details><summary>Solution</summary>
#
# A memory that grows pays for it: the cumulative average needs about as many batches as it has seen, the ramp about
# $0.41 \cdot 300$, the constant one $\ln 2/\alpha$. After such a change a fresh average may be better than a
# checkpoint's.
#
# ```python
# jump, half_way = averages(2, 1), {}
# for t in range(1, 1001):
#     for name, average in jump.items():
#         value = average(torch.tensor([[1.0 if t <= 300 else -1.0]]), torch.tensor([0]))[0, 0]
#         if t > 300 and value <= 0:
#             half_way.setdefault(name, t - 300)
# print(half_way)
# ```
# </details>
#
# ## Summary
#
# - The published "exponential" average, $\alpha_t = 2/(t+1)$, is a linear ramp for its first 19,999 updates: a third
#   more variance than the cumulative one, a third less lag.
# - On the digits the ramp tracks the true class means better than the cumulative average at each of three batch sizes.
#   At batch size 16 all averages beat the batch alone; at 256, in eight epochs, none of the published ones does.
# - An average makes the classifier steady, where the batch alone turns it by degrees at each step.
# - An absent class keeps its average. Filling pulls rare classes to the centre, and a fill that forgets can erase an
#   average in one step. A class never seen takes no part in the fit.
# - Averages are state: with them a resumed run equals an uninterrupted one, bit for bit.
#
# ## References
#
# - S. Ioffe, C. Szegedy. *Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate
#   Shift.* ICML 2015. [arXiv 1502.03167](https://arxiv.org/abs/1502.03167) (moving averages of batch statistics, for
#   evaluation)
# - E. Markou, T. Ajanthan, S. Gould. *Guiding Neural Collapse: Optimising Towards the Nearest Simplex Equiangular Tight
#   Frame.* NeurIPS 2024. [arXiv 2411.01248](https://arxiv.org/abs/2411.01248)
#
# **Next:** [Guided training](08_guided_training.ipynb).
