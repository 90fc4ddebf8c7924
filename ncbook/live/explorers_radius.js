import { arrow, button, dot, draggable, fact, make, number, panel, player, put, rove, shade, spread, start, status }
    from "./explorers.js";

const WIDE = 340, HIGH = 300, LEFT = 32, RIGHT = 308, TOP = 56, BOTTOM = 258;
const UNIT = 20; // length of the arrow of a pull of 1
const SPEED = 0.15; // how far such a pull moves a point in a second, as a part of the cloud's size
const NORMS = { 1: "L1", 2: "L2", inf: "L∞" };
const length = { 1: ([x, y]) => Math.abs(x) + Math.abs(y), 2: ([x, y]) => Math.hypot(x, y),
    inf: ([x, y]) => Math.max(Math.abs(x), Math.abs(y)) };
const slope = {
    1: (edge) => edge.map(Math.sign),
    2: (edge) => edge.map((x) => x / (Math.hypot(...edge) || 1)),
    inf: ([x, y]) => {
        const [a, b] = [Math.abs(x), Math.abs(y)], shared = a === b ? 0.5 : 1;
        return [a >= b ? shared * Math.sign(x) : 0, b >= a ? shared * Math.sign(y) : 0];
    },
};
const minus = ([a, b], [c, d]) => [a - c, b - d];

/** Prim's algorithm: the edges [i, j, length] of a minimum spanning tree, shortest first. */
function spanningTree(points, p) {
    const reach = points.map((z) => length[p](minus(z, points[0]))), parent = points.map(() => 0), edges = [];
    reach[0] = Infinity;
    const inside = points.map((_, i) => i === 0);
    while (edges.length < points.length - 1) {
        let near = -1;
        reach.forEach((r, i) => { if (!inside[i] && (near < 0 || r < reach[near])) near = i; });
        edges.push([parent[near], near, reach[near]]);
        inside[near] = true;
        points.forEach((z, i) => {
            const r = length[p](minus(z, points[near]));
            if (!inside[i] && r < reach[i]) [reach[i], parent[i]] = [r, near];
        });
    }
    return edges.sort((a, b) => a[2] - b[2]);
}

/** Minus the gradient of the sum of |length - beta|: a vector for each point. */
function pulls(points, edges, beta, p) {
    const pull = points.map(() => [0, 0]);
    for (const [i, j, t] of edges) {
        slope[p](minus(points[i], points[j])).forEach((g, k) => {
            pull[i][k] -= Math.sign(t - beta) * g;
            pull[j][k] += Math.sign(t - beta) * g;
        });
    }
    return pull;
}

function ball(x, y, size, p) {
    if (p === "2") return `M${x - size} ${y}a${size} ${size} 0 1 0 ${2 * size} 0a${size} ${size} 0 1 0 ${-2 * size} 0`;
    if (p === "1") return `M${x - size} ${y}l${size} ${size}l${size} ${-size}l${-size} ${-size}z`;
    return `M${x - size} ${y - size}h${2 * size}v${2 * size}h${-2 * size}z`;
}

/** The next of 1, 2, 5, 10, ... and how many decimals it has. */
function round(x) {
    const ten = 10 ** Math.floor(Math.log10(x)), step = ten * [1, 2, 5, 10].find((k) => k * ten >= x);
    return [step, Math.max(0, -Math.floor(Math.log10(step) + 1e-9))];
}

/** How a cloud is drawn: from its units to the panel's and back, kept inside, and the size of a step of the keys. */
function extent(points) {
    const sides = [0, 1].map((k) => points.map((z) => z[k]));
    const middle = sides.map((side) => (Math.max(...side) + Math.min(...side)) / 2);
    const reach = Math.max(...points.flatMap((z) => minus(z, middle).map(Math.abs))) || 1;
    const scale = (HIGH / 2) / (1.25 * reach), room = [WIDE, HIGH].map((side) => (side / 2 - 10) / scale);
    const [step, digits] = round(reach / 100);
    return {
        reach, scale, step, digits, ends: [middle[0] - room[0], middle[0] + room[0]],
        place: ([x, y]) => [WIDE / 2 + scale * (x - middle[0]), HIGH / 2 - scale * (y - middle[1])],
        units: ({ x, y }) => [middle[0] + (x - WIDE / 2) / scale, middle[1] - (y - HIGH / 2) / scale],
        inside: (z) => z.map((x, k) => middle[k] + Math.min(room[k], Math.max(-room[k], x - middle[k]))),
    };
}

