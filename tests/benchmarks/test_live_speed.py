"""How live the lab is: in JupyterLab with Chromium, and in a kernel that nobody looks at.

    pytest tests/benchmarks/test_live_speed.py -s --benchmark-json live_speed.json

prints the figures and keeps them as `extra_info` of each benchmark. They hold for a machine that does nothing else:
training, kernel, server and browser share its cores.
"""

import statistics
import time

import pytest
from jupyter_page import open_lab
from live_hands import wait_until
from nbformat.v4 import new_code_cell, new_notebook

from ncbook.live import LiveLab
from ncbook.schedules import SlidingSchedule
from ncbook.training.recipe import Recipe
from ncbook.training.trainer import Trainer

SECONDS, PRESSES = 8, 20
RECIPE = Recipe(dataset="digits", classes=3, head="nearest", clouds=(8, 16), epochs=10_000, lr=0.05, device="cpu",
                schedule=SlidingSchedule(1.1, 0.1, 10_000))
CELL = f"""
import time
from ncbook import Recipe, SlidingSchedule
from ncbook.live import LiveLab

lab = LiveLab({RECIPE!r})
used = {{}}
trainer_step = lab.trainer.step

def step():
    used.setdefault(lab.trainer.controls.beta, time.time())
    return trainer_step()

lab.trainer.step = step
lab
"""


# The pictures of the page that show another step than the one before; all panels are drawn with each.
COUNT = """() => {
    window.pictures = 0;
    let shown = "";
    const look = () => {
        const now = document.querySelector(".nc-when").textContent;
        window.pictures += now !== shown;
        shown = now;
        requestAnimationFrame(look);
    };
    look();
}"""


def step_seconds(step, seconds):
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        step()
        steps += 1
    return (time.perf_counter() - start) / steps


def lab_rates(trainer, lab):
    """Steps a second alone, share of them in the lab: taken in turns, medians of three."""
    alone, shares = [], []
    for _ in range(3):
        alone.append(1 / step_seconds(trainer.step, SECONDS / 4))
        steps, start = lab.trainer.steps, time.perf_counter()
        lab.start()
        time.sleep(SECONDS / 2)
        lab.pause()
        wait_until(lambda: "paused" in lab.status)
        seconds = time.perf_counter() - start
        shares.append((lab.trainer.steps - steps) / seconds / alone[-1])
    return dict(steps_per_second_alone=statistics.median(alone), lab_over_alone=statistics.median(shares))


def test_training_in_the_lab_and_alone(benchmark):
    trainer, lab = Trainer(RECIPE), LiveLab(RECIPE)
    lab.set(speed="full")
    figures = benchmark.pedantic(lab_rates, (trainer, lab), rounds=1)
    assert lab.error is None and lab.trainer.steps > 0 and trainer.steps > 0
    lab.close()
    report(benchmark, figures)


def keys_and_frames(lab):
    """Seconds from a key press to the first step that uses the value, and frames a second that the page draws."""
    lab.page.evaluate(COUNT)
    start = time.perf_counter()
    lab.page.wait_for_timeout(SECONDS * 1000)
    pictures = lab.page.evaluate("() => window.pictures")
    frames = {"pictures_per_second": pictures / (time.perf_counter() - start)}
    lab.page.locator("[data-panel=geometry] input").check()  # regions, beside the trails
    handle = lab.dial("beta")[0]
    handle.focus()
    for _ in range(PRESSES):
        handle.press("ArrowRight")
        lab.page.wait_for_timeout(400)
    pressed = lab.page.evaluate("() => window.pressed")
    used = lab.kernel(f"[[beta, when] for beta, when in used.items()][-{PRESSES}:]")
    return frames | {"click_to_picture": seconds_to_picture(lab)}, pressed, used


def seconds_to_picture(lab):
    """From a click on a scenario to the first picture of its run that shows a step."""
    return lab.page.evaluate("""() => new Promise((done) => {
        const begun = performance.now();
        let fresh = false;
        const look = () => {
            const step = Number(document.querySelector(".nc-when").textContent.split(" ").at(-1));
            fresh ||= step === 0;
            if (fresh && step > 0) done((performance.now() - begun) / 1000);
            else requestAnimationFrame(look);
        };
        [...document.querySelectorAll(".nc-scenarios button")].find((e) => e.textContent === "Too early").click();
        look();
    })""")


def test_keys_and_frames_in_the_browser(tmp_path, chromium, benchmark):
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = new_notebook(cells=[new_code_cell(CELL)], metadata={"kernelspec": kernel})
    with open_lab(tmp_path, chromium, notebook) as lab:
        lab.kernel("lab.set(speed='full')")
        lab.wait_for(lambda: lab.kernel("lab.trainer.steps") > 50, "training")
        lab.page.evaluate("""() => {
            window.pressed = [];
            document.addEventListener("keydown", () => window.pressed.push(Date.now() / 1000), true);
        }""")
        frames, pressed, used = benchmark.pedantic(keys_and_frames, (lab,), rounds=1)
        assert lab.kernel("lab.error is None")
    # Each press is one step of the slider further, and each was used.
    assert len(used) == PRESSES
    assert all(high - low == pytest.approx(0.01) for (low, _), (high, _) in zip(used, used[1:]))
    delays = [when - key for key, (_, when) in zip(pressed, used, strict=True)]
    assert min(delays) > -0.02
    report(benchmark, dict(frames, key_to_step_median=statistics.median(delays),
                           key_to_step_most=max(delays)))


def report(benchmark, figures):
    benchmark.extra_info.update(figures)
    print("\n" + ", ".join(f"{name} {value:.3g}" for name, value in figures.items()))
