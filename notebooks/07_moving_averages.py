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
# The nearest simplex ETF of chapter 05 needs the class means, and a training step sees only a batch: a few samples a
# class, sometimes none. This chapter is about the average that stands between the batch and the classifier. It has
# two jobs that pull in opposite directions, to be *quiet* and to be *up to date*, and we measure both, on a toy and
# on a real run. Then we look at what happens to classes that are not in the batch, where a careless rule does lasting
# damage.
#
# *You will learn*
#
# - what cumulative and exponential averages weigh how much, and why the published "exponential" one is a straight ramp;
# - the price of each in variance and in lag, on paper and in a simulation;
# - how well they track the class means of a network that is being trained, and how steady the nearest ETF is;
# - what to do with a class that is absent from a batch, and with one that has never been seen;
# - why the averages belong in the checkpoint.

# %%
import copy
import io
from collections import defaultdict
from statistics import mean, median_low

import torch
from plotly.subplots import make_subplots

import ncbook
from ncbook import plots
from ncbook.book import median_range, profile, say, show_code, table

# EPOCHS: of each run, SEEDS: where seeds are compared, BATCHES: batch sizes, REPEATS: of the simulation
PROFILE, EPOCHS, SEEDS, BATCHES, REPEATS = profile(
    quick=dict(EPOCHS=2, SEEDS=1, BATCHES=(16, 64, 256), REPEATS=500),
    book=dict(EPOCHS=8, SEEDS=3, BATCHES=(16, 64, 256), REPEATS=2000),
    paper=dict(EPOCHS=100, SEEDS=5, BATCHES=(16, 64, 256), REPEATS=10000),
)
ALPHA = 0.1  # of the average with a constant weight, which is here for comparison
SEED = 0
NAMES = ("batch alone", "cumulative", "ramp (ema)", f"constant α = {ALPHA}")
STYLES = dict(zip((*NAMES, "keep", "fill", "fill, with memory"),  # colour, dash
                  (("#8A5A2B", "dot"), ("#E69F00", "dash"), ("#0072B2", "solid"), ("#009E73", "dashdot"),
                   ("#0072B2", "solid"), ("#E69F00", "dash"), ("#D55E00", "dashdot"))))


