import { button, fact, make, number, panel, player, put, slider, start, status } from "./explorers.js";

const WIDE = 340, HIGH = 300, MOST = 10, SPEED = 30; // degrees a second
const AROUND = 0.96, TILT = 0.5; // how the tetrahedron is seen at first, with no vertex or edge before another
const TABLE = `
.matrix { aspect-ratio: 340 / 300; padding: 0 6px; box-sizing: border-box; }
table { width: 100%; height: 100%; table-layout: fixed; border-collapse: collapse; color: var(--ink);
    font: calc(8px + 26px / var(--cells)) var(--jp-ui-font-family, system-ui, sans-serif); text-align: center; }
caption { font-size: 13px; padding: 2px; }
td, th { padding: 0; border: 1px solid var(--paper); }
td { background: color-mix(in srgb, var(--rule) 18%, transparent); }
td data { font-weight: 400; }
`;

const inner = (a, b) => a.reduce((sum, x, k) => sum + x * b[k], 0);
const norm = (a) => Math.hypot(...a);
const range = (count, f) => Array.from({ length: count }, (_, k) => f(k));

/** Orthonormal columns, orthogonal to the ones vector: those of `helmert_basis`, (C, C-1). */
const helmert = (count) => range(count, (c) => range(count - 1, (k) =>
    (c <= k ? 1 : c === k + 1 ? -c : 0) / Math.sqrt((k + 1) * (k + 2))));

/** Real Fourier vectors, likewise: in the first two the classes stand around a regular polygon. (C, columns) */
function fourier(count, columns) {
    const wave = (c, k) => {
        const frequency = Math.floor(k / 2) + 1, angle = 2 * Math.PI * frequency * c / count;
        if (2 * frequency === count) return Math.cos(angle) / Math.sqrt(count);
        return Math.sqrt(2 / count) * (k % 2 ? Math.sin(angle) : Math.cos(angle));
    };
    return range(count, (c) => range(columns, (k) => wave(c, k)));
}

/** Singular values of a matrix given by its columns: Jacobi rotations until they are orthogonal. */
function singularValues(columns) {
    for (let sweep = 0, largest = 1; sweep < 40 && largest > 1e-15; sweep += 1) {
        largest = 0;
        columns.forEach((_, i) => range(i, (j) => {
            const [a, b] = [columns[i], columns[j]], [p, q, r] = [inner(a, a), inner(b, b), inner(a, b)];
            const size = Math.sqrt(p * q);
            if (!size || Math.abs(r) <= 1e-15 * size) return;
            largest = Math.max(largest, Math.abs(r) / size);
            const angle = 0.5 * Math.atan2(2 * r, p - q), [c, s] = [Math.cos(angle), Math.sin(angle)];
            columns[i] = a.map((x, k) => c * x + s * b[k]);
            columns[j] = a.map((x, k) => c * b[k] - s * x);
        }));
    }
    return columns.map(norm);
}

/** The squared distance of centred rows to the nearest simplex ETF. */
function etfDistance(rows) {
    const basis = helmert(rows.length), rank = rows.length - 1, total = norm(rows.flat());
    const columns = range(rank, (k) => range(rows[0].length, (d) =>
        rows.reduce((sum, row, c) => sum + row[d] * basis[c][k], 0) / total));
    return singularValues(columns).reduce((sum, s) => sum + (s - 1 / Math.sqrt(rank)) ** 2, 0);
}

function centred(rows) {
    const mean = rows[0].map((_, d) => rows.reduce((sum, row) => sum + row[d], 0) / rows.length);
    return rows.map((row) => row.map((x, d) => x - mean[d]));
}

