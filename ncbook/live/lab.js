// The lab in a page: controls above, panels, replay below. It draws what it is told, and tells what a hand does.
import { themeOf } from "./draw.js";
import { VIEW, drawGeometry } from "./geometry.js";
import { barcodeReach, drawBarcode, drawColumns, drawCurves, drawMatrix } from "./charts.js";
import { drawInput } from "./input.js";
import { NARROW, readyChoice, sectionOf, wantedPanels } from "./sections.js";
import { button, dial, download, field, h, menu, toggle } from "./parts.js";
import { Run, bytesOf } from "./run.js";

const SLIM = 770, WIDE = 1300, REST = 250, PLAY = 60; // pixels, pixels, milliseconds, milliseconds a frame

class Page {
    constructor(el, send, recorded) {
        Object.assign(this, { send, recorded, runs: new Map(), state: {}, shown: null, beside: null, at: null });
        Object.assign(this, { view: { ...VIEW }, regions: false, marked: -1, mode: "drag", moving: [], number: 0, told: 0 });
        this.root = el.appendChild(h("div", { class: "ncbook-lab" }));
        this.build();
        this.watch();
    }

    ask(what, value = null) {
        this.send({ do: what, value });
    }

    // What is shown: the run, the one beside it, and the index of a frame in each.
    get run() {
        return this.runs.get(this.shown ?? this.state.live?.at(-1));
    }

    get pair() {
        const live = this.state.live ?? [], auto = this.shown === null && live.length > 1 ? live[0] : null;
        const other = this.runs.get(this.beside ?? auto);
        return [this.run, ...(other && other !== this.run ? [other] : [])].filter((run) => run?.frames.length);
    }

    index(run) {
        if (this.at === null) return run.last;
        if (run === this.run) return Math.min(this.at, run.last);
        return run.near(this.run.frames[Math.min(this.at, this.run.last)].step[0]);
    }

    get narrow() {
        return this.root.clientWidth < NARROW;
    }

    get live() {
        return this.at === null && !this.recorded && (this.shown === null || this.state.live?.includes(this.shown));
    }

    get ended() {
        return this.state.doing === "finished" && this.at === null;
    }

    build() {
        this.scenarios = h("div", { class: "nc-row nc-scenarios", role: "group", "aria-label": "scenarios" });
        this.scene = menu("scenario", (name) => name && this.ask("scenario", name));
        this.play = button("▶ Play", () => this.pressPlay(), { class: "nc-play" });
        this.speed = menu("speed", (speed) => this.ask("set", { speed }));
        this.dials = h("div", { class: "nc-dials" });
        this.follow = button("Back to the plan", () => this.ask("follow"), { title: "let the scenario's plan move β and the weight again, as the marks under the sliders show" });
        this.extra = h("span", { class: "nc-extra" });
        this.main = h("div", { class: "nc-row nc-main" }, this.play, button("Step", () => this.goLive("step"), { class: "nc-step" }),
            button("Reset", () => this.goLive("reset"), { title: "begin this run anew" }), this.speed.element, this.extra, this.dials);
        this.caption = h("span", { class: "nc-caption" });
        this.about = h("div", { class: "nc-row nc-about" }, this.caption, this.follow);
        this.words = h("span", { class: "nc-words", "aria-live": "polite" });
        this.again = button("Replay the beginning", () => this.playFrom(0), { class: "nc-again" });
        this.note = h("span", { class: "nc-note", role: "status" });
        this.look = h("div", { class: "nc-look" }, h("b", {}, "Look now "), this.words, " ", this.again, this.note);
        this.figure = h("div", { class: "nc-figure" });
        this.settings = h("div", { class: "nc-row nc-settings", hidden: true });
        this.fields = new Map();
        this.buildReplay();
        this.root.append(this.scenarios, this.main, this.about, this.look, this.figure, this.replay, this.more, this.settings);
        this.root.classList.toggle("nc-recorded", this.recorded);
        this.sections = new Map();
    }

