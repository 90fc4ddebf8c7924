import { button, dot, fact, make, number, panel, put, shade, slider, spread, start, status } from "./explorers.js";

const WIDE = 340, HIGH = 300, SCALE = 165, MIDDLE = [WIDE / 2, HIGH / 2 + 5];
const FARTHEST = Math.sqrt(2 / 3); // where a mean stands when the two others coincide
const HELMERT = [[Math.SQRT1_2, 1 / Math.sqrt(6)], [-Math.SQRT1_2, 1 / Math.sqrt(6)], [0, -2 / Math.sqrt(6)]];
const KINDS = { false: { name: "not mirrored", color: shade("#7B5EA7"), dash: "7 4" },
    true: { name: "mirrored", color: shade("#7F8C1F"), dash: "none" } };
const LAND = { left: 30, right: 318, top: 46, bottom: 254, most: 4 };

/** The frame (a 2x2 matrix with orthonormal columns) at an angle, and the vertices of its simplex ETF over sqrt(3). */
function frameAt({ angle, mirrored }) {
    const [c, s] = [Math.cos(angle), Math.sin(angle)];
    return mirrored ? [[c, s], [s, -c]] : [[c, -s], [s, c]];
}
function verticesOf(frame) {
    const v = frameAt(frame);
    return HELMERT.map((q) => v.map((row) => (row[0] * q[0] + row[1] * q[1]) * Math.SQRT1_2));
}

/** A 2x2 matrix as a rotation of length p and a mirrored one of length m: its singular values are p + m and |p - m|. */
function parts([[a, b], [c, d]]) {
    return { p: Math.hypot(a + d, c - b) / 2, m: Math.hypot(a - d, c + b) / 2,
        proper: Math.atan2(c - b, a + d), mirror: Math.atan2(c + b, a - d) };
}

/** sqrt(2) H^T Q of normalised means, whose singular values are both 1 at an exact ETF. */
function aligned(means) {
    const entry = (k, l) => Math.SQRT2 * means.reduce((sum, h, c) => sum + h[k] * HELMERT[c][l], 0);
    return [[entry(0, 0), entry(0, 1)], [entry(1, 0), entry(1, 1)]];
}

/** polar(sqrt(2) H^T Q + pull * previous frame); where both orientations are equally near it keeps the previous one. */
function nearest(means, previous, pull) {
    const before = frameAt(previous);
    const { p, m, proper, mirror } = parts(aligned(means).map((row, k) => row.map((x, l) => x + pull * before[k][l])));
    const mirrored = p === m ? previous.mirrored : p < m;
    return { angle: mirrored ? mirror : proper, mirrored };
}

const squared = (a, b) => a.reduce((sum, row, c) => sum + (row[0] - b[c][0]) ** 2 + (row[1] - b[c][1]) ** 2, 0);
const place = ([x, y]) => [MIDDLE[0] + SCALE * x, MIDDLE[1] - SCALE * y];
const polygon = (rows) => rows.map((row) => place(row).join()).join(" ");

function normalised(rows) {
    const mean = [0, 1].map((k) => rows.reduce((sum, row) => sum + row[k], 0) / 3);
    const centred = rows.map((row) => row.map((x, k) => x - mean[k]));
    const norm = Math.hypot(...centred.flat());
    return centred.map((row) => row.map((x) => x / norm));
}

/** Normalised means of which one is moved to a place, while the two others keep the direction between them. */
function moved(means, c, place) {
    const far = Math.hypot(...place), most = FARTHEST * 0.9999;
    const to = far > most ? place.map((x) => x * most / far) : place;
    const [i, j] = [(c + 1) % 3, (c + 2) % 3], along = means[i].map((x, k) => x - means[j][k]);
    const half = Math.sqrt((1 - 1.5 * (to[0] ** 2 + to[1] ** 2)) / 2) / Math.hypot(...along);
    const next = [];
    next[c] = to;
    next[i] = to.map((x, k) => -x / 2 + half * along[k]);
    next[j] = to.map((x, k) => -x / 2 - half * along[k]);
    return next;
}

