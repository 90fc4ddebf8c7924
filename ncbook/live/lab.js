// The lab in a page: controls above, panels, replay below. It draws what it is told, and tells what a hand does.
import { themeOf } from "./draw.js";
import { VIEW, drawGeometry, touchGeometry } from "./geometry.js";
import { barcodeReach, drawBarcode, drawColumns, drawCurves, drawMatrix } from "./charts.js";
import { drawInput, touchPoints } from "./input.js";
import { button, dial, download, field, h, menu, toggle } from "./parts.js";
import { Run, bytesOf } from "./run.js";

const SLIM = 640, NARROW = 540, REST = 250, PLAY = 60; // pixels, pixels, milliseconds, milliseconds a frame

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

    get live() {
        return this.at === null && !this.recorded && (this.shown === null || this.state.live?.includes(this.shown));
    }

    build() {
        this.scenarios = h("div", { class: "nc-row nc-scenarios", role: "group", "aria-label": "scenarios" });
        this.play = button("▶ Play", () => this.pressPlay(), { class: "nc-play" });
        this.speed = menu("speed", (speed) => this.ask("set", { speed }));
        this.dials = h("div", { class: "nc-dials" });
        this.follow = button("Follow schedule", () => this.ask("follow"));
        this.extra = h("span", { class: "nc-extra" });
        this.main = h("div", { class: "nc-row nc-main" }, this.play, button("Step", () => this.goLive("step"), { class: "nc-step" }),
            button("Reset", () => this.goLive("reset")), this.speed.element, this.extra, this.dials, this.follow);
        this.words = h("span", { class: "nc-words", "aria-live": "polite" });
        this.again = button("Replay the beginning", () => this.playFrom(0), { class: "nc-again" });
        this.note = h("span", { class: "nc-note", role: "status" });
        this.look = h("div", { class: "nc-look" }, h("b", {}, "Look now "), this.words, " ", this.again, this.note);
        this.figure = h("div", { class: "nc-figure" });
        this.settings = h("div", { class: "nc-row nc-settings", hidden: true });
        this.fields = new Map();
        this.buildReplay();
        this.root.append(this.scenarios, this.main, this.look, this.figure, this.replay, this.more, this.settings);
        this.root.classList.toggle("nc-recorded", this.recorded);
        this.sections = new Map();
    }

    buildReplay() {
        this.playing = button("▷ Replay", () => this.playFrom(this.at), { class: "nc-replay-play" });
        this.scrub = h("input", { type: "range", min: "0", step: "1", value: "0", "aria-label": "replay, epoch", class: "nc-range" });
        this.scrub.addEventListener("input", () => this.goTo(Number(this.scrub.value)));
        this.when = h("span", { class: "nc-when" });
        this.now = button("Now", () => this.goTo(null), { title: "back to the run that is on" });
        this.which = menu("run", (id) => this.choose(id));
        this.other = menu("beside", (id) => this.compare(id));
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
            this.which.element, h("label", { class: "nc-beside" }, "beside ", this.other.element),
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
            this.scenarios.append(...Object.entries(state.scenarios).map(([name, tip]) => button(name, () => this.ask("scenario", name), { title: tip })));
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
        this.follow.hidden = !state.manual || state.plan === "by hand" || state.only.length > 0 && !this.dials.children.length;
    }

    buildSettings() {
        const made = Object.entries(this.state.controls).map(([name, spec]) => {
            const send = (value) => this.ask("set", { [name]: value });
            const control = spec.options ? menu(spec.label, send) : field(spec.label, send, { class: "nc-value" });
            this.fields.set(name, control);
            const label = h("label", { "data-control": name }, `${spec.label} `, control.element);
            if (this.state.only.includes(name)) this.extra.append(label);
            return label;
        });
        return [...made.filter((label) => label.parentNode !== this.extra),
            button("Defaults", () => this.ask("defaults"), { title: "every control as it was at first" })];
    }

    pressPlay() {
        const training = this.state.doing === "training";
        if (training && this.at === null) this.ask("pause");
        else this.goLive(training ? null : "start");
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
        const most = Math.max(...pair.map((one) => (one.head.clouds ? barcodeReach(one.frames[this.index(one)]) : 0)));
        for (const section of this.sections.values()) {
            const one = pair[section.slot] ?? run, at = this.index(one), { panel, canvas } = section;
            section.element.classList.toggle("nc-marked", frame.look[0] === panel.name && section.slot === 0);
            const options = { ...panel, most, ideal: one.head.ideal, view: this.view, regions: this.regions, small: this.state.only?.length };
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
        this.play.textContent = training && this.at === null ? "❚❚ Pause" : "▶ Play";
        this.play.disabled = state.doing === "finished" && this.at === null;
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
        this.now.hidden = this.recorded;
        this.which.show((state.runs ?? []).map(({ id, label }) => [id, label]), run.head.id);
        this.other.show([["", "nothing"], ...(state.runs ?? []).map(({ id, label }) => [id, label])], this.pair[1]?.head.id ?? "");
        Object.entries(state.dials ?? {}).forEach(([name, spec], k) => {
            const value = this.live && this.at === null ? spec.value : frame.dials[k];
            this.fields.get(name)?.show(spec, value, frame.planned[k]);
        });
    }

    // Panels for what is shown, made once; and their sizes.
    arrange(pair) {
        const wanted = this.wanted(pair), key = JSON.stringify(wanted);
        if (key !== this.arranged) {
            this.arranged = key;
            this.sections.clear();
            for (const { panel, slot, area } of wanted) this.sections.set(`${slot} ${panel.name}`, this.section(panel, slot, area, pair));
            this.figure.replaceChildren(...[...this.sections.values()].map(({ element }) => element));
        }
        this.fit(pair.length > 1);
    }

    wanted(pair) {
        const panels = pair[0].head.panels, width = this.root.clientWidth, wanted = [];
        const of = (kind) => panels.filter((panel) => panel.kind === kind);
        const rest = panels.filter(({ kind }) => kind !== "geometry" && kind !== "curves");
        for (const panel of of("geometry")) pair.forEach((run, slot) => wanted.push({ panel, slot, area: "big", title: run.head.label }));
        for (const panel of of("curves")) wanted.push({ panel, slot: 0, area: "curves" });
        if (pair.length > 1) for (const panel of of("barcode")) pair.forEach((_, slot) => wanted.push({ panel, slot, area: "part" }));
        else {
            const room = width < NARROW ? rest.length : Math.max(1, Math.floor(width / 2 / 190));
            const first = rest.findIndex(({ name }) => name === this.front);
            const order = first > 0 ? [rest[first], ...rest.filter((_, k) => k !== first)] : rest;
            order.slice(0, room).forEach((panel, k) => wanted.push({ panel, slot: 0, area: "part", hidden: k === 0 && order.length > room ? rest.map((p) => p.name) : null }));
        }
        return wanted;
    }

    section(panel, slot, area, pair) {
        const canvas = h("canvas", { role: "img", tabindex: area === "big" || area === "curves" ? "0" : "-1" });
        const apart = pair.map((run, k) => difference(run.head.label, pair[1 - k]?.head.label));
        const two = { big: apart[slot], curves: `${apart[0]} ━━   ${apart[1]} ╍╍`, part: apart[slot] };
        const title = pair.length > 1 ? two[area] : panel.title;
        canvas.setAttribute("aria-label", title);
        const head = h("div", { class: "nc-title", title }, h("span", {}, title));
        const element = h("section", { class: `nc-${area}`, "data-panel": panel.name, "data-slot": String(slot) }, head, canvas);
        if (panel.kind === "geometry") touchGeometry(canvas, head, this, slot === 0);
        if (panel.kind === "curves") this.readyCurves(canvas);
        if (panel.kind === "input") this.readyInput(canvas, head);
        if (area === "part" && pair.length === 1) this.readyChoice(panel, head, pair[0].head.panels);
        return { panel, slot, canvas, element };
    }

    readyChoice(panel, head, panels) {
        const rest = panels.filter(({ kind }) => kind !== "geometry" && kind !== "curves");
        if (this.root.clientWidth < NARROW || rest.length <= Math.max(1, Math.floor(this.root.clientWidth / 2 / 190))) return;
        const choice = menu("panel", (name) => {
            this.front = name;
            this.later();
        });
        choice.show(rest.map(({ name, title }) => [name, title]), panel.name);
        head.firstChild.replaceWith(choice.element);
    }

    readyCurves(canvas) {
        const go = (event) => {
            const box = canvas.getBoundingClientRect();
            if (canvas.stepAt) this.goTo(this.run.near(canvas.stepAt(event.clientX - box.left)));
        };
        canvas.addEventListener("pointerdown", go);
        canvas.addEventListener("pointermove", (event) => { if (event.buttons) go(event); });
        canvas.addEventListener("keydown", (event) => {
            const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
            if (!by) return;
            this.goTo(Math.max(0, Math.min(this.run.last, this.index(this.run) + by)));
            event.preventDefault();
        });
    }

    readyInput(canvas, head) {
        touchPoints(canvas, {
            run: () => this.run, live: () => this.live, mode: () => this.mode, edit: (change) => this.ask("points", change),
            hold: (moved) => { this.moving = moved; this.later(); },
        });
        const { input, names } = this.run.head;
        if (input?.kind !== "points" || this.recorded) return;
        const choice = menu("what a click does", (mode) => { this.mode = mode; });
        choice.show([["drag", "drag points"], ...names.map((name, c) => [`add:${c}`, `add ${name}`]), ["remove", "remove"]], this.mode);
        head.append(choice.element);
    }

    fit(two) {
        const width = this.root.clientWidth, narrow = width < NARROW, small = this.state.only?.length > 0;
        const outside = this.root.closest(".jp-WindowedPanel-outer, .jp-NotebookPanel-notebook");
        const room = (outside?.clientHeight || window.innerHeight) - (this.recorded ? 120 : 12);
        const rows = [this.scenarios, this.main, this.look, this.replay].reduce((sum, row) => sum + (row.offsetHeight ? row.offsetHeight + 4 : 0), 24);
        const most = small ? Math.min(300, 0.5 * width) : 0.62 * width;
        this.root.classList.toggle("nc-slim", width < SLIM);
        this.figure.classList.toggle("nc-narrow", narrow);
        this.figure.classList.toggle("nc-two", two && !narrow);
        this.figure.style.height = narrow ? "" : `${Math.round(Math.max(240, Math.min(room - rows, most)))}px`;
        const parts = [...this.sections.values()].filter(({ element }) => element.classList.contains("nc-part")).length;
        this.figure.style.setProperty("--nc-parts", String(Math.max(1, parts)));
        this.figure.classList.toggle("nc-bare", parts === 0);
    }
}

// What the label of a run says that the label of another one does not.
function difference(label, other = "") {
    const [number, ...parts] = label.split(/: |, /), known = other.split(/: |, /);
    return [number, parts.filter((part) => !known.includes(part)).join(", ")].join(": ");
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
