// The whole run over its steps, the barcode, and values of classes or pairs of classes.
import { contextOf, dot, line, nice, number, pale, text } from "./draw.js";

const SMOOTH = 0.25; // the share of a new frame in a smoothed curve

const across = (step) => Math.log10(1 + step);

// runs: [{run, index}], one or two, the first drawn solid and the second dashed, on shared axes.
export function drawCurves(canvas, theme, runs, options) {
    const got = contextOf(canvas);
    if (!got || !runs.length || !runs[0].run.frames.length) return;
    const { context, width, height } = got, two = runs.length > 1, words = two || width < 330 ? "name" : width < 560 ? "short" : "long";
    const right = { long: 218, short: 146, name: two && width >= 220 ? 124 : 88 }[words] * theme.zoom, left = 34 * theme.zoom;
    const most = Math.max(100, ...runs.map(({ run }) => run.frames[run.last].step[0]));
    const x = (step) => left + ((width - left - right) * across(step)) / across(most);
    const strips = layOut(runs[0].run, height - 20, options.small);
    canvas.stepAt = (px) => 10 ** (((px - left) / (width - left - right)) * across(most)) - 1;
    shadeManual(context, theme, runs[0].run, x, strips);
    for (const strip of strips) drawStrip(context, theme, runs, { ...strip, words }, x, left, width - right);
    nameManual(context, theme, runs[0].run, x, strips[0]);
    const bottom = strips.at(-1).bottom;
    for (let step = 1; step <= most; step *= 10) {
        line(context, [[x(step), bottom], [x(step), bottom + 3]], theme.muted);
        if (x(step) < width - right - 4) text(context, theme, String(step), x(step), bottom + 11, { color: theme.muted, size: 11, align: "center" });
    }
    text(context, theme, "step", width - right + 14, bottom + 11, { color: theme.muted, size: 11 });
    const { run, index } = runs[0], now = x(run.frames[index].step[0]);
    line(context, [[now, strips[0].top], [now, bottom]], theme.ink, 1, index < run.last ? [] : [2, 3]);
}

function layOut(run, height, small) {
    const curves = run.head.curves.map((curve, k) => ({ ...curve, of: (f) => f.metrics[k] }));
    const linear = curves.filter((c) => c.axis === "linear"), log = curves.filter((c) => c.axis === "log");
    const dials = run.head.clouds ? run.head.dials.map((name, k) => ({ name, k, of: (f) => f.dials[k] })) : [];
    const wanted = [
        linear.length && { kind: "linear", curves: linear, share: 1 },
        log.length && { kind: "log", curves: log, share: small ? 1.6 : 2.2 },
        dials.length && { kind: "dials", curves: dials, share: 0.8 },
    ].filter(Boolean);
    const all = wanted.reduce((sum, strip) => sum + strip.share, 0), gap = 10;
    let top = 6;
    for (const strip of wanted) {
        strip.top = top;
        strip.bottom = top + ((height - 6 - gap * (wanted.length - 1)) * strip.share) / all;
        top = strip.bottom + gap;
    }
    return wanted;
}

function shadeManual(context, theme, run, x, strips) {
    let begun = null;
    run.frames.forEach((frame, k) => {
        if (frame.manual[0] && begun === null) begun = x(frame.step[0]);
        if (begun !== null && (!frame.manual[0] || k === run.last)) {
            context.fillStyle = pale(theme.of("#E69F00"), 0.16);
            const end = Math.max(begun + 2, x(frame.step[0]));
            context.fillRect(begun, strips[0].top, end - begun, strips.at(-1).bottom - strips[0].top);
            begun = null;
        }
    });
}

// What the shade means, in the first of its stretches or, where there is no room, before it.
function nameManual(context, theme, run, x, { bottom }) {
    const first = run.frames.findIndex((frame) => frame.manual[0]);
    if (first < 0) return;
    const next = run.frames.findIndex((frame, k) => k > first && !frame.manual[0]);
    const left = x(run.frames[first].step[0]), right = x(run.frames[next < 0 ? run.last : next].step[0]);
    const inside = right - left > 48 * theme.zoom;
    text(context, theme, "by hand", inside ? left + 3 : left - 3, bottom - 7, { color: theme.muted, size: 11, align: inside ? "left" : "right" });
}

