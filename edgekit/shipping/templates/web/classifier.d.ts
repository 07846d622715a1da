import { type Geometry, type Pixels, type TensorForm } from './fit.js';
/** A class and its probability. */
export interface Answer {
    readonly label: string;
    readonly probability: number;
    /** Place of the class in labels.txt, from 0. */
    readonly number: number;
    readonly score: number;
}
/** Content of preprocess.json. */
export interface Contract extends Geometry {
    readonly tensor: TensorForm;
    readonly scores: {
        readonly classes: number;
        readonly temperature: number | null;
    };
    readonly labels_sha256: string;
}
export interface Options {
    /** "wasm" (CPU, the default) or "webgpu". What is asked for is used, or `open` fails. */
    readonly accelerator?: 'wasm' | 'webgpu';
    /** Address of the folder wasm/ of @litertjs/core; default: in node_modules of the kit. */
    readonly wasm?: string | URL;
    /** Model, labels.txt, preprocess.json and manifest.json by name, instead of the files of the folder. */
    readonly files?: ReadonlyMap<string, Uint8Array<ArrayBuffer>> | undefined;
}
/** A picture file, upright RGB or RGBA pixels (an ImageData is some), or what a page shows: a video, a canvas. */
export type Source = Pixels | ImageBitmapSource;
/** A model, its labels and its preprocessing. */
export declare class Classifier {
    readonly labels: readonly string[];
    readonly contract: Contract;
    readonly accelerator: 'wasm' | 'webgpu';
    private readonly net;
    private readonly run;
    private constructor();
    /**
     * Opens a model.
     *
     * @param folder address of the kit; default: where this file lies.
     * @throws Error: a file is missing, or does not belong to the model, or the accelerator cannot run it.
     */
    static open(folder?: string | URL, options?: Options): Promise<Classifier>;
    /** Returns every class, the most probable first. */
    classify(source: Source): Promise<Answer[]>;
    /** Returns what the network sees of a picture: RGB, size * size * 3 bytes. */
    pixels(source: Source): Promise<Uint8Array>;
    /** Returns the scores of one square of pixels. */
    scores(square: Uint8Array): Promise<Float32Array>;
    /** Frees the model's memory. */
    close(): void;
}
/** Returns the softmax of scores over a temperature; null: 1. */
export declare function probabilities(scores: Float32Array, temperature: number | null): Float64Array;
