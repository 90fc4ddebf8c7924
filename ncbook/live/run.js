// A recorded run as the page has it: what `ncbook.live.page` sends, read back.

export const REACH = [1.32, 4];

export function unpack(head, buffer) {
    const frames = [];
    let size = 0;
    const fields = head.layout.map(([name, bytes, shape]) => {
        const count = shape.reduce((a, b) => a * b, 1), at = size;
        size += bytes * count;
        return { name, bytes, count, at };
    });
    size = Math.ceil(size / 4) * 4;
    for (let start = 0; start + size <= buffer.byteLength; start += size) {
        const frame = {};
        for (const { name, bytes, count, at } of fields)
            frame[name] = new (bytes === 4 ? Float32Array : Uint8Array)(buffer, start + at, count);
        frames.push(frame);
    }
    return frames;
}

export function plainBuffer(view) {
    if (view instanceof ArrayBuffer) return view;
    return view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
}

export function bytesOf(base64) {
    return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

export class Run {
    constructor(head) {
        this.head = head;
        this.frames = [];
        this.dims = head.vertices[0].length;
        this.images = head.input?.kind === "images" ? picturesOf(head.input) : [];
    }

    take(keep, looks, buffer) {
        this.frames.length = Math.min(keep, this.frames.length);
        unpack(this.head, plainBuffer(buffer)).forEach((frame, k) => {
            frame.look = looks[k];
            frame.reach = this.reach(frame, this.frames.at(-1)?.reach);
            this.frames.push(frame);
        });
    }

    // How far the picture reaches, in lengths of a vertex: over all features, and with a memory of the frames
    // before, so that it breathes and does not jump.
    reach(frame, before) {
        const flat = frame["geometry.features"] ?? [], far = [];
        for (let k = 0; k < flat.length; k += this.dims) far.push(Math.hypot(...flat.subarray(k, k + this.dims)));
        far.sort((a, b) => a - b);
        const own = Math.min(REACH[1], Math.max(REACH[0], 1.05 * (far.at(-1) ?? 1)));
        const share = own > before ? 0.6 : 0.15; // what moves out is not cut off for long
        return before === undefined ? own : (1 - share) * before + share * own;
    }

    // How far the picture reaches in units of the features.
    extent(frame) {
        return frame.reach * (this.fact(frame, "size") || 1);
    }

    // β where it has an effect, else nothing.
    betaOf(frame) {
        const { beta, weight } = this.head;
        return beta === null || (weight !== null && frame.dials[weight] === 0) ? null : frame.dials[beta];
    }

    fact(frame, name) {
        return frame.facts[this.head.facts.indexOf(name)];
    }

    get last() {
        return this.frames.length - 1;
    }

    // The index of the frame nearest to a step.
    near(step) {
        let best = 0;
        this.frames.forEach((frame, k) => {
            if (Math.abs(frame.step[0] - step) <= Math.abs(this.frames[best].step[0] - step)) best = k;
        });
        return best;
    }
}

function picturesOf({ shape: [channels, height, width], pixels }) {
    const bytes = bytesOf(pixels), size = channels * height * width, pictures = [];
    for (let start = 0; start < bytes.length; start += size) {
        const picture = document.createElement("canvas");
        picture.width = width;
        picture.height = height;
        const image = new ImageData(width, height);
        for (let i = 0; i < height * width; i++) {
            for (let k = 0; k < 3; k++) image.data[4 * i + k] = bytes[start + channels * i + (channels === 3 ? k : 0)];
            image.data[4 * i + 3] = 255;
        }
        picture.getContext("2d").putImageData(image, 0, 0);
        pictures.push(picture);
    }
    return pictures;
}