    buildReplay() {
        this.playing = button("▷ Replay", () => this.playFrom(this.at), { class: "nc-replay-play" });
        this.scrub = h("input", { type: "range", min: "0", step: "1", value: "0", "aria-label": "replay, epoch", class: "nc-range" });
        this.scrub.addEventListener("input", () => this.goTo(Number(this.scrub.value)));
        this.when = h("span", { class: "nc-when" });
        this.now = button("Back to live", () => this.goTo(null), { title: "back to the run that is on" });
        this.which = menu("run", (id) => this.choose(id), { title: "which run is shown; of those that are not kept, the oldest go when there are eight" });
        this.other = menu("beside", (id) => this.compare(id), { class: "nc-beside", title: "another run beside this one" });
        this.name = h("input", { type: "text", "aria-label": "name of the run", placeholder: "name this run" });
        this.name.addEventListener("change", () => this.ask("name", { id: this.run.head.id, name: this.name.value, kept: true }));
        this.out = h("span", { class: "nc-out", role: "status" });
        this.more = h("div", { class: "nc-row nc-more", hidden: true }, this.name,
            button("Keep", () => this.ask("name", { id: this.run.head.id, kept: true }), { title: "never drop this run for newer ones" }),
            button("Copy as code", () => this.ask("code")),
            button("Export", () => {
                this.out.textContent = "making a page of its own …";
                this.ask("export", this.pair.map((run) => run.head.id));
            }), this.out);
        this.replay = h("div", { class: "nc-row nc-replay" }, this.playing, this.scrub, this.when, this.now,
            this.which.element, this.other.element,
            toggle("Run …", this.more), toggle("Settings", this.settings));
    }

    watch() {
        this.onTheme = new MutationObserver(() => this.later());
        this.onTheme.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-name", "data-jp-theme-light"] });
        this.onSize = new ResizeObserver(() => this.later());
        this.onSize.observe(this.root);
        this.ask("hello");
    }

    close() {
        this.onTheme.disconnect();
        this.onSize.disconnect();
        clearInterval(this.timer);
        clearTimeout(this.rest);
        cancelAnimationFrame(this.next);
    }

    hear(message, buffers) {
        const { type } = message;
        if (type === "run") {
            const old = this.runs.get(message.run.id);
            this.runs.set(message.run.id, new Run(message.run));
            if (!old && !this.recorded && this.live) this.at = null;
        } else if (type === "frames") this.runs.get(message.id)?.take(message.keep, message.looks, buffers[0]);
        else if (type === "state") this.take(message);
        else if (type === "drawn") this.number = message.value ?? message.number;
        else if (type === "export") download(message.name, buffers[0], this.out);
        else if (type === "code") this.copy(message.code);
        this.later();
    }

    take(news) {
        const before = this.state;
        this.state = { ...before, ...news };
        if (news.live && before.live && news.live.at(-1) !== before.live.at(-1)) {
            this.shown = this.at = null; // a new run has begun
            this.beside = this.beside !== null && this.state.runs.some(({ id }) => id === this.beside) ? this.beside : null;
            this.stop();
        }
        for (const id of this.runs.keys()) if (!this.state.runs.some((run) => run.id === id)) this.runs.delete(id);
        this.showControls();
    }

    showControls() {
        const { state } = this;
        if (!state.controls) return;
        if (!this.scenarios.children.length && !state.only.length)
            this.scenarios.append(this.scene.element, ...Object.entries(state.scenarios).map(([name, tip]) => button(name, () => this.ask("scenario", name), { title: tip })));
        for (const chip of this.scenarios.querySelectorAll("button")) chip.setAttribute("aria-pressed", String(chip.textContent === state.scene));
        this.scene.show([...(state.scene ? [] : [["", "choose a scenario"]]), ...Object.keys(state.scenarios)], state.scene);
        this.root.classList.toggle("nc-small", state.only.length > 0);
        this.speed.show(state.speeds, state.speed);
        for (const name of Object.keys(state.dials))
            if (!this.fields.has(name) && (!state.only.length || state.only.includes(name))) {
                this.fields.set(name, dial(name, (value) => this.ask("set", { [name]: value })));
                this.dials.append(this.fields.get(name).element);
            }
        if (!this.settings.childElementCount) this.settings.append(...this.buildSettings());
        for (const [name, spec] of Object.entries(state.controls)) {
            const control = this.fields.get(name);
            if (spec.options) control?.show(spec.options, spec.value, spec.off);
            else if (control) {
                control.show(spec.value);
                control.element.disabled = spec.off;
            }
        }
        this.follow.hidden = state.plan === "by hand" || !this.dials.children.length;
        this.follow.style.visibility = state.manual ? "" : "hidden"; // keeps its room: nothing must move under a hand
    }

    buildSettings() {
        const made = Object.entries(this.state.controls).map(([name, spec]) => {
            const send = (value) => this.ask("set", { [name]: value });
            const control = spec.options ? menu(spec.label, send) : field(spec.label, send, { class: "nc-value" });
            this.fields.set(name, control);
            const label = h("label", { "data-control": name, title: spec.tip }, `${spec.label} `, control.element);
            if (this.state.only.includes(name)) this.extra.append(label);
            return label;
        });
        return [...made.filter((label) => label.parentNode !== this.extra),
            button("Defaults", () => this.ask("defaults"), { title: "every control as it was at first" })];
    }

