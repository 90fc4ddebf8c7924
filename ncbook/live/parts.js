// Elements of the page: what rows of controls are made of. They tell what a hand does, and show what they are told.
import { number } from "./draw.js";

export function h(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    // JupyterLab asks the element that has the focus first, and would take its arrow keys.
    element.setAttribute("data-lm-suppress-shortcuts", "true");
    for (const [name, value] of Object.entries(properties)) {
        if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
        else if (name in element && typeof value !== "string") element[name] = value;
        else element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== null));
    return element;
}

export function button(words, press, properties = {}) {
    return h("button", { type: "button", onclick: press, ...properties }, words);
}

// A button that folds a row away, and back.
export function toggle(words, row) {
    const press = button(words, () => {
        row.hidden = !row.hidden;
        if (!row.hidden) row.scrollIntoView({ block: "nearest" });
        press.setAttribute("aria-expanded", String(!row.hidden));
    }, { "aria-expanded": String(!row.hidden) });
    return press;
}

const busy = (element) => element.getRootNode().activeElement === element;

// A menu of texts. `show` leaves it alone while a hand is at it.
export function menu(label, choose, properties = {}) {
    const select = h("select", { "aria-label": label, onchange: () => choose(select.value), ...properties });
    let known = "";
    const show = (options, value, off = false) => {
        const pairs = options.map((option) => (Array.isArray(option) ? option : [option, option]));
        if (JSON.stringify(pairs) !== known) {
            known = JSON.stringify(pairs);
            select.replaceChildren(...pairs.map(([key, words]) => h("option", { value: String(key) }, words)));
        }
        select.value = String(value);
        select.disabled = off;
    };
    return { element: select, show };
}

// A number with bounds, sent when it is finished: with Enter, or when the field is left.
export function field(label, send, properties = {}) {
    const input = h("input", { type: "text", inputmode: "decimal", "aria-label": label, autocomplete: "off", ...properties });
    let shown = null;
    const show = (value) => {
        if (busy(input)) return;
        shown = value;
        input.value = number(value, 4).replace("−", "-");
    };
    const finish = () => {
        const value = Number(input.value.trim().replace(",", "."));
        if (input.value.trim() === "" || !Number.isFinite(value)) show(shown);
        else if (value !== shown) send(value);
    };
    input.addEventListener("change", finish);
    input.addEventListener("keydown", (event) => {
        if (event.key === "Enter") {
            finish();
            input.select();
        } else if (event.key === "Escape") {
            input.blur();
            show(shown);
        }
    });
    return { element: input, show };
}

const STEPS = 400, DECADES = 4;

// Where a value stands on a slider of STEPS steps, and back. On the log scale the first step is 0.
function scaleOf({ low, high, log }) {
    if (!log) return { at: (v) => (STEPS * (v - low)) / (high - low || 1), value: (k) => low + ((high - low) * k) / STEPS };
    const least = high / 10 ** DECADES;
    return {
        at: (v) => (v < least / 2 ? 0 : Math.max(1, 1 + ((STEPS - 1) * Math.log10(v / least)) / DECADES)),
        value: (k) => (k < 0.5 ? 0 : least * 10 ** ((DECADES * (k - 1)) / (STEPS - 1))),
    };
}

// A slider with a field for its value and a mark where the schedule has it.
export function dial(name, send) {
    const range = h("input", { type: "range", min: "0", max: String(STEPS), step: "1", class: "nc-range" });
    const mark = h("span", { class: "nc-planned", title: "where the plan has it" });
    const words = h("b", { class: "nc-name" }), meaning = h("span", { class: "nc-meaning" });
    const set = (value) => {
        mine = { value, until: performance.now() + 1000 };
        send(value);
    };
    const typed = field(name, set, { class: "nc-value" });
    let scale = scaleOf({ low: 0, high: 1 }), held = false, mine = null; // what a hand has set and the kernel not yet
    const say = (value, label) => {
        range.setAttribute("aria-valuetext", number(value, 4));
        range.setAttribute("aria-label", label);
        typed.element.setAttribute("aria-label", `${label}, as a number`);
    };
    range.addEventListener("input", () => {
        const value = Number(scale.value(Number(range.value)).toPrecision(3));
        say(value, words.textContent);
        typed.show(value);
        set(value);
    });
    for (const begin of ["pointerdown", "keydown"]) range.addEventListener(begin, () => { held = true; });
    for (const end of ["pointerup", "keyup", "blur"]) range.addEventListener(end, () => { held = false; });
    const element = h("div", { class: "nc-dial", "data-dial": name }, h("span", { class: "nc-label" }, words, " ", meaning),
        h("span", { class: "nc-track" }, range, mark), typed.element);
    // idle: the label of the dial that is 0, so that this one has no effect
    const show = (spec, value, planned, idle = null) => {
        scale = scaleOf(spec);
        words.textContent = spec.label;
        meaning.textContent = idle ? `no effect while the ${idle} is 0` : spec.means[0];
        element.title = spec.means[1];
        range.setAttribute("aria-description", `${meaning.textContent}. ${spec.means[1]}`);
        element.classList.toggle("nc-idle", idle !== null);
        range.disabled = typed.element.disabled = spec.off;
        if (mine && (mine.value === value || performance.now() > mine.until)) mine = null;
        if (!held && !mine) {
            range.value = String(Math.round(scale.at(value)));
            typed.show(value);
            say(value, spec.label);
        }
        const there = Number.isFinite(planned) && !spec.off;
        mark.style.display = there ? "" : "none";
        if (there) mark.style.left = `calc(7px + (100% - 14px) * ${Math.min(1, scale.at(planned) / STEPS)})`;
    };
    return { element, show };
}

export function download(name, bytes, status) {
    const address = URL.createObjectURL(new Blob([bytes], { type: "text/html" }));
    status.replaceChildren(
        h("a", { href: address, target: "_blank", rel: "noopener" }, "Open the page"), " or ",
        h("a", { href: address, download: name }, `save ${name}`), ` (${Math.ceil(bytes.byteLength / 1000)} kB, plays without Python)`);
}