function rangeOf(runs, strip) {
    if (strip.kind === "linear" && strip.curves.every((c) => c.share)) return [0, 1];
    let low = Infinity, high = -Infinity;
    for (const { run } of runs)
        for (const frame of run.frames)
            for (const curve of strip.curves) {
                const value = curve.of(frame);
                if (Number.isFinite(value) && (strip.kind !== "log" || value > 1e-12)) {
                    low = Math.min(low, value);
                    high = Math.max(high, value);
                }
            }
    if (low > high) return strip.kind === "log" ? [0.1, 1] : [0, 1];
    if (strip.kind !== "log") return [Math.min(0, low), high || 1];
    return [10 ** Math.floor(Math.log10(low)), 10 ** Math.ceil(Math.log10(high) + 1e-9)];
}

function drawStrip(context, theme, runs, strip, x, left, right) {
    const [low, high] = rangeOf(runs, strip), { top, bottom, kind } = strip, tall = bottom - top;
    const level = kind === "log"
        ? (v) => bottom - (tall * (Math.log10(Math.max(v, low)) - Math.log10(low))) / (Math.log10(high / low) || 1)
        : (v) => bottom - (tall * (v - low)) / (high - low || 1);
    line(context, [[left, top], [left, bottom], [right, bottom]], theme.line, 1);
    const y = kind === "dials" ? dialLevels(runs, strip, top, bottom) : () => level;
    if (kind !== "dials") ticks(context, theme, kind, low, high, level, left, right);
    const ends = [], drawn = [];
    runs.forEach(({ run, index }, which) => strip.curves.forEach((curve, k) => {
        const color = kind === "dials" ? [theme.beta, theme.weight][k % 2] : theme.of(curve.color), to = y(k);
        const points = run.frames.map((f) => [x(f.step[0]), to(curve.of(f))]);
        const dash = which ? [4, 3] : [];
        drawn.push(...points);
        if (kind === "dials") line(context, steps(points), color, 1.8, dash);
        else {
            if (!which && kind === "log") line(context, points, pale(color, theme.raw), 1);
            line(context, kind === "log" ? smoothed(points) : points, color, 1.8, dash);
        }
        const [atX, atY] = points[index], value = curve.of(run.frames[index]);
        if (Number.isFinite(atY)) dot(context, atX, atY, 3, color, theme.paper, 1);
        if (!which && Number.isFinite(atY)) {
            const end = points.at(-1)[1];
            const name = strip.words === "name" || !curve.short ? curve.name : `${curve.name} ${curve[strip.words]}`;
            const other = runs[1] ? ` ╍ ${number(curve.of(runs[1].run.frames[runs[1].index]), 2)}` : "";
            ends.push({ y: Number.isFinite(end) ? end : atY, words: `${name} ${number(value, kind === "linear" && strip.words !== "name" ? 3 : 2)}${other}`, color });
        }
    }));
    if (kind === "log" && strip.words !== "name") hint(context, theme, drawn, { top, bottom, left, right });
    spread(ends, top + 5, bottom - 3, 13 * theme.zoom);
    for (const { y: at, words, color } of ends) text(context, theme, words, right + 6, at, { color, size: 11, halo: false });
}

// In the first corner in which there is no curve.
function hint(context, theme, drawn, { top, bottom, left, right }) {
    const wide = 136 * theme.zoom, tall = 15 * theme.zoom;
    for (const [align, y] of [["left", bottom - 7], ["right", top + 7], ["right", bottom - 7]]) {
        const from = align === "left" ? left : right - wide;
        const crossed = drawn.some(([px, py], k) => {
            const [qx, qy] = drawn[k - 1] && drawn[k - 1][0] < px ? drawn[k - 1] : [px, py];
            return px > from && qx < from + wide && Math.max(py, qy) > y - tall / 2 && Math.min(py, qy) < y + tall / 2;
        });
        if (crossed) continue;
        text(context, theme, "lower = more collapsed", align === "left" ? left + 5 : right - 5, y, { color: theme.muted, size: 11, align });
        return;
    }
}

