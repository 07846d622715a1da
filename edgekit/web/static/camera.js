// Camera tab: classifies camera frames and photos, top 5.

import {squareOf, toTensor} from './fit.js';
import {Net, pause} from './measure.js';

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

/** Classifies pictures with one model. */
export class Watcher {
  constructor(job, net, model, show) {
    Object.assign(this, {job, net, model, show, stream: null, running: false});
  }

  static async open(job, index, bytes, mode, threads, relaxed, show) {
    const model = job.models[index];
    return new Watcher(job, await Net.compile(bytes, model, job, mode, threads, relaxed), model, show);
  }

  /** Classifies a picture file, or the frame that a video shows, from the pixels that training would take of it. */
  async classify(source) {
    const begun = performance.now();
    const square = await squareOf(source, this.job.picture);
    const logits = await this.net.infer(toTensor(square, this.model.tensor));
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
      if (video.videoWidth && !document.hidden) await this.classify(video);
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
    await this.classify(file);
  }

  stop() {
    this.running = false;
    if (!this.stream) this.net.close();
  }
}
