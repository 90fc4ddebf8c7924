"""What the densification loss costs inside a training step of MNIST-250: the 28x28 CNN, 8 clouds of 16 images.

The images are scikit-learn's digits enlarged to 28x28, 250 of them, since only their size matters.
CPU time, one thread.
"""

import dataclasses
import time

import pytest
import torch.nn.functional as F

from ncbook import Recipe, SlidingSchedule, Trainer, load_dataset

VANILLA = Recipe(backbone="mnist_cnn", clouds=(8, 16), p=1, epochs=310, lr=0.1, weight_decay=0.01, device="cpu")
RECIPES = {"without": VANILLA, "with": dataclasses.replace(VANILLA, schedule=SlidingSchedule(1.1, 0.1, 310))}


@pytest.mark.benchmark(group="MNIST-250 step, densification loss", timer=time.process_time)
@pytest.mark.parametrize("loss", RECIPES)
def test_step(benchmark, loss):
    digits = load_dataset("digits", train_size=250)
    data = dataclasses.replace(digits, train_inputs=F.interpolate(digits.train_inputs, 28))
    trainer = Trainer(RECIPES[loss], data=data)
    assert benchmark.pedantic(trainer.step, rounds=60, warmup_rounds=5).isfinite()
