// What the explorers share: elements, controls, things to drag. It needs neither a kernel nor a library.

const STYLE = `
:host { all: initial; display: block; max-width: 900px; font: 14px/1.45 var(--jp-ui-font-family, system-ui, sans-serif);
    color: var(--ink); background: var(--paper); container-type: inline-size;
    --ink: var(--jp-content-font-color1, #222); --soft: var(--jp-content-font-color2, #5c5c5c);
    --paper: var(--jp-layout-color0, #fff); --raised: var(--jp-layout-color2, #eee);
    --rule: var(--jp-border-color1, #bdbdbd); --accent: var(--jp-brand-color1, #1976d2); }
@media (prefers-color-scheme: dark) { :host {
    --ink: var(--jp-content-font-color1, #e6e6e6); --soft: var(--jp-content-font-color2, #adadad);
    --paper: var(--jp-layout-color0, #161616); --raised: var(--jp-layout-color2, #333);
    --rule: var(--jp-border-color1, #5a5a5a); --accent: var(--jp-brand-color1, #64b5f6); } }
.bar, .panels { display: flex; flex-wrap: wrap; gap: 6px 16px; align-items: center; padding: 4px 2px; }
.panels { gap: 8px; align-items: flex-start; }
.panels > * { flex: 1 1 300px; min-width: 0; max-width: 445px; }
label { display: inline-flex; gap: 6px; align-items: center; }
label output { min-width: 3.2em; font-variant-numeric: tabular-nums; }
input { accent-color: var(--accent); margin: 0; }
input[type=range] { width: 108px; height: 24px; touch-action: pan-y; }
input[type=checkbox] { width: 18px; height: 18px; }
button, select { font: inherit; color: var(--ink); background: var(--raised); border: 1px solid var(--rule);
    border-radius: 4px; padding: 3px 12px; min-height: 30px; }
button[aria-pressed=true] { background: var(--accent); color: var(--paper); }
:focus { outline: none; }
:is(button, select, input):focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
p { margin: 2px; }
p.soft { color: var(--soft); font-size: 13px; }
:host([data-still]) p.soft { display: none; }
[role=status] { min-height: 1.45em; font-weight: 600; }
data { font-variant-numeric: tabular-nums; font-weight: 600; }
svg { display: block; width: 100%; overflow: hidden; user-select: none; -webkit-user-select: none; }
svg text { font: 12px var(--jp-ui-font-family, system-ui, sans-serif); fill: var(--ink); }
svg text.name { font-size: 14px; font-weight: 700; paint-order: stroke; stroke: var(--paper); stroke-width: 3px; }
svg text.inside { font-weight: 700; fill: #fff; pointer-events: none; }
.handle { cursor: grab; }
.handle:active { cursor: grabbing; }
.hit { fill: transparent; stroke: none; }
.ring { fill: none; stroke: var(--accent); stroke-width: 3; visibility: hidden; }
.handle:focus-visible .ring { visibility: visible; }
@container (max-width: 430px) { .bar { gap: 4px 9px; } label { gap: 5px; } label output { min-width: 2.6em; } }
.axis { stroke: var(--rule); stroke-width: 1; }
`;
const DRAWN = new Set(["svg", "g", "path", "circle", "line", "rect", "text", "polygon", "title"]);
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, -1], ArrowUp: [0, 1],
    PageDown: [0, -10], PageUp: [0, 10] };

/** An HTML or SVG element with attributes, where functions are listeners, and children. */
export function make(tag, attributes = {}, ...children) {
    const node = DRAWN.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag)
        : document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
        if (typeof value === "function") node.addEventListener(key, value);
        else node.setAttribute(key, value);
    }
    node.append(...children);
    return node;
}

export function put(node, attributes) {
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
}

/** A colour a little nearer to the ink, so that lines in it are seen on light and on dark. */
export function shade(color) {
    return `color-mix(in oklab, ${color} 88%, var(--ink))`;
}

/** A number as one reads it: a true minus sign, and no minus before zeros. */
export function number(x, digits = 2) {
    const text = x.toFixed(digits);
    return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}

/** A number in a sentence: `show` writes it with some digits, `value` keeps all of them. */
export function fact(name, digits = 4) {
    const node = make("data", { "data-name": name });
    node.show = (x) => {
        node.value = x;
        node.textContent = number(x, digits);
    };
    return node;
}

/** A line that is read out when it changes, and so should change only with its meaning. */
export function status() {
    const node = make("p", { role: "status" });
    node.say = (text) => {
        if (node.textContent !== text) node.textContent = text;
    };
    return node;
}

/** A panel of a picture in its own units, which the page scales. */
export function panel(label, wide, high, ...children) {
    return make("svg", { viewBox: `0 0 ${wide} ${high}`, role: "group", "aria-label": label }, ...children);
}

/** A range input; `text` says what a value means. `show` sets it without calling back. */
export function slider(name, { min, max, step, text = String }, changed) {
    const output = make("output", { "aria-hidden": true });
    const input = make("input", { type: "range", min, max, step, "aria-label": name, input: () => {
        tell();
        changed(Number(input.value));
    } });
    const tell = () => {
        output.textContent = text(Number(input.value));
        input.setAttribute("aria-valuetext", output.textContent);
    };
    const node = make("label", {}, name, input, output);
    node.show = (value, least = min) => {
        input.min = least;
        input.value = value;
        tell();
    };
    return node;
}

export function button(text, pressed) {
    return make("button", { type: "button", click: pressed }, text);
}

