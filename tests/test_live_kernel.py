"""The widget protocol: what a page sends, to a real kernel."""

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
print(json.dumps({w.description: w.model_id for row in lab.children for w in getattr(row, "children", ())}))
"""
STATE = """
c = lab.trainer.controls
print(json.dumps(dict(steps=lab.trainer.steps, beta=c.beta, weight=c.densify_weight, manual=c.manual,
                      head=lab.trainer.recipe.head, status=lab.status, error=repr(lab.error),
                      frames=len(lab.runs[-1].frames), runs=len(lab.runs))))
"""


class Page:
    """Sends to the kernel what widgets in a page send."""

    def __init__(self, client):
        self.client = client
        self.models = json.loads(self.run(SETUP))

    def run(self, code):
        cell = new_code_cell(code)
        self.client.nb.cells.append(cell)
        self.client.execute_cell(cell, len(self.client.nb.cells) - 1)
        return "".join(output.text for output in cell.outputs if output.output_type == "stream")

    def send(self, name, data):
        content = {"comm_id": self.models[name], "data": data}
        self.client.kc.shell_channel.send(self.client.kc.session.msg("comm_msg", content))

    def set(self, name, value, trait="value"):
        self.send(name, {"method": "update", "state": {trait: value}, "buffer_paths": []})

    def click(self, name):
        self.send(name, {"method": "custom", "content": {"event": "click"}})

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


def test_sliders_and_buttons_over_the_widget_protocol():
    client = NotebookClient(new_notebook(), kernel_name="python3", timeout=120)
    with client.setup_kernel():
        page = Page(client)
        page.click("Start")
        page.wait_for(lambda s: s["steps"] > 10 and s["frames"] > 2)
        page.set("β", 2.25)
        state = page.wait_for(lambda s: s["manual"])
        assert state["beta"] == 2.25
        page.set("weight", 0.5)
        page.wait_for(lambda s: s["weight"] == 0.5)
        page.click("Follow schedule")
        page.wait_for(lambda s: not s["manual"] and s["beta"] <= 1)
        page.click("Pause")
        steps = page.wait_for(lambda s: "paused" in s["status"])["steps"]
        page.click("Step")
        page.wait_for(lambda s: s["steps"] == steps + 1)
        page.set("frame", 1)
        page.wait_for(lambda s: "replay" in s["status"])
        page.set("method", 2, "index")
        state = page.wait_for(lambda s: s["runs"] == 2)
        assert state["steps"] == 0 and state["head"] == "fixed" and state["error"] == "None"
