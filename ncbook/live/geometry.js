// Features, class means and classifier in coordinates in which the nearest simplex ETF stands still.
import { contextOf, dot, line, nice, number, pale, text } from "./draw.js";
import { h } from "./parts.js";
import { REACH } from "./run.js";

const TRAIL = 60, SPECK = 22, MAGNIFIED = 4; // frames, pixels, times
export const VIEW = { yaw: 0.5, pitch: 0.35 };

// On the scale of a trained network, or a smaller one where that has no room. What is tiny there is under a lens as well.
export function drawGeometry(canvas, theme, run, index, options) {
    const got = contextOf(canvas), frame = run?.frames[index];
    if (!got || !frame) return;
    const { context, width, height } = got, head = run.head, few = head.names.length <= 4, size = run.fact(frame, "size") || 1e-30;
    const colors = head.colors.map(theme.of), space = run.dims === 3, span = Math.min(width, height * 0.97) / 2;
    const unit = (span * size) / Math.max(REACH[0] * head.scale, frame.reach * size, options.extent ?? 0);
    const place = (length, x, y) => projector(run, length, x, y, options.view ?? VIEW);
    const low = run.dims === 2 && head.names.length === 3 ? 0.02 : 0;
    const project = place(unit, width / 2, height * (0.5 + low)), parts = partsOf(run, frame);
    const means = parts.means.map(project), vertices = head.vertices.map((v) => project(v)), times = span / frame.reach / unit;
    canvas.spots = parts.features.map(project);
    if (options.regions && run.dims === 2 && head.names.length <= 3) shade(context, means, colors, width, height);
    if (size < 0.8 * head.scale) {
        outline(context, head.vertices.map((v) => project(v.map((x) => (x * head.scale) / size))), few, theme, 1);
        text(context, theme, "thin: usual size after training", 8, height - 9, { size: 11, color: theme.muted });
    }
    trails(context, run, index, project, colors, size);
    if (unit < SPECK) {
        canvas.spots.forEach(([x, y], k) => dot(context, x, y, 1.5, pale(colors[head.targets[k]], 0.8)));
        speck(context, theme, width / 2, height * (0.5 + low));
    } else {
        outline(context, vertices, space || few, theme);
        means.forEach((at, c) => line(context, [at, vertices[c]], theme.muted, 1, [3, 3]));
        vertices.forEach((at) => dot(context, at[0], at[1], 3, theme.faint));
        drawParts(context, theme, run, { ...parts, place: project, colors, spots: canvas.spots });
        names(context, theme, head, vertices, means, colors, width, height);
    }
    if (times >= MAGNIFIED) canvas.spots = lens(context, theme, run, { parts, place, times, reach: frame.reach, colors, width, height, from: project(Array(run.dims).fill(0)), few });
    if (options.marked >= 0 && canvas.spots[options.marked]) {
        const [x, y] = canvas.spots[options.marked];
        dot(context, x, y, 6, null, theme.ink, 2);
    }
    scaleBar(context, theme, size, unit, width, height);
}

function partsOf(run, frame) {
    const of = (name) => rows(frame[`geometry.${name}`], run.dims);
    return { features: of("features"), means: of("class means"), weights: of("weights") };
}

function drawParts(context, theme, run, { means, weights, place, colors, spots, small = 1 }) {
    weights.forEach((v, c) => diamond(context, place(v), colors[c], 8 * small));
    means.forEach((v, c) => {
        const [x, y] = place(v);
        dot(context, x, y, 9 * small, pale(colors[c], 0.35), colors[c], 2);
    });
    const order = spots.map((_, k) => k), space = run.dims === 3;
    if (space) order.sort((a, b) => spots[a][2] - spots[b][2]);
    for (const k of order) {
        const [x, y, depth = 0] = spots[k];
        dot(context, x, y, small * (space ? 2.2 + 0.5 * depth : 2.4), pale(colors[run.head.targets[k]], 0.8), theme.paper, 0.5);
    }
}

// All classes are too close together to be told apart on this scale.
function speck(context, theme, x, y) {
    dot(context, x, y, 12, null, theme.ink, 1.5);
    text(context, theme, "all dots of all classes", x, y + 22, { align: "center", bold: true });
}

// A magnified picture in the corner, with rays from what is magnified; returns where it has the dots.
function lens(context, theme, run, { parts, place, times, reach, colors, width, height, from, few }) {
    const side = Math.max(90, Math.min(0.46 * height, 0.4 * width)), left = width - side - 4, top = 4, ten = 10 ** Math.floor(Math.log10(times));
    const project = place(side / 2 / reach, left + side / 2, top + side / 2), spots = parts.features.map(project);
    for (const corner of [[left, top], [left + side, top + side]]) line(context, [from, corner], theme.faint, 1);
    context.fillStyle = theme.paper;
    context.fillRect(left, top, side, side);
    context.save();
    context.beginPath();
    context.rect(left, top, side, side);
    context.clip();
    outline(context, run.head.vertices.map((v) => project(v)), few, theme, 1);
    drawParts(context, theme, run, { ...parts, place: project, colors, spots, small: 0.7 });
    context.restore();
    context.strokeStyle = theme.ink;
    context.lineWidth = 1;
    context.strokeRect(left, top, side, side);
    text(context, theme, `the same, magnified ${Math.round(times / ten) * ten}×`, left + side, top + side + 10, { size: 12, align: "right", bold: true });
    return spots;
}

function rows(flat, dims) {
    const found = [];
    for (let k = 0; k < flat.length; k += dims) found.push(Array.from(flat.subarray(k, k + dims)));
    return found;
}