/** From coordinates of the simplex to (right, up, towards the eye) in the picture, in which vertices have length 1. */
function viewer(count, turn) {
    const waves = fourier(count, Math.min(count - 1, 4)), basis = helmert(count);
    const axes = waves[0].map((_, k) => range(count - 1, (d) =>
        waves.reduce((sum, wave, c) => sum + wave[k] * basis[c][d], 0)));
    const angle = turn + (count === 4 ? AROUND : 0), seen = count === 2 ? 1 : count === 4 ? 3 : 2;
    const [c, s] = [Math.cos(angle), Math.sin(angle)];
    return (row) => {
        const y = axes.map((axis) => inner(axis, row) * Math.sqrt((count - 1) / seen));
        if (count === 2) return [c * y[0], s * y[0], 0];
        if (count === 3) return [c * y[0] - s * y[1], s * y[0] + c * y[1], 0];
        if (count > 4) return [c * y[0] + s * y[2], c * y[1] + s * y[3], 0];
        const [right, deep] = [c * y[0] - s * y[1], s * y[0] + c * y[1]];
        return [right, Math.cos(TILT) * y[2] + Math.sin(TILT) * deep, Math.cos(TILT) * -deep + Math.sin(TILT) * y[2]];
    };
}

/** What of the vectors the picture shows. */
function seen(count, dim, turn) {
    const rank = count - 1, more = dim > rank ? ` (${dim - rank} more hold nothing but noise)` : "";
    const all = ["the one dimension", "both dimensions", "all three dimensions"][rank - 1];
    if (all) return `Seen: ${all} of the simplex${more}, true to scale. Grey lines join the vertices of the exact ETF.`;
    const part = turn % 180 === 0 ? "dimensions 1 and 2" : turn % 90 === 0 ? "dimensions 3 and 4"
        : "a plane between dimensions 1, 2 and 3, 4";
    return `Seen: ${part} of the ${rank} of the simplex${more}: a shadow, lengths × √(${rank}/2). Angles on paper are `
        + "not the true ones.";
}

function drawScene(scene, ideal, rows, turn, colors) {
    const count = rows.length, project = viewer(count, turn * Math.PI / 180), [cx, cy] = [WIDE / 2, HIGH / 2];
    const scale = count > 4 ? 98 : 115; // turned, a shadow reaches as far as the root of 2
    const place = (row) => {
        const [x, y, z] = project(row.slice(0, count - 1));
        return [cx + scale * x, cy - scale * y, z];
    };
    const corners = ideal.map(place), drawn = [];
    const edge = ([x1, y1], [x2, y2]) => make("line", { x1, y1, x2, y2, stroke: "var(--rule)",
        "stroke-width": count > 4 ? 1 : 2 });
    corners.forEach((a, i) => corners.slice(0, i).forEach((b) => drawn.push([Math.min(a[2], b[2]) - 1, edge(a, b)])));
    rows.map(place).forEach(([x, y, z], c) => {
        const color = c === 9 ? "var(--ink)" : colors[c], out = Math.hypot(x - cx, y - cy);
        const [dx, dy] = out > 8 ? [17 * (x - cx) / out, 17 * (y - cy) / out] : [0, 17];
        drawn.push([z, make("g", { class: "vertex" },
            make("line", { x1: cx, y1: cy, x2: x, y2: y, stroke: color, "stroke-width": 3 + z }),
            make("circle", { cx: x, cy: y, r: 8 + 2.5 * z, fill: color, stroke: "var(--paper)" }),
            make("text", { class: "name", x: x + dx, y: y + dy + 5, "text-anchor": "middle" }, c))]);
    });
    scene.replaceChildren(...drawn.sort((a, b) => a[0] - b[0]).map((pair) => pair[1]));
    put(scene, { role: "img", "aria-label": `${count} vectors in ${rows[0].length} dimensions` });
}

function drawTable(table, cosines, ideal) {
    const cell = (x, i, j) => {
        if (i === j) return make("td");
        const far = (70 * Math.min(1, 2 * Math.abs(x - ideal))).toFixed(1), hue = x > ideal ? "#B2182B" : "#2166AC";
        return make("td", { style: `background: color-mix(in srgb, ${hue} ${far}%, transparent)` },
            make("data", { value: x }, cosines.length > 6 ? number(x).replace("0.", ".") : number(x)));
    };
    const head = (scope) => (_, c) => make("th", { scope }, c);
    table.replaceChildren(make("caption", {}, "cosines of the vectors"),
        make("tr", {}, make("th"), ...cosines.map(head("col"))),
        ...cosines.map((row, i) => make("tr", {}, head("row")(row, i), ...row.map((x, j) => cell(x, i, j)))));
    table.style.setProperty("--cells", cosines.length + 1);
}