function dialLevels(runs, strip, top, bottom) {
    return (k) => {
        const most = Math.max(...runs.flatMap(({ run }) => run.frames.map((f) => f.dials[k])), 1e-3);
        const share = runs[0].run.head.logs[k] ? (v) => Math.max(0, 1 + Math.log10(v / Math.max(1, most)) / 4) : (v) => v / most;
        return (v) => bottom - 2 - (bottom - top - 6) * share(v);
    };
}

function ticks(context, theme, kind, low, high, level, left, right) {
    const values = [];
    if (kind === "log") {
        const decades = Math.round(Math.log10(high / low)), room = Math.max(1, Math.floor((level(low) - level(high)) / (15 * theme.zoom)));
        const every = Math.max(1, Math.ceil(decades / Math.min(4, room)));
        for (let k = 0; k <= decades; k += every) values.push(low * 10 ** k);
    } else values.push(low, ...(level(low) - level(high) > 34 * theme.zoom ? [(low + high) / 2] : []), high);
    for (const value of values) {
        line(context, [[left, level(value)], [right, level(value)]], theme.line, 0.7);
        const power = Math.round(Math.log10(value));
        const words = kind !== "log" ? number(value, 2) : value >= 0.01 && value <= 100 ? number(value) : `1e${power}`.replace("-", "−");
        const inside = Math.max(level(high) + 3, Math.min(level(low) - 3, level(value))); // clear of the strip above and below
        text(context, theme, words, left - 4, inside, { color: theme.muted, size: 10, align: "right" });
    }
}

function steps(points) {
    return points.flatMap(([x, y], k) => (k ? [[x, points[k - 1][1]], [x, y]] : [[x, y]]));
}

function smoothed(points) {
    let mean = null;
    return points.map(([x, y]) => {
        if (Number.isFinite(y)) mean = mean === null ? y : mean + SMOOTH * (y - mean);
        return [x, Number.isFinite(y) ? mean : y];
    });
}

// Moves labels apart, in place, so that none covers another.
function spread(labels, top, bottom, gap = 13) {
    labels.sort((a, b) => a.y - b.y);
    labels.forEach((label, k) => {
        label.y = Math.max(label.y, k ? labels[k - 1].y + gap : top);
    });
    for (let k = labels.length - 1; k >= 0; k--)
        labels[k].y = Math.min(labels[k].y, k === labels.length - 1 ? bottom : labels[k + 1].y - gap);
}

const PITCH = 5; // pixels a bar has at least

export function drawBarcode(canvas, theme, run, index, options) {
    const got = contextOf(canvas), frame = run?.frames[index];
    if (!got || !frame) return;
    const { context, width, height } = got, { zoom } = theme, beta = run.betaOf(frame), most = options.most ?? barcodeReach(run, frame);
    const left = 8, right = width - 10, top = 18 * zoom, bottom = height - 30 * zoom, x = (d) => left + ((right - left) * d) / most;
    line(context, [[left, top], [left, bottom], [right, bottom]], theme.line);
    for (const share of [0, 0.5, 1]) {
        const align = share === 0 ? "left" : share === 1 ? "right" : "center";
        text(context, theme, number(share * most), x(share * most), bottom + 9 * zoom, { color: theme.muted, size: 11, align });
    }
    text(context, theme, "length, in feature space", (left + right) / 2, bottom + 23 * zoom, { color: theme.muted, size: 11, align: "center" });
    if (frame.step[0] === 0) return text(context, theme, "from the first step on", width / 2, (top + bottom) / 2, { color: theme.muted, align: "center" });
    const few = Math.max(1, Math.min(frame.deaths.length, Math.floor((bottom - top) / PITCH))), pitch = (bottom - top) / few;
    for (let k = 0; k < few; k++) { // where there is no room for all, every so many of them
        const death = frame.deaths[Math.floor(((k + 0.5) * frame.deaths.length) / few)], short = beta !== null && death < beta;
        const y = Math.round(bottom - (k + 1) * pitch), long = Math.max(1.5, x(Math.min(death, most)) - left), tall = Math.max(1, Math.round(pitch) - 2);
        context.fillStyle = short ? pale(theme.bar, 0.25) : theme.bar;
        context.fillRect(left, y, long, tall);
        context.strokeStyle = theme.bar;
        context.lineWidth = 1;
        if (short) context.strokeRect(left + 0.5, y + 0.5, Math.max(1, long - 1), Math.max(1, tall - 1));
    }
    const longest = frame.deaths.at(-1), hint = { size: 11, align: "right", color: theme.muted };
    if (longest < 0.03 * most) text(context, theme, `all below ${number(longest, 1)}`, right, (top + bottom) / 2, hint);
    if (beta === null) return text(context, theme, width < 170 * zoom ? "weight 0" : "weight 0: β has no effect", left, 8 * zoom, { ...hint, align: "left" });
    line(context, [[x(beta), top - 2], [x(beta), right - x(beta) < 104 * zoom ? bottom - 30 * zoom : bottom]], theme.beta, 2, [5, 3]);
    const side = x(beta) > width / 2 ? "right" : "left";
    text(context, theme, `β ${number(beta)}`, Math.max(left, x(beta) - 4 + (side === "right" ? 8 : 0)), 8 * zoom, { color: theme.beta, align: side, bold: true });
    text(context, theme, "■ longer than β", right, bottom - 21 * zoom, { ...hint, color: theme.ink });
    return text(context, theme, "□ shorter than β", right, bottom - 7 * zoom, { ...hint, color: theme.ink });
}

