// From a picture to the tensor that a classifier of edgekit takes: the very pixels that it was trained and measured
// with. Needs no package; `fit` and `toTensor` run in browsers and in Node.js, what reads bitmaps in browsers only.
const BITS = 22; // binary digits after the point of a weight
const ONE = 2 ** BITS;
const HALF = ONE / 2;
const BAND = 128; // rows that are read at a time
/**
 * Resizes a picture to the square that the network takes: RGB, size * size * 3 bytes.
 *
 * Parts of RGBA that are transparent lie over the background. Pixels are read where they lie, not copied.
 * @throws RangeError: there are no pixels, or not as many as width and height say.
 */
export function fit(picture, contract) {
    const { width, height } = picture;
    if (!(Number.isInteger(width) && Number.isInteger(height) && width > 0 && height > 0)) {
        throw new RangeError(`a picture of ${width} x ${height} has no pixels`);
    }
    const source = 'rows' in picture ? picture : rowsOf(picture);
    const size = contract.image_size;
    const colour = rgb(contract.background);
    if (contract.geometry === 'whole') {
        return resized(source, size, size, contract.resample, [0, 0, width, height], colour);
    }
    if (contract.geometry === 'bars')
        return between(source, contract, colour);
    if (contract.geometry !== 'centre-box')
        throw new Error(`unknown geometry ${contract.geometry}`);
    const scale = contract.resize_size / Math.min(width, height);
    const halfW = Math.min(size / scale, width) / 2;
    const halfH = Math.min(size / scale, height) / 2;
    const box = [width / 2 - halfW, height / 2 - halfH, width / 2 + halfW, height / 2 + halfH];
    return resized(source, size, size, contract.resample, box, colour);
}
/** Returns pixels as a picture, without a copy. */
function rowsOf({ width, height, data }) {
    if (data.length !== width * height * 3 && data.length !== width * height * 4) {
        throw new RangeError(`${width} x ${height} pixels have 3 or 4 bytes each, not ${data.length} in all`);
    }
    const span = data.length / height;
    return { width, height, rows: (first, count) => data.subarray(first * span, (first + count) * span) };
}
/** Returns a colour of the form "#rrggbb". */
function rgb(text) {
    const value = parseInt(text.slice(1), 16);
    return [value >> 16, (value >> 8) & 255, value & 255];
}
/** Resizes all of a picture into the middle of a square of the background colour. */
function between(source, contract, colour) {
    const { width, height } = source;
    const size = contract.image_size;
    const longest = Math.max(width, height);
    const [inW, inH] = [width, height].map((side) => Math.max(1, Math.floor((2 * side * size + longest) / (2 * longest))));
    const inside = resized(source, inW, inH, contract.resample, [0, 0, width, height], colour);
    const left = Math.floor((size - inW) / 2);
    const top = Math.floor((size - inH) / 2);
    const square = new Uint8Array(size * size * 3);
    for (let at = 0; at < square.length; at += 3)
        square.set(colour, at);
    for (let y = 0; y < inH; y++) {
        square.set(inside.subarray(y * inW * 3, (y + 1) * inW * 3), ((top + y) * size + left) * 3);
    }
    return square;
}
/**
 * Resizes a part of a picture to RGB of another size: across first, then down; each pass rounds to 8 bits.
 *
 * @param box left, top, right and bottom edge of the part.
 */
