import { arrow, button, dot, draggable, fact, make, number, panel, player, put, rove, shade, spread, start, status }
    from "./explorers.js";

const WIDE = 340, HIGH = 300, LEFT = 32, RIGHT = 308, TOP = 56, BOTTOM = 258;
const UNIT = 20, SPEED = 0.15; // length of an arrow of pull 1; part of the cloud's size that it moves a point in a second
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

function build({ points: given, beta, r, p: norm, colors }) {
    const [short, long] = colors.map(shade), count = given.length;
    const middle = [0, 1].map((k) => (Math.max(...given.map((z) => z[k])) + Math.min(...given.map((z) => z[k]))) / 2);
    const reach = Math.max(...given.flatMap((z) => minus(z, middle).map(Math.abs))) || 1;
    const scale = (HIGH / 2) / (1.25 * reach), limit = [WIDE / 2 - 10, HIGH / 2 - 10].map((room) => room / scale);
    const [step, digits] = round(reach / 100);
    const place = ([x, y]) => [WIDE / 2 + scale * (x - middle[0]), HIGH / 2 - scale * (y - middle[1])];
    const units = ({ x, y }) => [middle[0] + (x - WIDE / 2) / scale, middle[1] - (y - HIGH / 2) / scale];
    let points, now, p, most, showPull;
    const restore = () => {
        points = given.map((z) => [...z]);
        [now, p, most, showPull] = [{ r, β: beta }, norm, 0, false];
    };
    const clamp = (z) => z.map((x, k) => middle[k] + Math.min(limit[k], Math.max(-limit[k], x - middle[k])));

    const balls = make("path", { fill: "#56B4E9", "fill-opacity": 0.2, stroke: "#56B4E9", "stroke-opacity": 0.7 });
    const ghosts = given.map(() => make("circle", { r: 4, fill: "none", stroke: "var(--soft)" }));
    const lines = given.slice(1).map(() => make("line", { "stroke-width": 2.5 }));
    const forces = make("path", { fill: "none", stroke: "var(--ink)", "stroke-width": 1.8 });
    const dots = given.map((_, i) => dot(`point ${i + 1}`, "var(--ink)", 6, {
        units, at: () => points[i], step, to: (x, y) => {
            points[i] = clamp([x, y]);
            draw();
        } }));
    rove(dots);
    const cloud = panel("points, balls and the spanning tree", WIDE, HIGH, balls, ...ghosts, ...lines, forces, ...dots);

    const across = (t) => LEFT + (RIGHT - LEFT) * t / most, thick = (BOTTOM - TOP) / count;
    const bars = given.map((_, k) => make("rect", { x: LEFT, y: BOTTOM - (k + 0.85) * thick, height: 0.7 * thick },
        make("title")));
    const ticks = make("g", { "text-anchor": "middle" });
    const mark = (name, label, row, dash) => {
        const text = make("text", { "text-anchor": "middle", y: row + 15 });
        const knob = [["ring", -3], ["knob", 0]].map(([look, by]) => make("rect", { class: look, rx: 5, x: -26 + by,
            y: row + by, width: 52 - 2 * by, height: 21 - 2 * by, ...(by ? {} : { fill: "var(--raised)",
                stroke: "var(--ink)" }) }));
        const rule = { y1: row + 21, y2: BOTTOM + 6 };
        const node = draggable(make("g", {}, make("line", { ...rule, stroke: "transparent", "stroke-width": 24 }),
            make("line", { ...rule, stroke: "var(--ink)", "stroke-width": 2, "stroke-dasharray": dash }), ...knob, text), {
            units: ({ x }) => [(x - LEFT) / (RIGHT - LEFT) * most, 0], at: () => [now[name], 0], step, line: true,
            to: (t) => {
                now[name] = Math.min(most, Math.max(0, Number(t.toFixed(digits + 4))));
                draw();
            } });
        put(node, { "aria-label": label });
        node.show = () => {
            put(node, { transform: `translate(${across(now[name])} 0)`, "aria-valuemin": 0, "aria-valuemax": most,
                "aria-valuenow": now[name], "aria-valuetext": number(now[name], digits) });
            text.textContent = `${name} ${number(now[name], digits)}`;
        };
        return node;
    };
    const marks = [mark("r", "distance r", 4, "none"), mark("β", "distance β", 30, "6 4")];
    const barcode = panel("barcode", WIDE, HIGH, make("line", { class: "axis", x1: LEFT, x2: RIGHT, y1: BOTTOM + 6,
        y2: BOTTOM + 6 }), ticks, ...bars, make("text", { x: RIGHT, y: HIGH - 4, "text-anchor": "end" }, "distance"),
    ...marks);

    const loss = fact("loss", digits + 2), half = fact("radius", digits + 1), news = status();
    const menu = make("select", { "aria-label": "norm", change: () => {
        p = menu.value;
        draw();
    } }, ...Object.entries(NORMS).map(([value, text]) => make("option", { value }, text)));
    const pull = make("input", { type: "checkbox", change: () => {
        showPull = pull.checked;
        draw();
    } });
    const go = player("Let go", "Hold", (seconds) => {
        const force = pulls(points, spanningTree(points, p), now.β, p);
        points = points.map((z, i) => clamp(z.map((x, k) => x + SPEED * reach * seconds * force[i][k])));
        draw();
    });
    const reset = () => {
        go.halt();
        restore();
        draw();
    };

    function axis(longest) {
        if (longest <= most) return;
        most = 1.3 * longest;
        const [step, places] = round(most / 6);
        ticks.replaceChildren(...Array.from({ length: Math.floor(most / step + 1e-9) + 1 }, (_, k) => make("g",
            { transform: `translate(${across(k * step)} ${BOTTOM + 6})` }, make("line", { class: "axis", y2: 5 }),
            make("text", { y: 18 }, number(k * step, places)))));
    }

    function draw() {
        const edges = spanningTree(points, p), deaths = edges.map((edge) => edge[2]), at = points.map(place);
        const force = pulls(points, edges, now.β, p);
        axis(Math.max(...deaths, now.r, now.β));
        balls.setAttribute("d", now.r ? at.map(([x, y]) => ball(x, y, scale * now.r / 2, p)).join("") : "");
        edges.forEach(([i, j, t], k) => {
            const late = t > now.r, color = t < now.β ? short : long;
            put(lines[k], { x1: at[i][0], y1: at[i][1], x2: at[j][0], y2: at[j][1], stroke: color,
                "stroke-dasharray": late ? "2 5" : "none" });
            put(bars[k], { width: across(t) - LEFT, fill: color });
            bars[k].firstChild.textContent = `death time ${number(t, digits + 2)}`;
        });
        put(bars[count - 1], { width: RIGHT - LEFT, fill: "var(--raised)" });
        bars[count - 1].firstChild.textContent = "the last component never dies";
        forces.setAttribute("d", showPull ? at.map(([x, y], i) =>
            arrow(x, y, UNIT * force[i][0], -UNIT * force[i][1])).join("") : "");
        dots.forEach((node, i) => {
            const more = showPull ? `; pull ${number(force[i][0])}, ${number(force[i][1])}` : "";
            node.show(at[i], points[i], [middle[0] - limit[0], middle[0] + limit[0]], { digits, more });
            const [x, y] = place(given[i]);
            put(ghosts[i], { cx: x, cy: y, visibility: Math.hypot(x - at[i][0], y - at[i][1]) > 9 ? "visible" : "hidden" });
        });
        spread(dots, at);
        marks.forEach((node) => node.show());
        [menu.value, pull.checked] = [p, showPull];
        const left = 1 + deaths.filter((t) => t > now.r).length;
        loss.show(deaths.reduce((sum, t) => sum + Math.abs(t - now.β), 0));
        half.show(now.r / 2);
        barcode.setAttribute("aria-label", `barcode: death times ${deaths.map((t) => number(t, digits)).join(", ")}`);
        news.say(`${left} component${left > 1 ? "s" : ""}`);
    }
    reset();
    const swatch = (color) => make("span", { style: `color: ${color}`, "aria-hidden": true }, "■ ");
    return [
        make("div", { class: "bar" }, make("label", {}, "norm", menu), make("label", {}, pull, "show the pull"), go,
            button("Reset", reset)),
        make("div", { class: "panels" }, cloud, barcode), news,
        make("p", {}, "Balls of radius r/2 = ", half, " touch where points are r apart. ",
            "Densification loss Σ|death time − β| = ", loss, "."),
        make("p", { class: "soft" }, swatch(short), "shorter than β: the loss pushes the ends apart. ", swatch(long),
            "longer: it pulls them together. Solid edges are at most r long, dotted ones longer. Drag points and both lines, "
            + "or move them with the arrow keys (Enter: next point). Hollow dots: where points began. The grey bar is the last component, which never dies."),
    ];
}

start("radius", build);
