// The panels of the figure: which of them there is room for, and what each is made of.
import { keyOf, touchGeometry } from "./geometry.js";
import { touchPoints } from "./input.js";
import { h, menu } from "./parts.js";

export const NARROW = 540;
const COLUMN = 190; // pixels, of a small panel at least

const restOf = (panels) => panels.filter(({ kind }) => kind !== "geometry" && kind !== "curves");

const roomOf = (page) => (page.narrow ? 1 : Math.max(1, Math.floor(page.root.clientWidth / 2 / COLUMN)));

// [{panel, slot, area}] of what is to be shown; slot: which of two runs.
export function wantedPanels(page, pair) {
    const panels = pair[0].head.panels, wanted = [], rest = restOf(panels), two = pair.length > 1;
    const of = (kind) => panels.filter((panel) => panel.kind === kind);
    for (const panel of of("geometry")) pair.forEach((_, slot) => wanted.push({ panel, slot, area: "big" }));
    for (const panel of of("curves")) wanted.push({ panel, slot: 0, area: "curves" });
    if (two) for (const panel of of("barcode")) pair.forEach((_, slot) => wanted.push({ panel, slot, area: "part" }));
    else {
        const first = rest.find(({ name }) => name === page.front), room = roomOf(page);
        const order = first ? [first, ...rest.filter((panel) => panel !== first)] : rest;
        order.slice(0, room).forEach((panel, k) => wanted.push({ panel, slot: 0, area: "part", choice: k === 0 && rest.length > room }));
    }
    return wanted;
}

export function sectionOf(page, panel, slot, area, pair) {
    const canvas = h("canvas", { role: "img", tabindex: area === "big" || area === "curves" ? "0" : "-1" });
    const apart = pair.map((run, k) => difference(run.head.label, pair[1 - k]?.head.label));
    const two = { big: apart[slot], curves: `${apart[0]} ━━   ${apart[1]} ╍╍`, part: apart[slot] };
    const title = pair.length > 1 ? two[area] : panel.title;
    canvas.setAttribute("aria-label", panel.tip ? `${title}: ${panel.tip}` : title);
    const head = h("div", { class: "nc-title" }, h("span", { title: [title, panel.tip].filter(Boolean).join(": ") }, title));
    const element = h("section", { class: `nc-${area}`, "data-panel": panel.name, "data-slot": String(slot) }, head, canvas);
    if (panel.kind === "geometry") {
        touchGeometry(canvas, head, page, slot === 0);
        canvas.before(keyOf(pair[slot]));
    }
    if (panel.kind === "curves") readyCurves(page, canvas);
    if (panel.kind === "input") readyInput(page, canvas, head);
    return { panel, slot, canvas, element, head };
}

// In the place of the first small panel's title, where there is no room for all.
export function readyChoice(page, { panel, head }, panels) {
    const choice = menu("panel", (name) => {
        page.front = name;
        page.later();
    }, { title: "which panel is shown here" });
    choice.show(restOf(panels).map(({ name, title }) => [name, title]), panel.name);
    head.firstChild.replaceWith(choice.element);
}

function readyCurves(page, canvas) {
    const go = (event) => {
        const box = canvas.getBoundingClientRect();
        if (canvas.stepAt) page.goTo(page.run.near(canvas.stepAt(event.clientX - box.left)));
    };
    canvas.addEventListener("pointerdown", go);
    canvas.addEventListener("pointermove", (event) => { if (event.buttons) go(event); });
    canvas.addEventListener("keydown", (event) => {
        const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        if (!by) return;
        page.goTo(Math.max(0, Math.min(page.run.last, page.index(page.run) + by)));
        event.preventDefault();
    });
}

function readyInput(page, canvas, head) {
    touchPoints(canvas, {
        run: () => page.run, live: () => page.live, mode: () => page.mode, edit: (change) => page.ask("points", change),
        hold: (moved) => { page.moving = moved; page.later(); },
    });
    const { input, names } = page.run.head;
    if (input?.kind !== "points" || page.recorded) return;
    const choice = menu("what a click does", (mode) => { page.mode = mode; });
    choice.show([["drag", "drag points"], ...names.map((name, c) => [`add:${c}`, `add ${name}`]), ["remove", "remove"]], page.mode);
    head.append(choice.element);
}

// What the label of a run says that the label of another one does not.
function difference(label, other = "") {
    const [number, ...parts] = label.split(/: |, /), known = other.split(/: |, /);
    const own = parts.filter((part) => !known.includes(part)).join(", ");
    return own && number === known[0] ? own : [number, own].filter(Boolean).join(": ");
}
