// The data: decision regions under points that a hand may move, or the samples nearest to and farthest from their mean.
import { contextOf, dot, pale, text } from "./draw.js";

export function drawInput(canvas, theme, run, index, options) {
    const got = contextOf(canvas), frame = run?.frames[index], input = run?.head.input;
    if (!got || !frame || !input) return;
    if (input.kind === "points") drawPoints(canvas, got, theme, run, frame, options);
    else drawImages(got, theme, run, frame, options);
}

function drawPoints(canvas, { context, width, height }, theme, run, frame, options) {
    const { extent: [left, right, low, high], grid, confidence, classes } = run.head.input;
    const side = Math.min(width, height), x0 = (width - side) / 2, y0 = (height - side) / 2, cell = side / grid;
    const colors = run.head.colors.map(theme.of), regions = frame["input.regions"];
    if (regions)
        regions.forEach((value, k) => {
            const sure = (value % confidence) / (confidence - 1);
            context.fillStyle = pale(colors[Math.floor(value / confidence)] ?? theme.ink, 0.06 + 0.3 * sure);
            context.fillRect(x0 + (k % grid) * cell, y0 + Math.floor(k / grid) * cell, cell + 0.5, cell + 0.5);
        });
    canvas.place = {
        toPage: ([x, y]) => [x0 + ((x - left) / (right - left)) * side, y0 + ((high - y) / (high - low)) * side],
        toData: ([px, py]) => [left + ((px - x0) / side) * (right - left), high - ((py - y0) / side) * (high - low)],
    };
    (options.points ?? run.head.input.points).forEach((point, k) => {
        const [x, y] = canvas.place.toPage(point), held = options.held?.has(k);
        dot(context, x, y, held ? 4 : 2.4, colors[classes[k]], theme.paper, held ? 1.5 : 0.6);
    });
}

function drawImages({ context, width, height }, theme, run, frame, options) {
    const ends = frame["input.ends"], count = run.head.names.length, marked = options.marked;
    const columns = Math.min(count, 10), room = 15;
    const side = Math.min((width - 8) / columns - 4, (height - 3 * room) / 2 - 2);
    const left = (width - columns * (side + 4)) / 2;
    context.imageSmoothingEnabled = false;
    const rows = marked >= 0 ? [["under the pointer", null]] : [["nearest to its mean", 0], ["farthest", 1]];
    if (marked >= 0) {
        const big = Math.min(width - 20, height - 24);
        context.drawImage(run.images[marked], (width - big) / 2, 18, big, big);
        text(context, theme, `${rows[0][0]}: a ${run.head.names[run.head.targets[marked]]}`, width / 2, 8, { size: 11, align: "center", color: theme.muted });
        return;
    }
    rows.forEach(([words, which], r) => {
        const top = r * (side + room + 3);
        text(context, theme, words, width / 2, top + 7, { size: 11, align: "center", color: theme.muted });
        for (let c = 0; c < columns; c++) {
            const picture = run.images[ends[2 * c + which]], x = left + c * (side + 4);
            if (!picture) continue;
            context.drawImage(picture, x, top + room, side, side);
            context.strokeStyle = theme.of(run.head.colors[c]);
            context.lineWidth = 2;
            context.strokeRect(x, top + room, side, side);
        }
    });
}

const BRUSH = 14; // pixels

// Drag moves the points of one class under the pointer; in the mode "add" a click adds one, in "remove" takes some away.
export function touchPoints(canvas, state) {
    let held = null;
    const at = (event) => {
        const box = canvas.getBoundingClientRect();
        return [event.clientX - box.left, event.clientY - box.top];
    };
    const under = ([px, py]) => {
        const { points, classes } = state.run().head.input, near = [];
        points.forEach((point, k) => {
            const [x, y] = canvas.place.toPage(point), far = Math.hypot(x - px, y - py);
            if (far < BRUSH) near.push([far, k]);
        });
        near.sort((a, b) => a[0] - b[0]);
        return near.filter(([, k]) => classes[k] === classes[near[0][1]]).map(([, k]) => k);
    };
    canvas.addEventListener("pointerdown", (event) => {
        if (!canvas.place || state.run()?.head.input?.kind !== "points" || !state.live()) return;
        const mode = state.mode(), where = at(event), place = canvas.place.toData(where), found = under(where);
        if (mode.startsWith("add")) state.edit({ add: [[...place, Number(mode.slice(4))]] });
        else if (mode === "remove" && found.length) state.edit({ remove: found });
        else if (mode === "drag" && found.length) {
            held = { from: place, points: found };
            canvas.setPointerCapture(event.pointerId);
        }
        event.preventDefault();
    });
    const moved = (event) => {
        const place = canvas.place.toData(at(event)), points = state.run().head.input.points;
        return held.points.map((k) => [k, points[k][0] + place[0] - held.from[0], points[k][1] + place[1] - held.from[1]]);
    };
    canvas.addEventListener("pointermove", (event) => {
        if (held) state.hold(moved(event));
    });
    canvas.addEventListener("pointerup", (event) => {
        if (!held) return;
        state.edit({ move: moved(event) });
        held = null;
        state.hold([]);
    });
}