    pressPlay() {
        if (this.ended) {
            this.ask("reset");
            return this.goLive("start");
        }
        const training = this.state.doing === "training";
        if (training && this.at === null) this.ask("pause");
        else this.goLive(training ? null : "start");
        return undefined;
    }

    goLive(order) {
        this.shown = this.at = null;
        this.stop();
        if (order) this.ask(order);
        this.later();
    }

    goTo(index) {
        this.stop();
        if (index === null) this.shown = null;
        this.at = index;
        this.later();
    }

    stop() {
        clearInterval(this.timer);
        this.timer = null;
    }

    playFrom(index) {
        const playing = this.timer !== null && this.timer !== undefined;
        this.stop();
        if (playing && index !== 0) return this.later();
        this.at = index === null || index >= this.run.last ? 0 : index;
        this.timer = setInterval(() => {
            if (this.at >= this.run.last) this.stop();
            else this.at += 1;
            this.later();
        }, PLAY);
        return this.later();
    }

    choose(id) {
        this.shown = Number(id);
        this.fetch(this.shown);
        if (this.state.live?.includes(this.shown)) this.shown = this.shown === this.state.live.at(-1) ? null : this.shown;
        this.goTo(this.shown === null ? null : (this.runs.get(this.shown)?.last ?? 0));
    }

    compare(id) {
        this.beside = id === "" ? null : Number(id);
        if (this.beside !== null) this.fetch(this.beside);
        this.later();
    }

    fetch(id) {
        if (!this.runs.has(id)) this.ask("want", id);
    }

    async copy(code) {
        try {
            await navigator.clipboard.writeText(code);
            this.out.textContent = "copied: paste it into a cell";
        } catch {
            const box = h("textarea", { rows: "6", readonly: "", "aria-label": "code" });
            box.value = code;
            this.out.replaceChildren(box);
        }
    }

    later() {
        if (this.next) return;
        this.next = requestAnimationFrame(() => {
            this.next = null;
            this.draw();
        });
    }

    draw() {
        const pair = this.pair;
        if (!pair.length || !this.root.isConnected) return;
        const run = pair[0], index = this.index(run), frame = run.frames[index];
        this.arrange(pair);
        this.showFrame(run, frame, index);
        const theme = themeOf(this.root);
        const shown = (one) => one.frames[this.index(one)], two = pair.length > 1; // on one scale, so that what is tiny looks tiny
        const most = two ? Math.max(...pair.map((one) => (one.head.clouds ? barcodeReach(one, shown(one)) : 0))) : undefined;
        const extent = two ? Math.max(...pair.map((one) => one.extent(shown(one)))) : undefined;
        for (const section of this.sections.values()) {
            const one = pair[section.slot] ?? run, at = this.index(one), { panel, canvas } = section;
            section.element.classList.toggle("nc-marked", frame.look[0] === panel.name && section.slot === 0);
            const options = { ...panel, most, extent, ideal: one.head.ideal, view: this.view, regions: this.regions, small: this.state.only?.length };
            options.marked = one === run ? this.marked : -1;
            if (panel.kind === "geometry") drawGeometry(canvas, theme, one, at, options);
            else if (panel.kind === "curves") drawCurves(canvas, theme, pair.map((r) => ({ run: r, index: this.index(r) })), options);
            else if (panel.kind === "barcode") drawBarcode(canvas, theme, one, at, options);
            else if (panel.kind === "matrix") drawMatrix(canvas, theme, one, at, options);
            else if (panel.kind === "columns") drawColumns(canvas, theme, one, at, options);
            else drawInput(canvas, theme, one, at, { ...options, points: this.pointsOf(one), held: new Set(this.moving.map(([k]) => k)) });
        }
        this.answer();
    }

    pointsOf(run) {
        if (!this.moving.length || run.head.input?.kind !== "points") return null;
        const points = run.head.input.points.slice();
        for (const [k, x, y] of this.moving) points[k] = [x, y];
        return points;
    }

    // Not each time: an answer makes the kernel busy, then idle, and to show that costs JupyterLab half a drawing.
    answer() {
        clearTimeout(this.rest);
        const tell = () => {
            if (this.number === this.told) return;
            this.told = this.number;
            this.ask("drawn", this.number);
        };
        if (this.number >= this.told + 3) tell();
        else this.rest = setTimeout(tell, REST);
    }

