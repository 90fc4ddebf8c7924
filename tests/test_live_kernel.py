"""What a page sends, to a real kernel, over the widget protocol."""

import json
import time

from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

SETUP = """
import json
from ncbook import Recipe, SlidingSchedule
from ncbook.live import LiveLab

lab = LiveLab(Recipe(dataset="gaussians", classes=3, backbone="mlp", head="nearest", clouds=(6, 5), epochs=1000,
                     lr=0.02, schedule=SlidingSchedule(1.0, 0.1, 1000), device="cpu"))
print(lab.model_id)
"""
STATE = """
c = lab.trainer.controls
print(json.dumps(dict(steps=lab.trainer.steps, beta=c.beta, weight=c.densify_weight, manual=c.manual,
                      head=lab.trainer.recipe.head, status=lab.status, error=repr(lab.error), sent=lab._sent,
                      frames=len(lab.runs[-1].frames), runs=len(lab.runs))))
"""


class Page:
    """Sends to the kernel what the page sends."""

    def __init__(self, client):
        self.client = client
        self.model = self.run(SETUP).strip()

    def run(self, code):
        cell = new_code_cell(code)
        self.client.nb.cells.append(cell)
        self.client.execute_cell(cell, len(self.client.nb.cells) - 1)
        return "".join(output.text for output in cell.outputs if output.output_type == "stream")

    def do(self, what, value=None):
        content = {"comm_id": self.model, "data": {"method": "custom", "content": {"do": what, "value": value}}}
        self.client.kc.shell_channel.send(self.client.kc.session.msg("comm_msg", content))

    def state(self):
        return json.loads(self.run(STATE))

    def wait_for(self, condition):
        state = self.state()
        end = time.monotonic() + 30
        while not condition(state):
            assert time.monotonic() < end, json.dumps(state)
            time.sleep(0.05)
            state = self.state()
        return state


def test_hands_over_the_widget_protocol():
    client = NotebookClient(new_notebook(), kernel_name="python3", timeout=120)
    with client.setup_kernel():
        page = Page(client)
        assert page.state()["steps"] == 0
        page.do("hello")  # what a page says first makes a lab begin
        page.wait_for(lambda s: s["steps"] > 3 and s["frames"] > 3 and s["sent"] > 1)
        page.do("set", {"speed": "full"})
        page.do("set", {"beta": 2.25})
        assert page.wait_for(lambda s: s["manual"])["beta"] == 2.25
        page.do("set", {"densify_weight": 0.5})
        page.wait_for(lambda s: s["weight"] == 0.5)
        page.do("follow")
        page.wait_for(lambda s: not s["manual"] and s["beta"] <= 1)
        page.do("pause")
        steps = page.wait_for(lambda s: "paused" in s["status"])["steps"]
        page.do("step")
        page.wait_for(lambda s: s["steps"] in (steps + 1, steps + 2) and "paused" in s["status"])
        page.do("set", {"method": "fixed"})
        state = page.wait_for(lambda s: s["runs"] == 2)
        assert state["steps"] == 0 and state["head"] == "fixed" and state["error"] == "None"
