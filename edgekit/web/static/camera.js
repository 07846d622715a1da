// Camera tab: classifies camera frames and photos, top 5.

import {Net, pause, preparer} from './measure.js';

const FRAME_MS = 30;

/** Returns the classes with the highest probabilities, which are scaled by the run's temperature where it has one. */
export function best(logits, job, count = 5) {
  const warm = Array.from(logits, (value) => value / (job.temperature ?? 1));
  const most = Math.max(...warm);
  const powers = warm.map((value) => Math.exp(value - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  return [...powers.keys()]
    .sort((a, b) => powers[b] - powers[a])
    .slice(0, count)
    .map((n) => ({label: job.labels[n], probability: powers[n] / sum}));
}

/** Returns whether a file is a PNG of 16 bits a channel. */
async function isDeep(file) {
  const head = new Uint8Array(await file.slice(0, 25).arrayBuffer());
  return head[1] === 0x50 && head[2] === 0x4e && head[3] === 0x47 && head[24] === 16;
}

/** Returns where a picture is cut (x, y, width, height) and where that is drawn on the square, as `images.fit` does. */
export function placed(job, width, height) {
  const size = job.image_size;
  if (job.resize === 'squash') return [0, 0, width, height, 0, 0, size, size];
  if (job.resize === 'letterbox') {
    const longest = Math.max(width, height);
    const [w, h] = [width, height].map((n) => Math.max(1, Math.floor((2 * n * size + longest) / (2 * longest))));
    return [0, 0, width, height, Math.floor((size - w) / 2), Math.floor((size - h) / 2), w, h];
  }
  const side = (Math.min(width, height) * size) / job.resize_size;
  return [(width - side) / 2, (height - side) / 2, side, side, 0, 0, size, size];
}

/** Crops and resizes pictures as `Preprocess` does; approximately, because a canvas uses another resampling filter. */
export class Lens {
  constructor(job) {
    this.job = job;
    this.canvas = document.createElement('canvas');
    this.canvas.width = this.canvas.height = job.image_size;
    this.context = this.canvas.getContext('2d', {willReadFrequently: true});
    this.context.imageSmoothingQuality = 'high';
  }

  /** Returns the square of a video frame or an image that the model sees as uint8 RGB, HWC. */
  pixels(picture, width, height) {
    const size = this.job.image_size;
    this.context.fillStyle = this.job.background;
    this.context.fillRect(0, 0, size, size);
    this.context.drawImage(picture, ...placed(this.job, width, height));
    const rgba = this.context.getImageData(0, 0, size, size).data;
    const rgb = new Uint8Array(size * size * 3);
    for (let from = 0, to = 0; from < rgba.length; from += 4) {
      rgb[to++] = rgba[from];
      rgb[to++] = rgba[from + 1];
      rgb[to++] = rgba[from + 2];
    }
    return rgb;
  }
}

/** Classifies pictures with one model. */
export class Watcher {
  constructor(job, net, model, show) {
    this.lens = new Lens(job);
    this.prepare = preparer(job, model.input);
    Object.assign(this, {job, net, show, stream: null, running: false});
  }

  static async open(job, index, bytes, mode, threads, relaxed, show) {
    const model = job.models[index];
    return new Watcher(job, await Net.compile(bytes, model, job, mode, threads, relaxed), model, show);
  }

  async classify(picture, width, height) {
    const begun = performance.now();
    const logits = await this.net.infer(this.prepare(this.lens.pixels(picture, width, height)));
    this.show(best(logits, this.job), performance.now() - begun);
  }

  /** Classifies frames of the camera, which `video` shows, until `stop` is called. */
  async watch(video) {
    const wanted = {video: {facingMode: {ideal: 'environment'}, width: {ideal: 640}}, audio: false};
    this.stream = await navigator.mediaDevices.getUserMedia(wanted);
    video.srcObject = this.stream;
    await video.play();
    this.running = true;
    while (this.running) {
      if (video.videoWidth && !document.hidden) await this.classify(video, video.videoWidth, video.videoHeight);
      await pause(FRAME_MS);
    }
    for (const track of this.stream.getTracks()) track.stop();
    video.srcObject = null;
    this.net.close();
  }

  async photo(file) {
    if (this.job.deep && (await isDeep(file))) {
      throw new Error('a browser reads 16-bit pictures at another scale than in training: use edgekit predict');
    }
    const picture = await createImageBitmap(file, {imageOrientation: 'from-image'});
    await this.classify(picture, picture.width, picture.height);
    picture.close();
  }

  stop() {
    this.running = false;
    if (!this.stream) this.net.close();
  }
}