    showFrame(run, frame, index) {
        const { state } = this, training = state.doing === "training";
        this.play.textContent = this.ended ? "↻ Again" : training && this.at === null ? "❚❚ Pause" : "▶ Play";
        this.play.title = this.ended ? "the run has reached its last epoch: train anew, with what the controls show" : "";
        if (this.words.textContent !== frame.look[1]) this.words.textContent = frame.look[1];
        this.again.hidden = state.doing !== "finished" || this.timer;
        const stopped = state.doing?.startsWith("stopped") ? state.doing : state.note;
        if (this.note.textContent !== (stopped ?? "")) this.note.textContent = stopped ?? "";
        this.note.classList.toggle("nc-failed", Boolean(state.failed));
        this.scrub.max = String(run.last);
        if (this.scrub.value !== String(index)) this.scrub.value = String(index);
        const epoch = `epoch ${frame.epoch[0].toFixed(2)}`, step = `step ${frame.step[0]}`;
        this.when.textContent = `${epoch} of ${run.head.epochs}, ${step}`;
        this.scrub.setAttribute("aria-valuetext", `${epoch}, ${step}`);
        this.playing.textContent = this.timer ? "❚❚ Replay" : "▷ Replay";
        this.now.style.visibility = this.live ? "hidden" : ""; // keeps its room: the picture must not jump
        if (this.caption.textContent !== run.head.caption) this.caption.textContent = run.head.caption;
        this.about.hidden = !run.head.caption && this.follow.hidden;
        this.which.element.hidden = this.other.element.hidden = !((state.runs ?? []).length > 1);
        this.now.hidden = this.recorded;
        this.which.show((state.runs ?? []).map(({ id, label }) => [id, label]), run.head.id);
        this.other.show([["", "beside: none"], ...(state.runs ?? []).map(({ id, label }) => [id, label])], this.pair[1]?.head.id ?? "");
        const dials = state.dials ?? {}, places = Object.keys(dials);
        const valueOf = (name) => (this.live && this.at === null ? dials[name].value : frame.dials[places.indexOf(name)]);
        for (const [name, spec] of Object.entries(dials)) {
            const idle = spec.needs && valueOf(spec.needs) === 0 ? dials[spec.needs].label : null;
            this.fields.get(name)?.show(spec, valueOf(name), frame.planned[places.indexOf(name)], idle);
        }
    }

    // Panels for what is shown, made once; and their sizes.
    arrange(pair) {
        const wanted = wantedPanels(this, pair), key = JSON.stringify([wanted, pair.map((run) => run.head.label)]);
        if (key !== this.arranged) {
            this.arranged = key;
            this.sections.clear();
            for (const { panel, slot, area, choice } of wanted) {
                const section = sectionOf(this, panel, slot, area, pair);
                if (choice) readyChoice(this, section, pair[0].head.panels);
                this.sections.set(`${slot} ${panel.name}`, section);
            }
            this.figure.replaceChildren(...[...this.sections.values()].map(({ element }) => element));
        }
        this.fit(pair.length > 1);
    }

    fit(two) {
        const width = this.root.clientWidth, { narrow } = this, small = this.state.only?.length > 0;
        const outside = this.root.closest(".jp-WindowedPanel-outer, .jp-NotebookPanel-notebook");
        const room = (outside?.clientHeight || window.innerHeight) - (this.recorded ? 120 : 12);
        const rows = [this.scenarios, this.main, this.about, this.look, this.replay].reduce((sum, row) => sum + (row.offsetHeight ? row.offsetHeight + 4 : 0), 24);
        const most = small ? Math.min(300, 0.5 * width) : 0.62 * width;
        this.root.classList.toggle("nc-slim", width < SLIM);
        if (narrow && this.follow.parentNode !== this.main) this.dials.before(this.follow);
        else if (!narrow && this.follow.parentNode !== this.about) this.about.append(this.follow);
        this.root.classList.toggle("nc-wide", width >= WIDE);
        this.figure.classList.toggle("nc-narrow", narrow);
        this.figure.classList.toggle("nc-two", two && !narrow);
        this.figure.style.height = narrow ? "" : `${Math.round(Math.max(240, Math.min(room - rows, most)))}px`;
        const parts = [...this.sections.values()].filter(({ element }) => element.classList.contains("nc-part")).length;
        this.figure.style.setProperty("--nc-parts", String(Math.max(1, parts)));
        this.figure.classList.toggle("nc-bare", parts === 0);
    }
}

function render({ model, el }) {
    const page = new Page(el, (message) => model.send(message), false);
    const hear = (message, buffers) => page.hear(message, buffers ?? []);
    model.on("msg:custom", hear);
    return () => {
        model.off("msg:custom", hear);
        page.close();
    };
}

// The same without a kernel: what it would have said stands in the page.
export function replay(el, messages) {
    const page = new Page(el, () => {}, true);
    for (const [message, buffers] of messages) page.hear(message, buffers.map((text) => bytesOf(text).buffer));
    page.goTo(0);
}

export default { render };
