"""What the tests of the lab share: recipes that train fast, and the hands and eyes of a reader."""

import time

import numpy as np

from ncbook.live import CURVES, PANELS
from ncbook.live.record import Recorder
from ncbook.schedules import SlidingSchedule
from ncbook.training.recipe import Recipe

RECIPE = Recipe(dataset="gaussians", classes=3, backbone="mlp", head="nearest", clouds=(6, 5), epochs=4, lr=0.02,
                schedule=SlidingSchedule(1.0, 0.1, 4), device="cpu")
LONG = Recipe(**(vars(RECIPE) | {"epochs": 1000, "schedule": SlidingSchedule(1.0, 0.1, 1000)}))


def record(recipe=RECIPE, curves=CURVES, steps=0, **more):
    """A recorder after some steps, with no lab around it, and its last frame."""
    recorder = Recorder(recipe, None, {name: panel.take for name, panel in PANELS.items()}, curves, **more)
    for _ in range(steps):
        recorder.step()
    return recorder, recorder.take()


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


class Page:
    """Stands in for a page that shows a lab: says what a hand would make it say, and keeps what it is sent."""

    def __init__(self, lab, monkeypatch, *, begins=False):
        self.lab, self.state, self.runs, self.frames, self.looks, self.got = lab, {}, {}, {}, {}, []
        monkeypatch.setattr(lab, "send", self.hear)
        if not begins:
            lab.pause()
        self.do("hello")

    def do(self, what, value=None):
        self.lab._hear(self.lab, {"do": what, "value": value}, [])

    def set(self, **values):
        self.do("set", values)

    def hear(self, message, buffers=None):
        self.got.append((message, buffers))
        if message["type"] == "run":
            self.runs[message["run"]["id"]] = message["run"]
        elif message["type"] == "frames":
            frames = self.frames.setdefault(message["id"], [])
            del frames[message["keep"] :]
            frames += unpack(self.runs[message["id"]], buffers[0])
        elif message["type"] == "state":
            self.state |= message

    @property
    def last(self):
        """The last frame of the newest run, as the page knows it."""
        return self.frames[self.state["live"][-1]][-1]


def unpack(head, data):
    """The frames in a buffer, as the page reads them: name -> array."""
    frames, at = [], 0
    while at < len(data):
        frame = {}
        for name, size, shape in head["layout"]:
            count = int(np.prod(shape))
            kind = np.float32 if size == 4 else np.uint8
            frame[name] = np.frombuffer(data, kind, count, at).reshape(shape)
            at += size * count
        at += -at % 4
        frames.append(frame)
    return frames