function meansPanel(colors, { at, to, grasp }) {
    let chosen = -1;
    const line = (attributes) => make("line", { visibility: "hidden", ...attributes });
    const triangle = (attributes) => make("polygon", { fill: "none", ...attributes });
    const others = line({ stroke: "var(--soft)", "stroke-dasharray": "2 5" });
    const before = triangle({ stroke: "var(--soft)", "stroke-width": 1.5, "stroke-dasharray": "3 4" });
    const now = triangle({ "stroke-width": 2.5 }), orientation = make("text", { x: 4, y: 14 });
    const corners = colors.map((stroke) => make("path", { class: "corner", d: "M0 -10L10 0L0 10L-10 0Z", fill: "none",
        stroke, "stroke-width": 2.5 }));
    const gaps = colors.map((stroke) => make("line", { class: "gap", stroke, "stroke-width": 3 }));
    const names = colors.map((_, c) => make("text", { class: "inside", "text-anchor": "middle" }, c));
    const units = ({ x, y }) => [(x - MIDDLE[0]) / SCALE, (MIDDLE[1] - y) / SCALE];
    const dots = colors.map((color, c) => dot(`mean of class ${c}`, color, 10, { units, step: 0.01, at: () => at(c),
        grasp: () => {
            chosen = c;
            grasp();
        }, to: (x, y) => to(c, [x, y]) }));
    const svg = panel("class means and their simplex ETF", WIDE, HIGH, orientation, others, before, now, ...corners,
        ...gaps, ...dots, ...names);
    svg.reset = () => { chosen = -1; };
    svg.show = (means, frame, previous) => {
        const ends = verticesOf(frame), { name, color } = KINDS[frame.mirrored];
        before.setAttribute("points", polygon(verticesOf(previous)));
        put(now, { points: polygon(ends), stroke: color });
        orientation.textContent = `simplex ETF: ${name}`;
        means.forEach((mean, c) => {
            const [x, y] = place(mean), [u, v] = place(ends[c]);
            dots[c].show([x, y], mean, [-FARTHEST, FARTHEST]);
            put(gaps[c], { x1: x, y1: y, x2: u, y2: v });
            put(corners[c], { transform: `translate(${u} ${v})` });
            put(names[c], { x, y: y + 4 });
        });
        spread(dots, means.map(place));
        const [a, b] = means.filter((_, c) => c !== chosen);
        const [[x1, y1], [x2, y2]] = [9, -8].map((t) => place(a.map((x, k) => x + t * (b[k] - x))));
        put(others, { x1, y1, x2, y2, visibility: chosen < 0 ? "hidden" : "visible" });
    };
    return svg;
}

