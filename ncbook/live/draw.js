// What every panel draws with: a canvas as large as its box, the page's colours, text with a halo.

export const FONT = "12px var(--jp-ui-font-family, system-ui, sans-serif)";

export function themeOf(element) {
    const style = getComputedStyle(element);
    const color = (name, fallback) => style.getPropertyValue(name).trim() || fallback;
    const paper = color("--nc-paper", "#ffffff"), ink = color("--nc-ink", "#222222");
    const dark = brightness(style.backgroundColor) < 128;
    return {
        dark, paper: style.backgroundColor || paper, ink: style.color || ink, family: style.fontFamily,
        faint: dark ? "#6a6a6a" : "#bdbdbd", muted: dark ? "#b4b4b4" : "#5f5f5f", line: dark ? "#4d4d4d" : "#dcdcdc",
        apart: dark ? "#56b4e9" : "#0072b2", together: dark ? "#ff9d5c" : "#d55e00",
        beta: dark ? "#e6b800" : "#7a5c00", weight: dark ? "#ff9d5c" : "#b34700",
        bar: dark ? "#a8a8a8" : "#7d7d7d", raw: dark ? 0.5 : 0.3, zoom: Math.max(1, Math.min(1.25, element.clientWidth / 1150)),
        of: (hex) => (dark ? lighter(hex) : hex),
    };
}

function brightness(css) {
    const [r, g, b, a = 1] = (css.match(/[\d.]+/g) ?? [255, 255, 255]).map(Number);
    return a === 0 ? 255 : 0.3 * r + 0.59 * g + 0.11 * b;
}

// The colours of the book are made for paper; on a dark page each keeps its hue and gets as light as it must.
function lighter(hex) {
    const rgb = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
    const light = 0.3 * rgb[0] + 0.59 * rgb[1] + 0.11 * rgb[2];
    const share = light < 60 ? 0.6 : light < 110 ? 0.35 : 0.12;
    return `#${rgb.map((v) => Math.round(v + share * (255 - v)).toString(16).padStart(2, "0")).join("")}`;
}

export function pale(hex, alpha) {
    return `${hex}${Math.round(255 * alpha).toString(16).padStart(2, "0")}`;
}

// The context of a canvas, cleared, in units of the page's pixels; nothing where the canvas has no size.
export function contextOf(canvas) {
    const { clientWidth: width, clientHeight: height } = canvas, fine = window.devicePixelRatio || 1;
    if (!width || !height) return null;
    if (canvas.width !== Math.round(width * fine) || canvas.height !== Math.round(height * fine)) {
        canvas.width = Math.round(width * fine);
        canvas.height = Math.round(height * fine);
    }
    const context = canvas.getContext("2d");
    context.setTransform(fine, 0, 0, fine, 0, 0);
    context.clearRect(0, 0, width, height);
    context.lineJoin = context.lineCap = "round";
    return { context, width, height };
}

export function text(context, theme, words, x, y, options = {}) {
    const { color = theme.ink, size = 12, align = "left", base = "middle", bold = false, halo = true } = options;
    context.font = `${bold ? "600 " : ""}${Math.round(2 * size * theme.zoom) / 2}px ${theme.family}`;
    context.textAlign = align;
    context.textBaseline = base;
    if (halo) {
        context.strokeStyle = theme.paper;
        context.lineWidth = 3.5;
        context.setLineDash([]);
        context.strokeText(words, x, y);
    }
    context.fillStyle = color;
    context.fillText(words, x, y);
}

export function line(context, points, color, width = 1, dash = []) {
    context.strokeStyle = color;
    context.lineWidth = width;
    context.setLineDash(dash);
    context.beginPath();
    let drawing = false;
    for (const [x, y] of points) {
        if (!Number.isFinite(x) || !Number.isFinite(y)) drawing = false;
        else if (drawing) context.lineTo(x, y);
        else {
            context.moveTo(x, y);
            drawing = true;
        }
    }
    context.stroke();
    context.setLineDash([]);
}

export function dot(context, x, y, radius, fill, rim, width = 1) {
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    if (fill) {
        context.fillStyle = fill;
        context.fill();
    }
    if (rim) {
        context.strokeStyle = rim;
        context.lineWidth = width;
        context.setLineDash([]);
        context.stroke();
    }
}

// The smallest of 1, 2, 5, 10, 20, ... times a power of ten that is at least x.
export function nice(x) {
    if (!(x > 0)) return 1;
    const power = 10 ** Math.floor(Math.log10(x) + 1e-9);
    return [1, 2, 5, 10].find((k) => k * power >= x * 0.999999) * power;
}

export function number(x, digits = 3) {
    if (x === null || x === undefined || !Number.isFinite(x)) return "–";
    if (x !== 0 && (Math.abs(x) < 1e-3 || Math.abs(x) >= 1e5)) return x.toExponential(1).replace("e-", "e−");
    return String(Number(x.toPrecision(digits)));
}
