// Features, class means and classifier in coordinates in which the nearest simplex ETF stands still.
import { contextOf, dot, line, nice, number, pale, text } from "./draw.js";
import { h } from "./parts.js";

const TRAIL = 60; // frames
export const VIEW = { yaw: 0.5, pitch: 0.35 };

export function drawGeometry(canvas, theme, run, index, options) {
    const got = contextOf(canvas), frame = run?.frames[index];
    if (!got || !frame) return;
    const { context, width, height } = got, head = run.head, count = head.names.length;
    const colors = head.colors.map(theme.of), space = run.dims === 3;
    const project = projector(run, frame, width, height, options.view ?? VIEW);
    const vertices = head.vertices.map((v) => project(v));
    const means = rows(frame["geometry.class means"], run.dims).map((v) => project(v));
    canvas.spots = rows(frame["geometry.features"], run.dims).map((v) => project(v));
    if (options.regions && run.dims === 2 && count <= 3) shade(context, means, colors, width, height);
    outline(context, vertices, space || count <= 4, theme);
    trails(context, run, index, project, colors);
    means.forEach((at, c) => line(context, [at, vertices[c]], theme.muted, 1, [3, 3]));
    vertices.forEach((at) => dot(context, at[0], at[1], 3, theme.faint));
    rows(frame["geometry.weights"], run.dims).forEach((v, c) => diamond(context, project(v), colors[c]));
    means.forEach((at, c) => dot(context, at[0], at[1], 9, pale(colors[c], 0.35), colors[c], 2));
    const order = canvas.spots.map((_, k) => k);
    if (space) order.sort((a, b) => canvas.spots[a][2] - canvas.spots[b][2]);
    for (const k of order) {
        const [x, y, depth = 0] = canvas.spots[k];
        dot(context, x, y, space ? 2.2 + 0.5 * depth : 2.4, pale(colors[head.targets[k]], 0.8), theme.paper, 0.5);
    }
    names(context, theme, head, vertices, colors, width, height);
    if (options.marked >= 0 && canvas.spots[options.marked]) {
        const [x, y] = canvas.spots[options.marked];
        dot(context, x, y, 6, null, theme.ink, 2);
    }
    scaleBar(context, theme, run, frame, project.unit, width, height);
}

function rows(flat, dims) {
    const found = [];
    for (let k = 0; k < flat.length; k += dims) found.push(Array.from(flat.subarray(k, k + dims)));
    return found;
}

function projector(run, frame, width, height, view) {
    const unit = Math.min(width, height * 0.97) / (2 * frame.reach);
    const low = run.dims === 2 && run.head.names.length === 3 ? 0.02 : 0;
    const [cy, sy, cp, sp] = [Math.cos(view.yaw), Math.sin(view.yaw), Math.cos(view.pitch), Math.sin(view.pitch)];
    const project = ([x, y, z]) => {
        if (z === undefined) return [width / 2 + unit * x, height * (0.5 + low) - unit * y];
        const across = cy * x + sy * y, deep = cy * y - sy * x;
        return [width / 2 + unit * across, height / 2 - unit * (cp * z - sp * deep), -(cp * deep + sp * z)];
    };
    project.unit = unit;
    return project;
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

function outline(context, vertices, all, theme) {
    vertices.forEach((a, i) => vertices.slice(i + 1).forEach((b, k) => {
        const near = k === 0 || (i === 0 && k === vertices.length - 2);
        if (all || near) line(context, [a, b], theme.faint, 2);
    }));
}

function trails(context, run, index, project, colors) {
    const from = Math.max(0, index - TRAIL);
    const paths = run.frames.slice(from, index + 1).map((f) => rows(f["geometry.class means"], run.dims).map(project));
    for (let k = 1; k < paths.length; k++)
        paths[k].forEach((at, c) => line(context, [paths[k - 1][c], at], pale(colors[c], (0.7 * k) / paths.length), 2.5));
}

function diamond(context, [x, y], color, size = 8) {
    line(context, [[x - size, y], [x, y - size], [x + size, y], [x, y + size], [x - size, y]], color, 1.8);
}

function names(context, theme, head, vertices, colors, width, height) {
    vertices.forEach(([x, y], c) => {
        const dx = x - width / 2, dy = y - height / 2, far = Math.hypot(dx, dy) || 1;
        const at = [x + (30 * dx) / far, y + (30 * dy) / far];
        if (vertices.length <= 20) text(context, theme, head.names[c], ...at, { color: colors[c], size: 15, align: "center", bold: true });
    });
}

function scaleBar(context, theme, run, frame, unit, width, height) {
    const size = run.fact(frame, "size");
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

function mark(canvas, event, page) {
    const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    const far = (canvas.spots ?? []).map(([a, b]) => Math.hypot(a - x, b - y)), best = far.indexOf(Math.min(...far));
    const marked = far[best] < 10 ? best : -1;
    if (marked === page.marked) return;
    page.marked = marked;
    page.later();
}
