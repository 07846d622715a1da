// Classifies pictures in a browser with the model of this folder, exactly as it was trained and measured.
//
//     import { Classifier } from "./classifier.js";
//     const model = await Classifier.open();
//     for (const answer of (await model.classify(file)).slice(0, 3)) {
//       console.log(answer.label, answer.probability);
//     }
//
// Needs LiteRT.js (@litertjs/core), which is loaded when a model is opened. Made by edgekit.
import { fit, squareOf, toTensor } from './fit.js';
/** A model, its labels and its preprocessing. */
export class Classifier {
    labels;
    contract;
    accelerator;
    net;
    run;
    constructor(labels, contract, accelerator, net, run) {
        this.labels = labels;
        this.contract = contract;
        this.accelerator = accelerator;
        this.net = net;
        this.run = run;
    }
    /**
     * Opens a model.
     *
     * @param folder address of the kit; default: where this file lies.
     * @throws Error: a file is missing, or does not belong to the model, or the accelerator cannot run it.
     */
    static async open(folder = new URL('.', import.meta.url), options = {}) {
        const base = new URL(folder, globalThis.document?.baseURI ?? import.meta.url);
        const load = async (name) => options.files ? given(options.files, name) : loaded(base, name);
        const manifest = JSON.parse(text(await load('manifest.json')));
        const contract = JSON.parse(text(await load('preprocess.json')));
        const labels = await labelsOf(await load('labels.txt'), contract);
        const accelerator = options.accelerator ?? 'wasm';
        const wasm = new URL(options.wasm ?? new URL('node_modules/@litertjs/core/wasm/', base), base);
        const litert = await runtime(wasm);
        const net = await litert.loadAndCompile(await load(manifest.model), { accelerator });
        const why = misfit(net, accelerator, contract);
        if (why) {
            net.delete();
            throw new Error(`${manifest.model}: ${why}`);
        }
        const shape = [...net.getInputDetails()[0].shape];
        const run = async (input) => {
            const tensor = new litert.Tensor(input, shape);
            const outputs = await net.run([tensor]);
            const scores = new Float32Array(await outputs[0].data());
            for (const each of [tensor, ...outputs])
                each.delete();
            return scores;
        };
        return new Classifier(labels, contract, accelerator, net, run);
    }
    /** Returns every class, the most probable first. */
    async classify(source) {
        const scores = await this.scores(await this.pixels(source));
        const shares = probabilities(scores, this.contract.scores.temperature);
        const answer = (number) => ({ label: this.labels[number], probability: shares[number], number, score: scores[number] });
        return [...shares.keys()].map(answer).sort((a, b) => b.probability - a.probability);
    }
    /** Returns what the network sees of a picture: RGB, size * size * 3 bytes. */
    async pixels(source) {
        return 'data' in source ? fit(source, this.contract) : squareOf(source, this.contract);
    }
    /** Returns the scores of one square of pixels. */
    async scores(square) {
        return this.run(toTensor(square, this.contract.tensor));
    }
    /** Frees the model's memory. */
    close() {
        this.net.delete();
    }
}
/** Returns the softmax of scores over a temperature; null: 1. */
export function probabilities(scores, temperature) {
    const most = scores.reduce((a, b) => Math.max(a, b), -Infinity);
    const powers = Float64Array.from(scores, (score) => Math.exp((score - most) / (temperature ?? 1)));
    const sum = powers.reduce((a, b) => a + b, 0);
    return powers.map((power) => power / sum);
}
/** Returns why a compiled model is not the one that was asked for; "" if it is. */
function misfit(net, accelerator, contract) {
    const [input, output] = [net.getInputDetails()[0], net.getOutputDetails()[0]];
    const classes = [...output.shape].reduce((a, b) => a * b, 1);
    // LiteRT.js compiles for WebAssembly instead, and only warns, if WebGPU cannot run every operator.
    if (net.options.accelerator !== accelerator)
        return `${accelerator} cannot run all of its operators`;
    if (accelerator === 'webgpu' && !net.isFullyAccelerated)
        return 'WebGPU cannot run all of its operators';
    if (input.dtype !== contract.tensor.type)
        return `its input is ${input.dtype}, not ${contract.tensor.type}`;
    if (output.dtype !== 'float32')
        return `its output is ${output.dtype}`;
    return classes === contract.scores.classes ? '' : `it has ${classes} outputs for ${contract.scores.classes} classes`;
}
/** Loads LiteRT.js once for the page; whoever has loaded it already may go on using it. */
async function runtime(wasm) {
    const litert = await import('@litertjs/core');
    await (litert.getGlobalLiteRtPromise() ?? litert.loadLiteRt(wasm.href, { threads: false }));
    return litert;
}
/** Returns the classes. */
async function labelsOf(bytes, contract) {
    const labels = text(bytes).replace(/\n$/, '').split('\n');
    const hash = await sha256(bytes);
    if (labels.length !== contract.scores.classes || (hash && hash !== contract.labels_sha256)) {
        throw new Error('labels.txt is not the one that the model was trained with (preprocess.json has its hash)');
    }
    return labels;
}
/** Returns one of the given files. */
function given(files, name) {
    const bytes = files.get(name);
    if (!bytes)
        throw new Error(`${name} is not among the files`);
    return bytes;
}
/** Returns the content of a file of the kit. */
async function loaded(base, name) {
    const answer = await fetch(new URL(name, base));
    if (!answer.ok)
        throw new Error(`${name} cannot be loaded: HTTP status ${answer.status}`);
    return new Uint8Array(await answer.arrayBuffer());
}
/** Decodes UTF-8. */
function text(bytes) {
    return new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes);
}
/** Returns a SHA-256 in hexadecimal digits; "" on pages that are not secure, where browsers compute none. */
async function sha256(bytes) {
    if (!globalThis.crypto?.subtle)
        return '';
    const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
    return Array.from(hash, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