/** A button that calls `step(seconds)` before each picture, until it is pressed again or the explorer has gone. */
export function player(start, stop, step) {
    let before = null;
    const tell = () => {
        node.textContent = before === null ? start : stop;
        node.setAttribute("aria-pressed", before !== null);
    };
    const tick = (now) => {
        if (before === null) return;
        if (!node.isConnected) return node.halt();
        step(Math.min((now - before) / 1000, 0.1));
        before = now;
        requestAnimationFrame(tick);
    };
    const node = button(start, () => {
        if (before !== null) return node.halt();
        before = performance.now();
        tell();
        requestAnimationFrame(tick);
    });
    node.halt = () => {
        before = null;
        tell();
    };
    tell();
    return node;
}

/** Lets a part of a panel be moved by pointer, touch and arrow keys.
 *
 * units: a place in the panel -> a place in the units of the data; at(): where it is; to(x, y): move it there;
 * grasp(): before a drag and before each key. An arrow key moves it by `step`, with Shift by ten. `line`: it moves
 * along one axis, as then all arrows, Home and End do.
 */
export function draggable(handle, { units, at, to, grasp = () => {}, step, line = false }) {
    const pointer = (event) => {
        const place = new DOMPoint(event.clientX, event.clientY);
        return units(place.matrixTransform(handle.ownerSVGElement.getScreenCTM().inverse()));
    };
    let away = null;
    const release = () => { away = null; };
    const listeners = {
        pointerdown: (event) => {
            if (event.button) return;
            handle.setPointerCapture(event.pointerId);
            handle.focus({ preventScroll: true });
            event.preventDefault();
            grasp();
            const [x, y] = pointer(event), [u, v] = at();
            away = [u - x, v - y];
        },
        pointermove: (event) => {
            if (!away) return;
            const [x, y] = pointer(event);
            to(x + away[0], y + away[1]);
        },
        pointerup: release,
        pointercancel: release,
        keydown: (event) => {
            if (event.ctrlKey || event.altKey || event.metaKey) return;
            const [u, v] = at(), end = { Home: -Infinity, End: Infinity }[event.key];
            if (line && end) to(end, v);
            else if (event.key in ARROWS) {
                const size = step * (event.shiftKey ? 10 : 1), [dx, dy] = ARROWS[event.key].map((d) => d * size);
                grasp();
                to(u + dx + (line ? dy : 0), v + dy);
            } else return;
            event.preventDefault();
        },
    };
    // Not by CSS: browsers do not heed touch-action on parts of an SVG.
    handle.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });
    put(handle, { class: "handle", tabindex: 0, role: "slider" });
    for (const [type, listener] of Object.entries(listeners)) handle.addEventListener(type, listener);
    return handle;
}

/** A dot to drag: its place, and what a screen reader says of it, are set by `show`. */
export function dot(name, color, radius, options) {
    const ring = make("circle", { class: "ring", r: radius + 5 }), hit = make("circle", { class: "hit" });
    const node = draggable(make("g", {}, hit, ring, make("circle", { class: "dot", r: radius, fill: color,
        stroke: "var(--paper)", "stroke-width": 1.5 })), options);
    put(node, { "aria-label": name, "aria-roledescription": "point to move" });
    node.show = ([px, py], [x, y], [least, most], { digits = 2, more = "" } = {}) => {
        put(node, { transform: `translate(${px} ${py})`, "aria-valuemin": least, "aria-valuemax": most,
            "aria-valuenow": x, "aria-valuetext": `x ${number(x, digits)}, y ${number(y, digits)}${more}` });
    };
    return node;
}

/** Lets each dot be grasped from as far around as no other is nearer, up to the size of a finger. */
export function spread(dots, places) {
    dots.forEach((node, i) => {
        const far = places.filter((_, j) => j !== i).map(([x, y]) => Math.hypot(x - places[i][0], y - places[i][1]));
        node.firstChild.setAttribute("r", Math.max(7, Math.min(44, ...far) / 2));
    });
}

/** Makes many dots one stop of the Tab key; Enter goes on to the next of them, Shift+Enter back. */
export function rove(dots) {
    const choose = (chosen) => dots.forEach((node) => node.setAttribute("tabindex", node === chosen ? 0 : -1));
    dots.forEach((node, i) => {
        node.addEventListener("focus", () => choose(node));
        node.addEventListener("keydown", (event) => {
            if (event.key === "Enter") dots.at((i + (event.shiftKey ? -1 : 1)) % dots.length).focus();
        });
    });
    choose(dots[0]);
}

/** The lines of an arrow, as the `d` of a path; nothing for one too short to be seen. */
export function arrow(x, y, dx, dy) {
    const length = Math.hypot(dx, dy);
    if (length < 1) return "";
    const [u, v] = [dx / length, dy / length], size = Math.min(6, length);
    const barb = (side) => `L${x + dx - size * (u - side * 0.6 * v)} ${y + dy - size * (v + side * 0.6 * u)}`;
    return `M${x} ${y}L${x + dx} ${y + dy}${barb(1)}M${x + dx} ${y + dy}${barb(-1)}`;
}

/** Puts an explorer into each place on the page that waits for one, over the still picture that it has. */
export function start(name, build) {
    for (const host of document.querySelectorAll(`[data-explorer="${name}"]`)) {
        if (host.shadowRoot) continue;
        const parts = build(JSON.parse(host.dataset.start));
        host.attachShadow({ mode: "open" }).append(make("style", {}, STYLE), ...parts);
        host.setAttribute("data-lm-suppress-shortcuts", "true"); // in JupyterLab arrow keys would choose another cell
    }
}