def panels(title, curves, **axis):
    """Panels side by side, from the title of each to its x and to the y of each name."""
    fig = make_subplots(1, len(curves), subplot_titles=list(curves), horizontal_spacing=0.08)
    for column, (x, lines) in enumerate(curves.values(), start=1):
        for name, y in lines.items():
            points = torch.tensor([*zip(x, y)])[::max(1, len(x) // 200)]
            fig.add_scatter(**plots.xyz(points), name=name, legendgroup=name, mode="lines", showlegend=column == 1,
                            line=dict(zip(("color", "dash"), STYLES[name])), row=1, col=column)
    plots.finish(fig, title, width=860, height=420, margin_b=90, legend=dict(orientation="h", x=0, y=-0.2))
    return fig.update_xaxes(title="batch").update_yaxes(**axis)


# %% [markdown]
# ## 1. Two averages
#
# Let $m_t \in \mathbb{R}^d$ be the mean feature of one class in batch $t = 1, 2, \dots$ (only batches that hold the
# class count). Both averages of Markou, Ajanthan and Gould (2024) are of the form
#
# $$ a_t = (1 - \alpha_t)\, a_{t-1} + \alpha_t\, m_t, \qquad
#    \alpha_t = \begin{cases} 1/t & \text{cumulative (cma)} \\
#    \max\!\big(\tfrac{2}{t+1},\ 10^{-4}\big) & \text{exponential (ema)} \end{cases} $$
#
# and $\alpha_1 = 1$ in both, so that the first batch sets the average. In the package, each class has its own count
# $t$ (their code has one count for all, and subtracts the batch mean from each $m_t$ first):

# %%
show_code(ncbook.ClassMeanAverage.forward)

# %% [markdown]
# The gradient runs through `sums`, those of this batch, alone: earlier batches belong to earlier networks, whose graphs
# are gone.
#
# What does each of them remember? Unrolling the recursion, batch $s$ enters $a_t$ with the weight $w_s = \alpha_s
# \prod_{j=s+1}^{t} (1 - \alpha_j)$. For the cumulative average this is $1/t$ for all $s$, the plain mean. For
# $\alpha_t = 2/(t+1)$ the product telescopes, since $1 - \alpha_j = \frac{j-1}{j+1}$:
#
# $$ w_s = \frac{2}{s+1} \cdot \frac{s\,(s+1)}{t\,(t+1)} = \frac{2 s}{t\,(t+1)} . $$
#
# A straight **ramp**, not an exponential. The average becomes a true exponential one only when $\alpha_t$ reaches its
# floor:

# %%
floor_at = next(t for t in range(1, 10**6) if 2 / (t + 1) <= 1e-4)
assert floor_at == 19_999
say(f"The floor $10^{{-4}}$ is reached at update $t$ = {floor_at:,}: with the digits' 22 batches of 64 an epoch, after "
    f"{floor_at / 22:,.0f} epochs.")

# %% [markdown]
# The weights can be read off the module itself, by feeding it unit vectors: if the feature of batch $s$ is the unit
# vector $e_s$, the average at time $t$ *is* the vector of weights. For comparison there is a third average, with a
# constant weight $\alpha$ after the first batch. It is what most people think of as exponential.

# %%
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


def averages(num_classes, dim):
    made = (ConstantAverage(num_classes, dim, 1.0), ncbook.ClassMeanAverage(num_classes, dim, "cma"),
            ncbook.ClassMeanAverage(num_classes, dim, "ema"), ConstantAverage(num_classes, dim, ALPHA))
    return dict(zip(NAMES, made))


T = 100
weights = averages(2, T)
for unit in torch.eye(T):
    for average in weights.values():
        average(unit[None], torch.tensor([0]))
weights = {name: average.mean[0] for name, average in weights.items()}
s = torch.arange(1, T + 1)
assert torch.allclose(weights["cumulative"], torch.full((T,), 1 / T), atol=1e-6)
assert torch.allclose(weights["ramp (ema)"], 2 * s / (T * (T + 1)), atol=1e-6)
assert abs(weights["ramp (ema)"][T // 2:].sum() - 0.75) < 1 / T

panels(f"What an average remembers after {T} batches",
       {"weight of each batch; every curve sums to 1": (s, {name: weights[name] for name in NAMES[1:]})})

# %% [markdown]
# The cumulative average gives the first batch, of an untrained network, as much say as the last. The ramp lets it
# fade: of $t$ batches, the newer half has about three quarters of the weight. Both remember ever longer as time goes
# on; the constant one always forgets at the same rate.
#
# ## 2. Variance against lag
#
# Let the batch means scatter around the true class mean, independently, with variance $\sigma^2$ per coordinate. The
# average then has the variance $\sigma^2 \sum_s w_s^2$. And let the true mean move at a constant speed $v$: the average
# shows where it was $\sum_s w_s\,(t-s)$ batches ago, and is off by $v$ times this **lag**. Summing up the weights:
#
# | average | $\sum_s w_s^2$ | lag in batches |
# |---|---:|---:|
# | cumulative | $\frac1t$ | $\frac{t-1}{2}$ |
# | ramp, $\alpha_t = \frac{2}{t+1}$ | $\frac{2(2t+1)}{3t(t+1)} \approx \frac{4}{3t}$ | $\frac{t-1}{3}$ |
# | constant $\alpha$, for $t \to \infty$ | $\frac{\alpha}{2-\alpha}$ | $\frac{1-\alpha}{\alpha}$ |

# %%
formulas = {"cumulative": (1 / T, (T - 1) / 2), "ramp (ema)": (2 * (2 * T + 1) / (3 * T * (T + 1)), (T - 1) / 3),
            NAMES[3]: (ALPHA / (2 - ALPHA), (1 - ALPHA) / ALPHA)}
for name, (variance, lag) in formulas.items():
    w = weights[name].double()
    squares, age = float(w.square().sum()), float((w * (T - s)).sum())
    print(f"{name:15} variance {squares:.4f} (formula {variance:.4f})   lag {age:.2f} (formula {lag:.2f})")
    assert abs(squares - variance) < 1e-3 * variance and abs(age - lag) < 1e-2 * lag

# %% [markdown]
# Against the cumulative average, the ramp pays a third more variance for a third less lag. Which is the better deal
# depends on how the target moves. Class means move fast at first and then settle, so let us simulate that: a scalar
# target $1 - e^{-t/50}$, and batch means that scatter around it with standard deviation 0.5. The simulation runs many
# times at once, one in each coordinate of the module.

# %%
steps, sigma = 400, 0.5
generator = torch.Generator().manual_seed(SEED)
target = 1 - torch.exp(-torch.arange(1, steps + 1) / 50)
simulated, bias, scatter = averages(2, REPEATS), defaultdict(list), defaultdict(list)
for value in target:
    batch = value + sigma * torch.randn(1, REPEATS, generator=generator)
    for name, average in simulated.items():
        error = average(batch, torch.tensor([0]))[0] - value
        bias[name].append(float(error.mean().abs()))
        scatter[name].append(float(error.std()))
rmse = {name: torch.tensor([b**2 + c**2 for b, c in zip(bias[name], scatter[name])]).sqrt() for name in NAMES}

middle, end = steps // 8, -1
assert bias["cumulative"][end] > bias["ramp (ema)"][end] > bias[NAMES[3]][end]
assert scatter["cumulative"][end] < scatter["ramp (ema)"][end] < scatter[NAMES[3]][end] < scatter["batch alone"][end]
assert rmse["ramp (ema)"][end] < min(rmse["cumulative"][end], rmse[NAMES[3]][end])
assert rmse[NAMES[3]][middle] < min(rmse["cumulative"][middle], rmse["ramp (ema)"][middle])

parts = {"lag: mean error": bias, "noise: standard deviation": scatter, "both: root mean square": rmse}
panels(f"Tracking a target that moves, then settles ({REPEATS:,} runs)",
       {part: (range(1, steps + 1), values) for part, values in parts.items()}, range=[0, 0.6])

# %% [markdown]
# Left: the cumulative average is still dragging its beginning along when the target has long come to rest; the ramp
# catches up sooner; the constant one soonest. Middle: in noise the order is reversed. Right, in total: on a moving
# target a constant weight is best, and its noise floor is what it pays for that later. The ramp ends below both,
# without any constant to tune, as long as the target does settle.
#
# ## 3. On a real run
#
# Now the digits. We train with the nearest-ETF head and feed all four averages the features of every batch. Only the
# head's own (the ramp) steers the classifier, so the four see exactly the same run. What they should track is the class
# means of the *whole* training set under the network of that moment, computed in training mode as the batches are, with
# the batch norm's statistics over the whole set. Distances are of centred means, relative to the norm of the true ones.

# %%
def centred(x):
    return x - x.mean(0)


def true_class_means(trainer):
    backbone = copy.deepcopy(trainer.backbone).train()  # a copy: batch norm must not take note of this
    with torch.no_grad():
        features = trainer.head.embed(backbone(trainer.data.train_inputs))
    return torch.stack([features[trainer.data.train_targets == c].mean(0) for c in range(trainer.data.num_classes)])


def watch(trainer):
    """Train to the end, with four averages of each batch beside the head; yields them after each step."""
    seen, shadows = {}, averages(*trainer.head.weight.shape)

    def note(head, arguments):
        seen["batch"] = head.embed(arguments[0]).detach(), arguments[1]

    handle = trainer.head.register_forward_pre_hook(note)
    while not trainer.finished:
        trainer.step()
        for average in shadows.values():
            average(*seen["batch"])
        yield shadows
    handle.remove()


def recipe(**changes):
    settings = dict(dataset="digits", backbone="mlp", head="nearest", epochs=EPOCHS, seed=SEED, device="cpu")
    return ncbook.Recipe(**settings | changes)


errors, epochs_at = {}, {}
for size in BATCHES:
    trainer = ncbook.Trainer(recipe(batch_size=size))
    every = max(1, trainer.steps_per_epoch * EPOCHS // 60)
    errors[size], epochs_at[size] = defaultdict(list), []
    for shadows in watch(trainer):
        if trainer.steps % every == 0 or trainer.steps <= 5:
            truth = centred(true_class_means(trainer))
            epochs_at[size].append(trainer.steps / trainer.steps_per_epoch)
            for name, average in shadows.items():
                errors[size][name].append(float((centred(average.mean) - truth).norm() / truth.norm()))

panels("Relative distance of the averages to the true class means",
       {f"batch size {size}": (epochs_at[size], errors[size]) for size in BATCHES},
       type="log", exponentformat="e", dtick=1, matches="y").update_xaxes(title="epoch")


# %%
def late(size, name):
    return mean(errors[size][name][-len(errors[size][name]) // 4:])


say("Mean over the last quarter of the run:")
table(["batch size", *NAMES], [[size, *(late(size, name) for name in NAMES)] for size in BATCHES], text=0)
small, large = BATCHES[0], BATCHES[-1]
assert all(late(size, "ramp (ema)") < late(size, "cumulative") for size in BATCHES)
assert max(late(small, name) for name in NAMES[1:]) < late(small, "batch alone")
assert late(large, "batch alone") < late(large, "cumulative")

# %% [markdown]
# Three things to read from this:
#
# - **The ramp beats the cumulative average** at every batch size: it forgets the early, untrained network sooner.
# - **Averaging pays when batches are small.** With one or two samples a class, every average is better than the batch
#   alone before long.
# - **With large batches the lag costs more than the noise.** In a short run at the largest batch size the batch's own
#   means are better than the cumulative average. Averages count in batches, and an epoch has few of them.
#
# The constant weight ends closer than the ramp at every batch size here: in a run this short the class means never
# come to rest, and by section 2 that is its case. It lags most at the start with the largest batches, and it is a
# number to tune: good values depend on the batch size and on the length of the run. The ramp has no such number.
#
# ## 4. What the classifier makes of it
#
# The classifier sees an average only through its nearest ETF. So measure there: the angle between two ETFs $W$ and
# $W'$, as matrices of norm $\sqrt C$, is $\arccos\big(\langle W, W'\rangle/C\big)$. Two angles matter. From one step
# to the next: is the classifier steady, so that the features have something to aim at? And to the nearest ETF of the
# true class means: is it right?

# %%
def angle(w, other):
    # The arc from the chord: the arccosine of a cosine near 1 would lose all digits of a small angle.
    chord = (w.double() - other.double()).square().sum().sqrt() / len(w) ** 0.5
    return float(torch.rad2deg(2 * torch.asin((chord / 2).clamp(max=1))))


trainer = ncbook.Trainer(recipe(batch_size=64))
frames, turn, off = {}, defaultdict(list), defaultdict(list)
for shadows in watch(trainer):
    target_etf = ncbook.nearest_simplex_etf(true_class_means(trainer))
    for name, average in shadows.items():
        frame = ncbook.nearest_simplex_etf(average.mean, previous=frames.get(name))
        turn[name].append(angle(frame, frames[name]) if name in frames else float("nan"))
        off[name].append(angle(frame, target_etf))
        frames[name] = frame
settled = copy.deepcopy(trainer)

parts = {"from one step to the next": turn, "to the ETF of the true class means": off}
panels("How the nearest ETF turns, batch size 64",
       {part: (range(1, trainer.steps + 1), values) for part, values in parts.items()},
       type="log", tickvals=[0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30], ticksuffix="°")


# %%
halves = {name: [median_low(values[name][len(values[name]) // 2:]) for values in (turn, off)] for name in NAMES}
table(["median over the second half of the run, degrees", "turn in a step", "off by"],
      [[name, *medians] for name, medians in halves.items()])
turns = [halves[name][0] for name in ("cumulative", "ramp (ema)", NAMES[3], "batch alone")]
assert turns == sorted(turns) and halves["ramp (ema)"][1] < halves["batch alone"][1]

# %% [markdown]
# The batch alone makes a restless classifier, which turns by degrees from one step to the next however well it tracks
# on average. The cumulative average is the steadiest and the ramp nearly so: the newest batch weighs $1/t$ in the
# one, and about twice that in the other. Closest to the ETF of the true means is again the constant weight.
#
# Does it matter for the network that is trained? The same recipe, with each average in the head:

# %%
results = {}
for name in NAMES:
    for seed in range(SEEDS):
        trainer = ncbook.Trainer(recipe(seed=seed))
        trainer.head.averages = averages(*trainer.head.weight.shape)[name]
        while not trainer.finished:
            trainer.step()
        shot = trainer.snapshot()
        results.setdefault(name, []).append((shot.test["accuracy"], shot.train["nc1"], shot.train["nc3"]))

say(f"After {EPOCHS} epochs, {SEEDS} seed(s), median and range:")
table(["average in the head", "test accuracy", "nc1", "nc3"],
      [[name, *map(median_range, zip(*values), (".1%", ".3f", ".4f"))] for name, values in results.items()])
assert all(accuracy > 0.9 for values in results.values() for accuracy, _, _ in values)

# %% [markdown]
# On a task as easy as the digits, accuracy hardly tells them apart: look at the ranges before believing a difference.
# Where an average can help is `nc3`, the agreement of class means and classifier, and there most between having one
# and having none; which one it is matters less. In the package, `NearestETFHead(..., method="ema")` is the default,
# and `method="cma"` the other published choice.
#
# ## 5. A class that is not in the batch
#
# With $C$ classes of equal size and batches of $B$ samples, a class is absent from a batch with probability about
# $(1 - 1/C)^B$.

# %%
table(["classes", "batch size", "classes absent from a batch, expected"],
      [[c, b, c * (1 - 1 / c) ** b] for c, b in ((10, 16), (10, 64), (10, 256), (100, 256), (1000, 256))], text=0)

# %% [markdown]
# So absence is either rare or the rule, and an average needs an answer for it. `ClassMeanAverage` does the obvious: a
# class that is absent **keeps** its average and its count. Two other answers are worth a look.
#
# *Filling.* Put something in the place of the missing mean, say the mean of all features in the batch, and update as
# usual. It is convenient, as there is one count and no mask.
#
# *Filling, with a memory.* The code published with the paper keeps the average of an absent class if it has a note
# that the class has been seen. But it takes that note only in batches in which *some* class is missing. A class that
# was in every batch so far, all of them complete, has no note; when it is absent, its average is overwritten by the
# mean of the batch. (We read it so in the public repository, file `nc/models/ddn_modules.py`. There class means are
# stored relative to the batch mean and yet filled with the batch mean itself; here we let them be filled with the
# centre, which is kinder.)

# %%
class Filled(ncbook.ClassMeanAverage):
    """An absent class is given the mean of the batch; one count for all classes."""

    def forward(self, features, targets):
        fresh = ncbook.ClassMeanAverage(*self.mean.shape)
        batch_mean = fresh(features, targets)
        old, new = self.fill(batch_mean, fresh.seen, features.mean(0))
        mean = torch.lerp(old, new, max(2 / (int(self.count[0]) + 2), 1e-4))
        self.mean.copy_(mean.detach())
        self.count += 1
        return mean

    def fill(self, batch_mean, present, centre):
        return self.mean.clone(), torch.where(present[:, None], batch_mean, centre)


class FilledWithMemory(Filled):
    """As published: an absent class keeps its average if an incomplete batch held it before, else it is overwritten."""

    def __init__(self, num_classes, dim):
        super().__init__(num_classes, dim)
        self.register_buffer("noted", torch.zeros(num_classes, dtype=torch.bool))

    def fill(self, batch_mean, present, centre):
        old = self.mean.clone()
        if present.all():
            return old, batch_mean
        self.noted |= present
        old = torch.where((present | self.noted)[:, None], old, centre)
        return old, torch.where(present[:, None], batch_mean, old)


RULES = {"keep": ncbook.ClassMeanAverage, "fill": Filled, "fill, with memory": FilledWithMemory}

# %% [markdown]
# The first experiment is on frozen features, those of the network just trained, so that nothing moves but the
# averages. All batches have six samples of each class, except for a single one, number 100, from which class 9 is
# missing. The picture shows how far the average of class 9 is from its true mean, and by what angle its vertex of the
# nearest ETF turns away from where it should be.

# %%
with torch.no_grad():
    features = settled.head.embed(settled.backbone.eval()(settled.data.train_inputs))
targets = settled.data.train_targets
true_means = torch.stack([features[targets == c].mean(0) for c in range(10)])
true_etf = ncbook.nearest_simplex_etf(true_means)
STEPS, GAP = 300, 100
generator = torch.Generator().manual_seed(SEED)
members = [torch.nonzero(targets == c)[:, 0] for c in range(10)]
rules = {name: rule(*true_means.shape) for name, rule in RULES.items()}
frames, distance, vertex = {}, defaultdict(list), defaultdict(list)
for step in range(1, STEPS + 1):
    present = members[:9] if step == GAP else members
    batch = torch.cat([m[torch.randint(len(m), (6,), generator=generator)] for m in present])
    for name, average in rules.items():
        average(features[batch], targets[batch])
        frames[name] = ncbook.nearest_simplex_etf(average.mean, previous=frames.get(name))
        distance[name].append(float((average.mean[9] - true_means[9]).norm() / centred(true_means)[9].norm()))
        vertex[name].append(angle(frames[name][9:], true_etf[9:]))

before, at, end = GAP - 2, GAP - 1, STEPS - 1
assert distance["keep"][at] == distance["keep"][before] and distance["fill, with memory"][at] > 0.9
assert distance["fill, with memory"][end] > 3 * distance["keep"][end]
parts = {"distance of its average, relative": distance, "angle of its vertex, degrees": vertex}
panels(f"Class 9, absent from batch {GAP} alone",
       {part: (range(1, STEPS + 1), values) for part, values in parts.items()}, rangemode="tozero")

# %%
lost = distance["fill, with memory"], vertex["fill, with memory"]
back, turned = (next((i for i in range(at, STEPS) if values[i] < limit), STEPS) - at
                for values, limit in zip(lost, (0.2, 5)))
assert back < STEPS - at and turned < back
say(f"With *keep* nothing happens. *Fill* mixes a small share of the centre in, the newest batch's weight: the "
    f"distance goes from {distance['fill'][before]:.3f} to {distance['fill'][at]:.3f}. With *fill, with memory* the "
    f"average of class 9 is gone in one step, distance {lost[0][at]:.2f}, and its vertex turns by {lost[1][at]:.0f} "
    f"degrees. The average comes back only as fast as averages forget, to 0.2 after {back} more batches, the vertex to "
    f"5 degrees after {turned}: a small share of the right mean already points the right way.")

# %% [markdown]
# With classes of equal size such an accident is rare: with ten of them nearly all batches of 64 are complete, with a
# thousand hardly any is, and every class is noted soon. What about a class that is absent *often*, because it is rare?
# For the second experiment most samples of class 9 are taken out of the training set, and a network is trained with
# each rule. The third column is the distance of the average from the true mean of class 9 at the end of training.

# %%
digits, RARE = ncbook.load_dataset("digits"), 14
is_nine = digits.train_targets == 9
rare = digits.subset(torch.cat([torch.nonzero(~is_nine)[:, 0], torch.nonzero(is_nine)[:RARE, 0]]))
outcome = {}
for name, rule in RULES.items():
    for seed in range(SEEDS):
        trainer = ncbook.Trainer(recipe(seed=seed), data=rare)
        trainer.head.averages = rule(*trainer.head.weight.shape)
        while not trainer.finished:
            trainer.step()
        shot, truth = trainer.snapshot(), true_class_means(trainer)
        off_by = (centred(trainer.head.averages.mean) - centred(truth))[9].norm() / centred(truth)[9].norm()
        outcome.setdefault(name, []).append((shot.test["accuracy"], float(off_by), shot.train["nc3"]))

absent = (1 - RARE / len(rare.train_targets)) ** 64
say(f"Class 9 has {RARE} training samples and is absent from {absent:.0%} of the batches. "
    f"{EPOCHS} epochs, {SEEDS} seed(s), median and range:")
table(["rule", "test accuracy, all classes", "average of class 9, relative distance", "nc3"],
      [[name, *map(median_range, zip(*values), (".1%", ".2f", ".3f"))] for name, values in outcome.items()])
distances = {name: [off_by for _, off_by, _ in values] for name, values in outcome.items()}
assert max(distances["keep"]) < min(distances["fill"]) < max(distances["fill, with memory"])

# %% [markdown]
# *Fill* leaves the average of the rare class short of its mean by about the share of batches in which the class is
# absent: each of them pulls it towards the centre. The nearest ETF looks at directions more than at lengths and
# forgives most of that, so accuracy and `nc3` need not show it.
#
# *Fill, with memory* has its worst case here. When class 9 is the only class that is ever absent, the incomplete
# batches are exactly those without it, so it is never noted: each absence erases its average, and at the end there is
# hardly anything of class 9 in it. The classifier turns with every accident, and class means and classifier agree
# less (`nc3`). The point of *keep* is that nothing of this can happen.
#
# ## 6. Classes that have never been seen
#
# Before its first sample, a class has no average to keep. The row of `mean` is zero then, which is *not* a neutral
# value. The features of an untrained network share a large common part, and zero is far from all of them: taken for a
# class mean, it says that the unseen classes lie in the direction opposite to everything. `NearestETFHead` puts such
# a class at the centre of the others, where its column of $H$ is zero and it has no say in the fit. Here an untrained
# network is shown a batch of the digits 0 to 6.

# %%
untrained = ncbook.Trainer(recipe())
head, backbone = untrained.head.train(), untrained.backbone.train()
order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(SEED))
early = order[targets[order] < 7][:256]
with torch.no_grad():
    head(backbone(untrained.data.train_inputs[early]), targets[early])
    embedded = head.embed(backbone(untrained.data.train_inputs))
seen, means = head.averages.seen, head.averages.mean.clone()
centre = means[seen].mean(0)
zeros_as_means = ncbook.nearest_simplex_etf(means, previous=ncbook.simplex_etf(*means.shape))
print(f"updates: {head.averages.count.tolist()}; norm of the centre of the seen classes {centre.norm():.2f}, "
      f"mean distance of a class mean from it {(means[seen] - centre).norm(dim=1).mean():.2f}")


def judge(weight, middle):
    """Cosine of the unseen classes' vertices with minus the centre, and the loss on samples of the unseen classes."""
    logits, unseen = (embedded - middle) @ weight.T, ~seen[targets]
    opposite = torch.cosine_similarity(weight[~seen].mean(0), -centre, dim=0)
    return float(opposite), float(torch.nn.functional.cross_entropy(logits[unseen], targets[unseen]))


at_centre, at_zero = judge(head.weight, centre), judge(zeros_as_means, means.mean(0))
table(["unseen classes", "cosine of their vertices with minus the centre", "loss on their samples"],
      [["at the centre", *at_centre], ["zero rows", *at_zero]])
cosines = (head.weight @ head.weight.T)[~torch.eye(10, dtype=torch.bool)]
assert head.weight.isfinite().all() and (cosines + 1 / 9).abs().max() < 1e-5
assert at_zero[0] > 0.9 and abs(at_centre[0]) < 0.5 and at_centre[1] < at_zero[1]

# %% [markdown]
# With zero rows, the ETF spends its effort on a direction that says nothing, and the network learns that samples of
# the unseen classes look *unlike* those classes. At the centre, the fit has no opinion about them.
#
# The unseen classes already own their vertices: all ten rows of $W$ are a simplex ETF, and what the fit leaves open
# comes from the previous solution by way of the proximal pull. When the first sample arrives, $\alpha_1 = 1$ makes it
# the average, whatever the count of the other classes is. That is why each class counts for itself.

# %%
late_batch = order[targets[order] >= 7][:64]
with torch.no_grad():
    z = backbone(untrained.data.train_inputs[late_batch])
    head(z, targets[late_batch])
first = torch.stack([head.embed(z)[targets[late_batch] == c].mean(0) for c in range(7, 10)])
print("updates:", head.averages.count.tolist())
assert torch.equal(head.averages.mean[:7], means[:7]) and torch.allclose(head.averages.mean[7:], first, atol=1e-5)

# %% [markdown]
# ## 7. Checkpoints
#
# The averages are not parameters, and an optimiser knows nothing of them. But they are state: without them, a run
# that goes on from a checkpoint begins again with $t = 1$ and takes the first batch for the truth. In the package
# they are buffers and in every `state_dict`:

# %%
half = ncbook.Trainer(recipe())
while half.epoch < EPOCHS // 2:
    half.step()
file = io.BytesIO()
torch.save(half.state_dict(), file)
print(sorted(half.head.state_dict()))


def resume(forget):
    file.seek(0)
    trainer = ncbook.Trainer(recipe())
    trainer.load_state_dict(torch.load(file, weights_only=True))
    if forget:
        trainer.head.averages = ncbook.ClassMeanAverage(*trainer.head.weight.shape)
    before = trainer.head.weight.clone()
    trainer.step()
    return trainer, angle(before, trainer.head.weight)


before = half.head.weight.clone()
half.step()
uninterrupted = angle(before, half.head.weight)
(whole, with_averages), (_, without) = resume(forget=False), resume(forget=True)
print(f"first step after the checkpoint, the classifier turns by: {uninterrupted:.2f} degrees uninterrupted, "
      f"{with_averages:.2f} resumed, {without:.2f} resumed without the averages")
for trainer in (half, whole):
    while not trainer.finished:
        trainer.step()
same = all(torch.equal(a, b) for a, b in zip(half.head.state_dict().values(), whole.head.state_dict().values()))
print("the resumed run ends with the same head, bit for bit:", same)
assert same and with_averages == uninterrupted and without > 2 * uninterrupted

# %% [markdown]
# ## Try it
#
# **1. A constant weight that is as quiet as the ramp.** Which $\alpha$ has, in the long run, the variance that the
# ramp has at batch $t$? Compare their lags.
#
# <details><summary>Solution</summary>
#
# Setting $\frac{\alpha}{2-\alpha} = \frac{2(2t+1)}{3t(t+1)} =: q$ gives $\alpha = \frac{2q}{1+q} \approx
# \frac{8}{3t}$, whose lag is $\frac{1-\alpha}{\alpha} \approx \frac{3t}{8}$. The ramp's lag is about $\frac t3$: a
# little less for the same variance.
#
# ```python
# t = 1000
# q = 2 * (2 * t + 1) / (3 * t * (t + 1))
# alpha = 2 * q / (1 + q)
# print(alpha, "lag", (1 - alpha) / alpha, "ramp", (t - 1) / 3)
# ```
# </details>
#
# **2. The best weights.** Of all weights that sum to 1 over the last $t$ batches, which have the least variance for a
# *given* lag?
#
# <details><summary>Solution</summary>
#
# Minimise $\sum w_s^2$ subject to $\sum w_s = 1$ and $\sum w_s (t - s) = \ell$. The Lagrange conditions say that
# $w_s$ is linear in $s$: ramps are the best there is, as long as no weight gets negative. The published ramp is
# almost the steepest of these: the steepest has $w_1 = 0$ and lag $\frac{t-2}{3}$ in place of $\frac{t-1}{3}$.
#
# ```python
# t, lag = 100, 33.0
# age = (t - torch.arange(1.0, t + 1)).double()
# constraints = torch.stack([torch.ones_like(age), age])
# w = constraints.T @ torch.linalg.solve(constraints @ constraints.T, torch.tensor([1.0, lag]).double())
# print((w - 2 * torch.arange(1, t + 1) / (t * (t + 1))).abs().max())
# ```
# </details>
#
# **3. A restart.** Let the target of section 2 jump to $-1$ at batch 300. How long does each average need to get half
# the way?
#
# <details><summary>Solution</summary>
#
# Averages with a growing memory pay for it: the cumulative one needs about 300 more batches, as many as it has seen.
# The ramp needs $t(t+1)$ to double, so about $0.41 \cdot 300$. The constant one needs $\ln 2/\alpha$, about 7.
#
# ```python
# jump, half = averages(2, 1), {}
# for t in range(1, 1001):
#     for name, average in jump.items():
#         value = average(torch.tensor([[1.0 if t <= 300 else -1.0]]), torch.tensor([0]))[0, 0]
#         if t > 300 and value <= 0:
#             half.setdefault(name, t - 300)
# print(half)
# ```
#
# So after a change of data or of learning rate in the middle of a run, a fresh average may be better than a
# checkpoint's.
# </details>
#
# **4. Equal classes.** If all classes are absent equally often, *fill* shrinks all averages by the same factor. Why
# does the nearest ETF not care?
#
# <details><summary>Solution</summary>
#
# It depends on centred means up to a common scale (chapter 05, section 6). Only *differences* between the classes in
# how often they are absent are harmful.
#
# ```python
# shrunk = true_means.mean(0) + 0.3 * (true_means - true_means.mean(0))
# print(angle(ncbook.nearest_simplex_etf(shrunk), true_etf))
# ```
# </details>
#
# ## Summary
#
# - The cumulative average weighs all batches alike. The published "exponential" one, $\alpha_t = 2/(t+1)$, is a
#   linear ramp for its first twenty thousand updates: a third more variance, a third less lag.
# - On a real run the ramp tracks the true class means better than the cumulative average, and a well-chosen constant
#   weight better than both. Small batches need averaging; with large ones, lag is the larger error early on.
# - An average makes the classifier steady, where the batch alone turns it by degrees at each step.
# - An absent class keeps its average. Filling pulls rare classes to the centre, and a fill that forgets can erase an
#   average in one step, and a rare class's again and again. A class never seen takes no part in the fit.
# - Averages are state. They are in the checkpoint, and a resumed run equals an uninterrupted one.
#
# ## References
#
# - E. Markou, T. Ajanthan, S. Gould (2024). *Guiding Neural Collapse: Optimising Towards the Nearest Simplex
#   Equiangular Tight Frame.* NeurIPS. arXiv:2411.01248. Code: github.com/evanmarkou/Guiding-Neural-Collapse.
# - V. Papyan, X. Y. Han, D. L. Donoho (2020). *Prevalence of neural collapse during the terminal phase of deep learning
#   training.* PNAS. arXiv:2008.08186.
# - S. Ioffe, C. Szegedy (2015). *Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate
#   Shift.* ICML. arXiv:1502.03167. (Moving averages of batch statistics, for evaluation.)