function landscape() {
    const { left, right, top, bottom, most } = LAND;
    const x = (angle) => left + (right - left) * (angle / Math.PI + 1) / 2;
    const y = (distance) => bottom - (bottom - top) * distance / most;
    const ticks = [-180, -90, 0, 90, 180].map((t) => make("g", {
        transform: `translate(${x(t * Math.PI / 180)} ${bottom})`, "text-anchor": "middle" },
    make("line", { class: "axis", y2: 5 }), make("text", { y: 18 }, `${number(t, 0)}°`)));
    const heights = [0, 1, 2, 3, 4].map((t) => make("g", { transform: `translate(${left} ${y(t)})` },
        make("line", { class: "axis", x2: right - left, opacity: t ? 0.4 : 1 }),
        make("text", { x: -6, y: 4, "text-anchor": "end" }, t)));
    const look = ({ color, dash }) => ({ fill: "none", stroke: color, "stroke-width": 2.5, "stroke-dasharray": dash });
    const kinds = Object.values(KINDS), curves = kinds.map((kind) => make("path", look(kind)));
    const legend = kinds.flatMap((kind, k) => [make("path", { d: `M${4 + 130 * k} 27h30`, ...look(kind) }),
        make("text", { x: 40 + 130 * k, y: 31 }, kind.name)]);
    const before = make("circle", { r: 6, fill: "var(--paper)", stroke: "var(--soft)", "stroke-width": 2 });
    const now = make("rect", { x: -6, y: -6, width: 12, height: 12, stroke: "var(--paper)", "stroke-width": 1.5 });
    const svg = panel("squared distance of every simplex ETF in the plane", WIDE, HIGH, ...heights, ...ticks, ...curves,
        before, now, make("text", { x: 4, y: 14 }, "squared distance of every simplex ETF in the plane"), ...legend,
        make("text", { x: right, y: HIGH - 8, "text-anchor": "end" }, "angle of its frame"));
    svg.show = ({ p, m, proper, mirror }, frame, previous) => {
        const distance = (angle, mirrored) =>
            2 - 2 * (mirrored ? m * Math.cos(angle - mirror) : p * Math.cos(angle - proper));
        const at = ({ angle, mirrored }) => [x(angle), y(distance(angle, mirrored))];
        const angles = Array.from({ length: 121 }, (_, k) => Math.PI * (k / 60 - 1));
        curves.forEach((curve, mirrored) => curve.setAttribute("d", `M${angles.map((angle) =>
            at({ angle, mirrored }).map((place) => place.toFixed(2)).join(" ")).join("L")}`));
        const [[u, v], [cx, cy]] = [at(frame), at(previous)];
        put(now, { transform: `translate(${u} ${v}) rotate(45)`, fill: KINDS[frame.mirrored].color });
        put(before, { cx, cy });
    };
    return svg;
}

function build({ means: given, pull: published, colors }) {
    const steps = [0, published, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 4];
    let means, previous, pull, frame, flips;
    const step = () => { previous = frame; };
    const picture = meansPanel(colors, { at: (c) => means[c], grasp: step, to: (c, place) => {
        means = moved(means, c, place);
        draw();
    } });
    const land = landscape(), news = status(), distance = fact("distance"), least = fact("nearest");
    const values = [fact("s1"), fact("s2")];
    const control = slider("pull ρ", { min: 0, max: steps.length - 1, step: 1, text: (k) => String(steps[k]) }, (k) => {
        pull = steps[k];
        draw();
    });

    function draw() {
        const was = frame.mirrored, split = parts(aligned(means)), s = [split.p + split.m, Math.abs(split.p - split.m)];
        frame = nearest(means, previous, pull);
        picture.show(means, frame, previous);
        land.show(split, frame, previous);
        control.show(steps.indexOf(pull));
        distance.show(squared(means, verticesOf(frame)));
        least.show((s[0] - 1) ** 2 / 2 + (s[1] - 1) ** 2 / 2);
        values.forEach((value, k) => value.show(s[k]));
        flips += frame.mirrored !== was;
        news.say(!flips ? "Drag a mean through the line of the two others, and the frame flips."
            : `Flip ${flips}: the frame is ${KINDS[frame.mirrored].name} now. Where the three means are on one line, `
            + "the smaller singular value is 0, and both orientations are equally near.");
    }
    const reset = () => {
        [means, pull, flips] = [normalised(given), published, 0];
        frame = previous = nearest(means, { angle: 0, mirrored: false }, 0);
        picture.reset();
        draw();
    };
    reset();
    const again = button("Step", () => {
        step();
        draw();
    });
    return [
        make("div", { class: "bar" }, control, again, button("Reset", reset)),
        make("div", { class: "panels" }, picture, land), news,
        make("p", {}, "Squared distance (the squares of the coloured lines, added up) ", distance,
            "; of the nearest ETF ", least, ". Singular values ", values[0], " and ", values[1],
            " (both 1 at an exact ETF)."),
        make("p", { class: "soft" }, "Dots: class means, centred and scaled to norm 1 together, so moving one moves "
            + "the others. Diamonds: the simplex ETF / √3. Dashed grey: the frame before this step, to which ρ pulls; "
            + "a drag, an arrow key and Step each begin a step."),
    ];
}

start("nearest", build);