/** Lengths of vectors less their mean, and the cosines between them. */
function measured(vectors) {
    const rows = centred(vectors), lengths = rows.map(norm);
    const cosine = (i, j) => Math.max(-1, Math.min(1, inner(rows[i], rows[j]) / lengths[i] / lengths[j]));
    return { lengths, cosines: rows.map((_, i) => rows.map((_, j) => cosine(i, j))), distance: etfDistance(rows) };
}

function build({ classes: first, noise: jitter, colors }) {
    const now = {}, names = ["ideal", "least", "most", "short", "long", "distance"];
    const scene = panel("the vectors", WIDE, HIGH), table = make("table"), news = status();
    const facts = Object.fromEntries(names.map((name) => [name, fact(name)]));
    const angles = make("span"), view = make("p", { class: "soft" });
    const control = (key, name, options) => slider(name, options, (value) => {
        now[key] = value;
        draw();
    });
    const controls = {
        classes: control("classes", "classes", { min: 2, max: MOST, step: 1 }),
        dim: control("dim", "dimension", { min: 1, max: jitter[0].length, step: 1 }),
        noise: control("noise", "noise", { min: 0, max: 1, step: 0.02, text: number }),
        turn: control("turn", "turn", { min: 0, max: 360, step: 1, text: (t) => `${t}°` }),
    };
    let exact = 0;
    const spin = player("Turn", "Stop", (seconds) => {
        exact = ((Math.abs(exact - now.turn) > 1 ? now.turn : exact) + SPEED * seconds) % 360;
        now.turn = Math.floor(exact);
        draw();
    });

    function draw() {
        const { classes, noise, turn } = now, dim = now.dim = Math.max(now.dim, classes - 1), rank = classes - 1;
        const scale = Math.sqrt(classes / rank);
        const ideal = helmert(classes).map((row) => range(dim, (d) => (d < rank ? scale * row[d] : 0)));
        const rows = ideal.map((row, c) => row.map((x, d) => x + noise * jitter[c][d] / Math.sqrt(dim)));
        const { lengths, cosines, distance } = measured(rows);
        const off = cosines.flatMap((row, i) => row.filter((_, j) => j !== i));
        const ends = (values) => [Math.min(...values), Math.max(...values)];
        const [least, most, short, long] = [off, lengths].flatMap(ends);
        drawScene(scene, ideal, rows, turn, colors);
        drawTable(table, cosines, -1 / rank);
        for (const [key, node] of Object.entries(controls)) node.show(now[key], key === "dim" ? rank : undefined);
        const shown = { ideal: -1 / rank, least, most, short, long, distance };
        for (const name of names) facts[name].show(shown[name]);
        const degrees = [most, least].map((x) => number(Math.acos(x) * 180 / Math.PI, 1));
        angles.textContent = `${[...new Set(degrees)].join("° to ")}°`;
        view.textContent = seen(classes, dim, turn);
        const what = noise ? ", with noise" : `: every cosine is −1${rank > 1 ? `/${rank}` : ""}`;
        news.say(`${classes} classes in ${dim} dimension${dim > 1 ? "s" : ""}${what}`);
    }
    const reset = () => {
        spin.halt();
        Object.assign(now, { classes: first, dim: 1, noise: 0, turn: 0 });
        draw();
    };
    reset();
    return [
        make("style", {}, TABLE),
        make("div", { class: "bar" }, ...Object.values(controls), spin, button("Reset", reset)),
        make("div", { class: "panels" }, scene, make("div", { class: "matrix" }, table)), news,
        make("p", {}, "Cosines ", facts.least, " to ", facts.most, " (simplex ETF: −1/(C − 1) = ", facts.ideal,
            "), angles ", angles, ", lengths ", facts.short, " to ", facts.long,
            "; squared distance to the nearest simplex ETF ", facts.distance, "."), view,
    ];
}

start("simplex", build);