function resized(source, width, height, kernel, box, colour) {
    const across = taps(source.width, box[0], box[2], width, kernel);
    const down = taps(source.height, box[1], box[3], height, kernel);
    const begin = down.first[0]; // rows that are needed
    const end = down.first[height - 1] + down.count[height - 1];
    const span = width * 3;
    const middle = new Uint8ClampedArray((end - begin) * span);
    for (let first = begin; first < end; first += BAND) {
        const count = Math.min(BAND, end - first);
        const band = source.rows(first, count);
        const channels = band.length / (source.width * count);
        if (channels !== 3 && channels !== 4)
            throw new RangeError(`${count} rows of another length: ${band.length} bytes`);
        narrow(channels === 4 ? over(band, colour) : band, source.width, channels, across, middle.subarray((first - begin) * span, (first - begin + count) * span));
    }
    return lower(middle, begin, span, down, height);
}
/** Sums pixels of each row: the pass across. */
function narrow(band, width, channels, across, out) {
    const { first, count, weights, stride } = across;
    const outputs = first.length;
    const rows = out.length / (outputs * 3);
    for (let y = 0, to = 0; y < rows; y++) {
        for (let x = 0; x < outputs; x++, to += 3) {
            let at = (y * width + first[x]) * channels;
            let red = HALF;
            let green = HALF;
            let blue = HALF;
            for (let place = x * stride, last = place + count[x]; place < last; place++, at += channels) {
                const weight = weights[place];
                red += band[at] * weight;
                green += band[at + 1] * weight;
                blue += band[at + 2] * weight;
            }
            out[to] = red >> BITS;
            out[to + 1] = green >> BITS;
            out[to + 2] = blue >> BITS;
        }
    }
}
/** Sums rows: the pass down. `begin`: number of the first row of `middle`; `span`: bytes of a row. */
function lower(middle, begin, span, down, height) {
    const out = new Uint8ClampedArray(height * span);
    const sums = new Int32Array(span);
    for (let y = 0; y < height; y++) {
        sums.fill(HALF);
        for (let n = 0; n < down.count[y]; n++) {
            const weight = down.weights[y * down.stride + n];
            const from = (down.first[y] - begin + n) * span;
            for (let x = 0; x < span; x++)
                sums[x] += middle[from + x] * weight;
        }
        for (let x = 0; x < span; x++)
            out[y * span + x] = sums[x] >> BITS;
    }
    return new Uint8Array(out.buffer);
}
/**
 * Returns which pixels each output sums, and with which weights.
 *
 * @param length number of pixels. @param start, @param stop edges of the part that is resized.
 * @param outputs number of pixels that it becomes.
 */