function cloudPanel(now, began, { scale, step, digits, ends, place, units, inside }, hue, changed) {
    const balls = make("path", { fill: "#56B4E9", "fill-opacity": 0.2, stroke: "#56B4E9", "stroke-opacity": 0.7 });
    const ghosts = began.map(() => make("circle", { r: 4, fill: "none", stroke: "var(--soft)" }));
    const lines = began.slice(1).map(() => make("line", { "stroke-width": 2.5 }));
    const arrows = make("path", { fill: "none", stroke: "var(--ink)", "stroke-width": 1.8 });
    const dots = began.map((_, i) => dot(`point ${i + 1}`, "var(--ink)", 6, {
        units, step, at: () => now.points[i], to: (x, y) => {
            now.points[i] = inside([x, y]);
            changed();
        } }));
    rove(dots);
    const svg = panel("points, balls and the spanning tree", WIDE, HIGH, balls, ...ghosts, ...lines, arrows, ...dots);
    svg.show = (edges, force) => {
        const at = now.points.map(place);
        balls.setAttribute("d", now.r ? at.map(([x, y]) => ball(x, y, scale * now.r / 2, now.p)).join("") : "");
        edges.forEach(([i, j, t], k) => put(lines[k], { x1: at[i][0], y1: at[i][1], x2: at[j][0], y2: at[j][1],
            stroke: hue(t), "stroke-dasharray": t > now.r ? "2 5" : "none" }));
        const tips = force.map(([x, y]) => [UNIT * x, -UNIT * y]);
        arrows.setAttribute("d", now.pull ? at.map((from, i) => arrow(...from, ...tips[i])).join("") : "");
        dots.forEach((node, i) => {
            const more = now.pull ? `; pull ${number(force[i][0])}, ${number(force[i][1])}` : "";
            node.show(at[i], now.points[i], ends, { digits, more });
            const [cx, cy] = place(began[i]), left = Math.hypot(cx - at[i][0], cy - at[i][1]) > 9;
            put(ghosts[i], { cx, cy, visibility: left ? "visible" : "hidden" });
        });
        spread(dots, at);
    };
    return svg;
}

/** A line across the barcode, to be dragged by itself or by its knob. */
function mark(name, now, row, dash, { step, digits }, axis, changed) {
    const text = make("text", { "text-anchor": "middle", y: row + 15 }), rule = { y1: row + 21, y2: BOTTOM + 6 };
    const knob = (look, by, fill) => make("rect", { class: look, rx: 5, x: -26 - by, y: row - by, width: 52 + 2 * by,
        height: 21 + 2 * by, ...fill });
    const node = draggable(make("g", {}, make("line", { ...rule, stroke: "transparent", "stroke-width": 24 }),
        make("line", { ...rule, stroke: "var(--ink)", "stroke-width": 2, "stroke-dasharray": dash }), knob("ring", 3),
        knob("knob", 0, { fill: "var(--raised)", stroke: "var(--ink)" }), text), {
        units: ({ x }) => [axis.back(x), 0], at: () => [now[name], 0], step, line: true,
        to: (t) => {
            now[name] = Math.min(axis.most, Math.max(0, Number(t.toFixed(digits + 4))));
            changed();
        } });
    put(node, { "aria-label": `distance ${name}` });
    node.show = () => {
        put(node, { transform: `translate(${axis.x(now[name])} 0)`, "aria-valuemin": 0, "aria-valuemax": axis.most,
            "aria-valuenow": now[name], "aria-valuetext": number(now[name], digits) });
        text.textContent = `${name} ${number(now[name], digits)}`;
    };
    return node;
}