// The end of the barcode's axis, which two runs beside each other may share.
export function barcodeReach(run, frame) {
    return nice(Math.max(1.05 * frame.deaths.at(-1), 1.15 * (run.betaOf(frame) ?? 0)) || 1);
}

export function drawMatrix(canvas, theme, run, index, { name, ideal }) {
    const got = contextOf(canvas), frame = run?.frames[index];
    if (!got || !frame) return;
    const { context, width, height } = got, count = run.head.names.length, values = frame[name];
    const room = 18, side = Math.min(width - room - 6, height - room - 20) / count, left = (width - side * count + room) / 2;
    text(context, theme, `ideal: ${number(ideal, 2)} = ${Math.round((180 * Math.acos(ideal)) / Math.PI)}°`, left + (side * count) / 2, height - 7, { color: theme.muted, size: 11, align: "center" });
    for (let i = 0; i < count; i++) {
        const color = theme.of(run.head.colors[i]), at = (k) => (k + 0.5) * side;
        text(context, theme, run.head.names[i], left - 8, at(i) + 2, { color, size: 12, align: "center", bold: true });
        text(context, theme, run.head.names[i], left + at(i), side * count + 13, { color, size: 12, align: "center", bold: true });
        for (let j = 0; j < count; j++) {
            const value = values[i * count + j];
            if (!Number.isFinite(value)) continue;
            const off = Math.max(-1, Math.min(1, (value - ideal) / 0.5));
            if (Math.abs(value - ideal) > 0.02) {
                context.fillStyle = pale(off > 0 ? theme.together : theme.apart, 0.06 + 0.6 * Math.abs(off));
                context.fillRect(left + j * side + 1, i * side + 1, side - 2, side - 2);
            }
            context.strokeStyle = theme.faint;
            context.lineWidth = 1;
            context.strokeRect(left + j * side + 1, i * side + 1, side - 2, side - 2);
            if (side > 30) text(context, theme, value.toFixed(2), left + at(j), at(i), { size: 11, align: "center", halo: false });
        }
    }
}

export function drawColumns(canvas, theme, run, index, { name }) {
    const got = contextOf(canvas), frame = run?.frames[index];
    if (!got || !frame) return;
    const { context, width, height } = got, values = Array.from(frame[name]), wide = (width - 16) / values.length;
    const most = nice(Math.max(...values, 1e-9));
    values.forEach((value, c) => {
        const tall = ((height - 44) * value) / most, left = 8 + c * wide, color = theme.of(run.head.colors[c] ?? "#0072B2");
        context.fillStyle = color;
        context.fillRect(left + 0.15 * wide, height - 20 - tall, 0.7 * wide, tall);
        text(context, theme, number(value), left + wide / 2, height - 28 - tall, { size: 11, align: "center" });
        text(context, theme, run.head.names[c] ?? String(c), left + wide / 2, height - 9, { color, size: 12, align: "center", bold: true });
    });
}