function projector(run, unit, x0, y0, view) {
    const [cy, sy, cp, sp] = [Math.cos(view.yaw), Math.sin(view.yaw), Math.cos(view.pitch), Math.sin(view.pitch)];
    return ([x, y, z]) => {
        if (z === undefined) return [x0 + unit * x, y0 - unit * y];
        const across = cy * x + sy * y, deep = cy * y - sy * x;
        return [x0 + unit * across, y0 - unit * (cp * z - sp * deep), -(cp * deep + sp * z)];
    };
}

function shade(context, means, colors, width, height) {
    const cell = 6;
    for (let x = 0; x < width; x += cell)
        for (let y = 0; y < height; y += cell) {
            const far = means.map((at) => (at[0] - x - cell / 2) ** 2 + (at[1] - y - cell / 2) ** 2);
            context.fillStyle = pale(colors[far.indexOf(Math.min(...far))], 0.13);
            context.fillRect(x, y, cell, cell);
        }
}

function outline(context, vertices, all, theme, thick = 2) {
    vertices.forEach((a, i) => vertices.slice(i + 1).forEach((b, k) => {
        const near = k === 0 || (i === 0 && k === vertices.length - 2);
        if (all || near) line(context, [a, b], theme.faint, thick);
    }));
}

// In the lengths of each frame; size: that of the frame that is shown.
function trails(context, run, index, project, colors, size) {
    const from = Math.max(0, index - TRAIL);
    const paths = run.frames.slice(from, index + 1).map((f) => {
        const times = run.fact(f, "size") / size;
        return rows(f["geometry.class means"], run.dims).map((v) => project(v.map((x) => times * x)));
    });
    for (let k = 1; k < paths.length; k++)
        paths[k].forEach((at, c) => line(context, [paths[k - 1][c], at], pale(colors[c], (0.7 * k) / paths.length), 2.5));
}

function diamond(context, [x, y], color, size = 8) {
    line(context, [[x - size, y], [x, y - size], [x + size, y], [x, y + size], [x - size, y]], color, 1.8);
}

// Outside the vertex and the mean of a class, and inside the picture.
function names(context, theme, head, vertices, means, colors, width, height) {
    if (vertices.length > 20) return;
    const inside = (v, most) => Math.max(9, Math.min(most - 9, v));
    vertices.forEach(([x, y], c) => {
        const dx = x - width / 2, dy = y - height / 2, far = Math.hypot(dx, dy) || 1;
        const out = ((means[c][0] - width / 2) * dx + (means[c][1] - height / 2) * dy) / far;
        const at = (Math.max(far, Math.min(out, 1.6 * far)) + 28) / far;
        text(context, theme, head.names[c], inside(width / 2 + at * dx, width), inside(height / 2 + at * dy, height),
            { color: colors[c], size: 15, align: "center", bold: true });
    });
}

function scaleBar(context, theme, size, unit, width, height) {
    if (!(size > 0)) return;
    const whole = (0.3 * width * size) / unit, length = nice(whole) > whole ? nice(whole / 2.5) : nice(whole);
    const pixels = (length / size) * unit, y = height - 8, end = width - 10;
    line(context, [[end - pixels, y - 4], [end - pixels, y], [end, y], [end, y - 4]], theme.muted, 1.5);
    text(context, theme, `${number(length)} in feature space`, end, y - 11, { color: theme.muted, size: 11, align: "right" });
}

// Turns a picture in space by hand and by keys; points out the sample under the pointer; the first has a switch.
export function touchGeometry(canvas, head, page, first) {
    const turn = (yaw, pitch) => {
        page.view.yaw += yaw;
        page.view.pitch = Math.max(-1.5, Math.min(1.5, page.view.pitch + pitch));
        page.later();
    };
    let last = null;
    canvas.addEventListener("pointerdown", (event) => {
        last = [event.clientX, event.clientY];
        canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
        if (last) {
            turn((last[0] - event.clientX) / 120, (event.clientY - last[1]) / 120);
            last = [event.clientX, event.clientY];
        } else if (first) mark(canvas, event, page);
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { last = null; });
    canvas.addEventListener("pointerleave", () => {
        page.marked = -1;
        page.later();
    });
    const keys = { ArrowLeft: [0.1, 0], ArrowRight: [-0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };
    canvas.addEventListener("keydown", (event) => {
        if (!keys[event.key]) return;
        turn(...keys[event.key]);
        event.preventDefault();
    });
    if (!first) return;
    const box = h("input", { type: "checkbox", checked: page.regions });
    box.addEventListener("change", () => {
        page.regions = box.checked;
        page.later();
    });
    head.append(h("label", { title: "colour the plane by the nearest class mean" }, box, " regions"));
}

// What is drawn, in few words that stay; more when the pointer rests on them.
export function keyOf(run) {
    const one = run.images.length ? "image" : run.head.input ? "point" : "sample";
    const entries = [
        ["●", `one ${one}`, `each dot is one training ${one} as the network sees it: its feature`],
        ["◯", "class mean", "each disc is the mean of the dots of a class; its trail shows where it was"],
        ["◇", "classifier", "each diamond is the row of the classifier for a class, turned and scaled to be comparable"],
        ["△", "most even (simplex ETF)", "simplex ETF, simplex equiangular tight frame: the corners lie as far apart as they can, all angles equal. Neural collapse ends there"],
    ];
    return h("div", { class: "nc-key" }, ...entries.map(([sign, words, title]) => h("span", { title }, h("i", {}, sign), ` ${words}`)));
}

function mark(canvas, event, page) {
    const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    const far = (canvas.spots ?? []).map(([a, b]) => Math.hypot(a - x, b - y)), best = far.indexOf(Math.min(...far));
    const marked = far[best] < 10 ? best : -1;
    if (marked === page.marked) return;
    page.marked = marked;
    page.later();
}