function taps(length, start, stop, outputs, kernel) {
    const reach = { bilinear: 1, bicubic: 2 }[kernel];
    if (reach === undefined)
        throw new Error(`unknown kernel ${kernel}`);
    const from = Math.fround(start);
    const scale = Math.fround(Math.fround(stop) - from) / outputs;
    const wide = Math.max(scale, 1);
    const support = reach * wide;
    const stride = Math.ceil(support) * 2 + 1;
    const first = new Int32Array(outputs);
    const count = new Int32Array(outputs);
    const weights = new Int32Array(outputs * stride);
    const shares = new Float64Array(stride);
    for (let output = 0; output < outputs; output++) {
        const centre = from + (output + 0.5) * scale;
        const low = Math.max(Math.trunc(centre - support + 0.5), 0);
        const high = Math.min(Math.trunc(centre + support + 0.5), length);
        let total = 0;
        for (let place = low; place < high; place++) {
            total += shares[place - low] = weightOf(kernel, (place - centre + 0.5) * (1 / wide));
        }
        for (let n = 0; n < high - low; n++) {
            const scaled = (total ? shares[n] / total : shares[n]) * ONE;
            weights[output * stride + n] = Math.trunc(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
        }
        first[output] = low;
        count[output] = high - low;
    }
    return { first, count, weights, stride };
}
/** Returns a kernel's weight at a distance. */
function weightOf(kernel, distance) {
    const x = Math.abs(distance);
    if (kernel === 'bilinear')
        return x < 1 ? 1 - x : 0;
    if (x < 1)
        return ((-0.5 + 2) * x - (-0.5 + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
}
/** Returns RGBA over a colour, rounded as Pillow's alpha_composite: the same bytes if all are opaque, else a copy. */
function over(band, colour) {
    if (isOpaque(band))
        return band;
    const out = new Uint8Array(band.length);
    for (let at = 0; at < band.length; at += 4) {
        const alpha = band[at + 3];
        for (let channel = 0; channel < 3; channel++) {
            const sum = (band[at + channel] * alpha + colour[channel] * (255 - alpha) + 128) << 7;
            out[at + channel] = ((sum >> 8) + sum) >> 15;
        }
    }
    return out;
}
/** Returns whether every alpha of RGBA is 255. */
function isOpaque(rgba) {
    for (let at = 3; at < rgba.length; at += 4)
        if (rgba[at] !== 255)
            return false;
    return true;
}
/** Returns the model's input, with a batch of 1, of a square of RGB pixels. */
export function toTensor(square, form) {
    const values = valuesOf(square, form);
    if (form.layout === 'NHWC')
        return values;
    if (form.layout !== 'NCHW')
        throw new Error(`unknown layout ${form.layout}`);
    const planes = values.slice();
    const count = values.length / 3;
    for (let at = 0; at < values.length; at++)
        planes[(at % 3) * count + Math.floor(at / 3)] = values[at];
    return planes;
}
/** Returns the values of pixels, in the float32 arithmetic of training. */
function valuesOf(square, form) {
    if (form.type === 'uint8')
        return square.slice();
    if (form.type === 'int8')
        return new Int8Array(square.map((level) => level ^ 128).buffer); // level - 128
    const { mean, std } = form;
    if (form.type !== 'float32' || !mean || !std)
        throw new Error(`unknown type ${form.type}, or no mean and std`);
    const f = Math.fround;
    const values = new Float32Array(square.length);
    for (let channel = 0; channel < 3; channel++) {
        const centre = f(f(mean[channel]) * 255);
        const width = f(f(std[channel]) * 255);
        const table = Float32Array.from({ length: 256 }, (_, level) => f(f(level - centre) / width));
        for (let at = channel; at < square.length; at += 3)
            values[at] = table[square[at]];
    }
    return values;
}
/** Returns the square that the network takes of a picture file, or of what a page shows, such as a video. */
export async function squareOf(source, contract) {
    const bitmap = await createImageBitmap(source, {
        colorSpaceConversion: 'none', imageOrientation: 'from-image', premultiplyAlpha: 'none',
    });
    try {
        return fit(pictureOf(bitmap), contract);
    }
    finally {
        bitmap.close();
    }
}
/**
 * Returns a bitmap as a picture.
 *
 * A canvas keeps colours multiplied by alpha, so that those of transparent parts are lost; these come from WebGL.
 */
function pictureOf(bitmap) {
    const { width, height } = bitmap;
    const context = new OffscreenCanvas(width, Math.min(BAND, height)).getContext('2d', { willReadFrequently: true });
    if (!context)
        throw new Error('this browser gives no canvas');
    context.globalCompositeOperation = 'copy';
    context.imageSmoothingEnabled = false;
    let exact;
    const rows = (first, count) => {
        if (exact)
            return exact.rows(first, count);
        context.drawImage(bitmap, 0, -first); // 1:1
        const { data } = context.getImageData(0, 0, width, count);
        if (isOpaque(data))
            return data;
        exact = rowsOf(straight(bitmap));
        return exact.rows(first, count);
    };
    return { width, height, rows };
}
/** Reads the RGBA of a whole bitmap, whose colours are not multiplied by alpha. */
function straight(bitmap) {
    const { width, height } = bitmap;
    const gl = new OffscreenCanvas(1, 1).getContext('webgl2');
    if (!gl)
        throw new Error('transparent pictures need WebGL 2, which this browser does not give');
    const most = gl.getParameter(gl.MAX_TEXTURE_SIZE);
    if (Math.max(width, height) > most)
        throw new RangeError(`a transparent picture may have ${most} pixels a side here`);
    const texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
    gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
    const data = new Uint8Array(width * height * 4);
    gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, data);
    const error = gl.getError();
    gl.getExtension('WEBGL_lose_context')?.loseContext(); // browsers keep few contexts
    if (error)
        throw new Error(`WebGL cannot read the picture: error ${error}`);
    return { width, height, data };
}
