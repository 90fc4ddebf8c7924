"""A notebook in a real JupyterLab, in headless Chromium, for the tests that need a page."""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

import nbformat
from playwright.sync_api import TimeoutError, sync_playwright

# Where there is no GPU, SwiftShader for scenes, but not for putting the page together: that would take half a core.
FLAGS = ["--no-sandbox", "--disable-dev-shm-usage", "--use-gl=angle", "--use-angle=swiftshader",
         "--enable-unsafe-swiftshader", "--disable-gpu-compositing"]
NOTEBOOK = "window.jupyterapp?.shell?.currentWidget"
SHOW_LAB = f"""() => {{
    const notebook = {NOTEBOOK}.content;
    const made = (cell) => cell.model.sharedModel.source.includes("lab = LiveLab");
    notebook.activeCellIndex = notebook.widgets.findIndex(made);
    return notebook.scrollToItem(notebook.activeCellIndex, "start");
}}"""
OUTPUTS = f"""() => {NOTEBOOK}.content.widgets.map(
    (cell) => JSON.stringify(cell.model.sharedModel.outputs ?? '').slice(0, 500))"""
PATIENCE = 120_000  # ms


@contextmanager
def jupyter_lab(folder):
    """A JupyterLab that knows no configuration but its own; yields the address of its notebook."""
    quiet = folder / "settings" / "@jupyterlab" / "apputils-extension"
    quiet.mkdir(parents=True)
    (quiet / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    environment = os.environ | {
        "JUPYTER_CONFIG_DIR": str(folder / "config"), "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"), "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--LabApp.expose_app_in_browser=True",
               f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}",
               f"--ServerApp.root_dir={folder / 'root'}", "--ServerApp.allow_root=True"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            address = f"http://127.0.0.1:{port}"
            end = time.monotonic() + 60
            while True:
                try:
                    urllib.request.urlopen(f"{address}/api?token={token}").close()
                    break
                except OSError:
                    assert server.poll() is None and time.monotonic() < end, (folder / "log").read_text()
                    time.sleep(0.2)
            yield f"{address}/lab/tree/notebook.ipynb?token={token}&reset"
        finally:
            server.terminate()
            server.wait(30)


class Lab:
    """The page that a reader has open, and the kernel behind it."""

    def __init__(self, page, browser, folder):
        self.page, self.browser, self.folder, self.faults = page, browser, folder, []
        page.on("pageerror", lambda error: self.faults.append(str(error)))

    def kernel(self, expression):
        """What a Python expression is worth in the kernel, while training goes on."""
        content = self.page.evaluate(f"""async (code) => {{
            const kernel = {NOTEBOOK}?.sessionContext.session.kernel;
            const reply = await kernel.requestExecute({{code: "import json", user_expressions: {{value: code}}}}).done;
            return reply.content.user_expressions.value;
        }}""", f"json.dumps({expression})")
        assert content["status"] == "ok", content
        return json.loads(eval(content["data"]["text/plain"]))

    def wait_for(self, condition, what):
        end = time.monotonic() + PATIENCE / 1000
        while not condition():
            assert time.monotonic() < end, f"{what} did not happen; status: {self.status()}"
            time.sleep(0.1)

    def status(self):
        return self.page.locator(".nc-when").inner_text() + " " + self.page.locator(".nc-note").inner_text()

    def click(self, text):
        self.page.locator(".ncbook-lab button", has_text=text).first.click()

    def dial(self, name):
        """The slider of a dial and the field beside it."""
        found = self.page.locator(f".ncbook-lab [data-dial={name}] input")
        return found.nth(0), found.nth(1)

    def step(self):
        """The step of the frame that is shown."""
        return int(self.page.locator(".nc-when").inner_text().rsplit(" ", 1)[1])

    def picture(self, panel="geometry"):
        return self.page.evaluate("(name) => document.querySelector(`[data-panel=${name}] canvas`).toDataURL()", panel)

    def words(self, panel):
        """What was last written into a panel: texts with their boxes, [words, left, top, right, bottom]."""
        return self.page.evaluate("(name) => document.querySelector(`[data-panel=${name}] canvas`).words", panel)


# Keeps what is written on each canvas since it was last cleared.
LISTEN = """() => {
    const paper = CanvasRenderingContext2D.prototype, { clearRect, fillText } = paper;
    paper.clearRect = function (...box) {
        this.canvas.words = [];
        return clearRect.apply(this, box);
    };
    paper.fillText = function (words, x, y) {
        const { width } = this.measureText(words), size = parseFloat(this.font.match(/([\\d.]+)px/)[1]);
        const left = x - { left: 0, center: width / 2, right: width }[this.textAlign];
        this.canvas.words?.push([words, left, y - 0.4 * size, left + width, y + 0.4 * size]);
        return fillText.call(this, words, x, y);
    };
}"""


@contextmanager
def open_lab(folder, chromium, notebook):
    """Run all cells of a notebook, bring the one that makes `lab` into view, and yield a `Lab`."""
    (folder / "root").mkdir()
    nbformat.write(notebook, folder / "root" / "notebook.ipynb")
    with jupyter_lab(folder) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(PATIENCE)
        page.add_init_script(f"({LISTEN})()")
        console = []
        page.on("console", lambda message: console.append(message.text))
        page.goto(address)
        page.wait_for_function(f"() => {NOTEBOOK}?.sessionContext?.session?.kernel?.status === 'idle'")
        assert page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
        end = time.monotonic() + PATIENCE / 1000
        while True:
            # Again while outputs above it still grow: JupyterLab hides cells that are out of view.
            page.evaluate(SHOW_LAB)
            try:
                page.wait_for_selector(".ncbook-lab canvas", timeout=10_000)
                break
            except TimeoutError:
                assert time.monotonic() < end, f"no lab; {page.evaluate(OUTPUTS)}; console: {console}"
        yield Lab(page, browser, folder)
        browser.close()
    log = (folder / "log").read_text()
    assert "rate exceeded" not in log, log