function barcodePanel(now, { digits, ...sizes }, hue, changed) {
    const count = now.points.length, thick = (BOTTOM - TOP) / count, ticks = make("g", { "text-anchor": "middle" });
    const axis = { most: 0, x: (t) => LEFT + (RIGHT - LEFT) * t / axis.most,
        back: (x) => (x - LEFT) / (RIGHT - LEFT) * axis.most };
    const bars = now.points.map((_, k) => make("rect", { x: LEFT, y: BOTTOM - (k + 0.85) * thick, height: 0.7 * thick },
        make("title")));
    const marks = [["r", 4, "none"], ["β", 30, "6 4"]].filter(([name]) => now[name] !== null).map(([name, row, dash]) =>
        mark(name, now, row, dash, { digits, ...sizes }, axis, changed));
    const base = make("line", { class: "axis", x1: LEFT, x2: RIGHT, y1: BOTTOM + 6, y2: BOTTOM + 6 });
    const svg = panel("barcode", WIDE, HIGH, base, ticks, ...bars,
        make("text", { x: RIGHT, y: HIGH - 4, "text-anchor": "end" }, "distance"), ...marks);
    const show = (bar, t, fill, text) => {
        put(bar, { width: axis.x(t) - LEFT, fill });
        bar.firstChild.textContent = text;
    };
    svg.reset = () => { axis.most = 0; };
    const fit = (longest) => {
        axis.most = 1.3 * longest;
        const [step, places] = round(axis.most / 6);
        ticks.replaceChildren(...Array.from({ length: Math.floor(axis.most / step + 1e-9) + 1 }, (_, k) => make("g",
            { transform: `translate(${axis.x(k * step)} ${BOTTOM + 6})` }, make("line", { class: "axis", y2: 5 }),
            make("text", { y: 18 }, number(k * step, places)))));
    };
    svg.show = (deaths) => {
        const longest = Math.max(...deaths, now.r, now.β);
        if (longest > axis.most || !axis.most) fit(longest || 1);
        deaths.forEach((t, k) => show(bars[k], t, hue(t), `death time ${number(t, digits + 2)}`));
        show(bars[count - 1], axis.most, "var(--raised)", "the last piece never dies");
        svg.setAttribute("aria-label", `barcode: death times ${deaths.map((t) => number(t, digits)).join(", ")}`);
        marks.forEach((node) => node.show());
    };
    return svg;
}

function build({ points: began, beta, r, p, colors }) {
    const now = {}, sizes = extent(began), hues = colors.map(shade), { digits } = sizes, plain = beta === null;
    const hue = (t) => plain ? t > now.r ? "var(--rule)" : "var(--ink)" : hues[t < now.β ? 0 : 1];
    const restore = () => Object.assign(now, { points: began.map((z) => [...z]), r, β: beta, p, pull: false });
    restore();
    const cloud = cloudPanel(now, began, sizes, hue, draw), barcode = barcodePanel(now, sizes, hue, draw);
    const loss = fact("loss", digits + 2), half = fact("radius", digits + 1), news = status();
    const norms = make("select", { "aria-label": "norm", change: () => {
        now.p = norms.value;
        draw();
    } }, ...Object.entries(NORMS).map(([value, text]) => make("option", { value }, text)));
    const pull = make("input", { type: "checkbox", change: () => {
        now.pull = pull.checked;
        draw();
    } });
    const go = player("Let go", "Hold", (seconds) => {
        const force = pulls(now.points, spanningTree(now.points, now.p), now.β, now.p);
        const far = SPEED * sizes.reach * seconds;
        now.points = now.points.map((z, i) => sizes.inside(z.map((x, k) => x + far * force[i][k])));
        draw();
    });

    function draw() {
        const edges = spanningTree(now.points, now.p), deaths = edges.map((edge) => edge[2]);
        cloud.show(edges, pulls(now.points, edges, now.β, now.p));
        barcode.show(deaths);
        [norms.value, pull.checked] = [now.p, now.pull];
        loss.show(deaths.reduce((sum, t) => sum + Math.abs(t - now.β), 0));
        half.show(now.r / 2);
        const left = 1 + deaths.filter((t) => t > now.r).length;
        news.say(`${left} piece${left > 1 ? "s" : ""}`);
    }
    const reset = () => {
        go.halt();
        restore();
        barcode.reset();
        draw();
    };
    draw();
    const swatch = (color) => make("span", { style: `color: ${color}`, "aria-hidden": true }, "■ ");
    const tools = plain ? [] : [make("label", {}, pull, "show the pull"), go];
    const sum = plain ? [] : ["Densification loss Σ|death time − β| = ", loss, "."];
    const legend = plain ? [swatch("var(--ink)"), "ended at r: the two ends are one piece. ", swatch("var(--rule)"), "later. "]
        : [swatch(hues[0]), "shorter than β: the loss pushes the ends apart. ", swatch(hues[1]),
            "longer: it pulls them together. "];
    return [
        make("div", { class: "bar" }, make("label", {}, "norm", norms), ...tools, button("Reset", reset)),
        make("div", { class: "panels" }, cloud, barcode), news,
        make("p", {}, "Balls of radius r/2 = ", half, " touch where points are r apart. ", ...sum),
        make("p", { class: "soft" }, ...legend, "Solid edges are at most r long, dotted ones longer. Drag points and "
            + (plain ? "the line" : "both lines") + ", or move them with the arrow keys (Enter: next point). Hollow dots: "
            + "where points began. The last bar is the last piece, which never dies."),
    ];
}

start("radius", build);
