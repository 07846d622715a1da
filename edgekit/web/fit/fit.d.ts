/** What preprocess.json says of the way from a picture to a square. */
export interface Geometry {
    /** Side of the square, pixels. */
    readonly image_size: number;
    /** Length of the shorter side before the crop, for "centre-box". */
    readonly resize_size: number;
    /** "bilinear" or "bicubic". */
    readonly resample: string;
    /** "centre-box", "whole" (squashed) or "bars" (letterbox). */
    readonly geometry: string;
    /** What transparent parts lie over, and the colour of the bars: "#rrggbb". */
    readonly background: string;
}
/** What preprocess.json says of the model's input. */
export interface TensorForm {
    /** "uint8", "int8" or "float32". */
    readonly type: string;
    /** "NHWC" or "NCHW". */
    readonly layout: string;
    /** Of each channel, for pixels of 0 to 1; for "float32" only. */
    readonly mean?: readonly number[];
    readonly std?: readonly number[];
}
export type Bytes = Uint8Array | Uint8ClampedArray;
/** Pixels row by row, upright: RGB, or RGBA that is not premultiplied. An ImageData is one. */
export interface Pixels {
    readonly width: number;
    readonly height: number;
    readonly data: Bytes;
}
/** A picture that is read a band of rows at a time, so that it does not lie in memory twice. */
export interface Picture {
    readonly width: number;
    readonly height: number;
    /** Returns `count` rows from `first` on, as `Pixels.data`. */
    rows(first: number, count: number): Bytes;
}
/**
 * Resizes a picture to the square that the network takes: RGB, size * size * 3 bytes.
 *
 * Parts of RGBA that are transparent lie over the background. Pixels are read where they lie, not copied.
 * @throws RangeError: there are no pixels, or not as many as width and height say.
 */
export declare function fit(picture: Picture | Pixels, contract: Geometry): Uint8Array;
/** Returns the model's input, with a batch of 1, of a square of RGB pixels. */
export declare function toTensor(square: Uint8Array, form: TensorForm): Uint8Array | Int8Array | Float32Array;
/** Returns the square that the network takes of a picture file, or of what a page shows, such as a video. */
export declare function squareOf(source: ImageBitmapSource, contract: Geometry): Promise<Uint8Array>;
