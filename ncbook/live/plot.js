// Comes after plotly.js, which leaves itself on the window.
const Plotly = window.Plotly;
const AT_ONCE = { mode: "immediate", frame: { duration: 0, redraw: false }, transition: { duration: 0 } };
const WHOLE_EVERY = 1500, REST = 300; // milliseconds

function put(into, values) {
    for (const [key, value] of Object.entries(values)) {
        if (value instanceof DataView) {
            const { buffer, byteOffset, byteLength } = value;
            into[key] = new Float32Array(buffer.slice(byteOffset, byteOffset + byteLength));
        } else put(into[key], value);
    }
}

async function render({ model, el }) {
    const plot = el.appendChild(document.createElement("div"));
    let last = Promise.resolve(), done = -1, whole = 0, later;
    const queue = (task) => { last = last.then(task).catch((error) => console.error(error)); };
    const redraw = async () => {
        await Plotly.redraw(plot);
        whole = performance.now();
    };
    const answer = () => {
        model.set("drawn", done);
        model.save_changes();
    };
    const settle = async () => {
        await redraw();
        answer();
    };
    const move = async () => {
        await new Promise((go) => setTimeout(go)); // take in what has come while the last one was drawn
        const { number, moves } = model.get("_moves");
        if (number === done) return;
        done = number;
        clearTimeout(later);
        put(plot.data, moves);
        const solid = plot.data.some((trace) => trace.type === "scatter3d");
        if (solid || performance.now() > whole + WHOLE_EVERY) await redraw();
        else {
            // Moves lines and dots at half the cost, but does not touch axes, and would take heat maps away.
            const traces = Object.keys(moves).map(Number);
            await Plotly.animate(plot, { data: traces.map(() => ({})), traces }, AT_ONCE);
        }
        later = setTimeout(() => queue(solid ? answer : settle), REST);
        // Not each: an answer makes the kernel busy, then idle, and to show that costs JupyterLab half a drawing.
        if (number >= model.get("drawn") + 3) answer();
    };
    const show = async () => {
        const { data, layout } = JSON.parse(model.get("_figure"));
        await Plotly.react(plot, data, layout, { displaylogo: false });
        done = -1;
        whole = 0;
        await move();
    };
    queue(show);
    model.on("change:_figure", () => queue(show));
    model.on("change:_moves", () => queue(move));
    return () => {
        clearTimeout(later);
        model.off();
        Plotly.purge(plot);
    };
}

export default { render };
