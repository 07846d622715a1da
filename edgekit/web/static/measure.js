// Loads models with LiteRT.js and measures them: the browser's twin of edgekit/ondevice/{measure,preprocess,main}.py.

import {loadAndCompile, loadLiteRt, supportsFeature, Tensor, unloadLiteRt} from './litert/core.js';

const LATENCY_INPUTS = 32;
const MOST_INPUT_BYTES = 64e6;
const MOST_LATENCIES = 200000;
// A timed stretch is at least so many ticks of the clock, so that the clock's step is at most a tenth of it.
const LEAST_TICKS = 10;
const MOST_TOGETHER = 1000;
const TRIES = 5;
const JUDGED = 8;

/** Lets the page draw and answer before the next query. */
export const pause = (ms = 0) => new Promise((resolve) => setTimeout(resolve, ms));

/** The smallest step of performance.now(), in nanoseconds: browsers make it coarse on purpose. */
export function clockStepNs() {
  let least = Infinity;
  const end = performance.now() + 60;
  for (let last = performance.now(), now = last; now < end; last = now) {
    now = performance.now();
    if (now > last) least = Math.min(least, now - last);
  }
  return Math.max(1, Math.round(least * 1e6));
}

/** What this browser is and can do; `compat` keeps it from relaxed SIMD, as if it were Safari. */
export async function capabilities(compat) {
  const relaxed = !compat && (await supportsFeature('relaxedSimd'));
  const isolated = self.crossOriginIsolated === true;
  let gpu = '';
  if (navigator.gpu) {
    const adapter = await navigator.gpu.requestAdapter().catch(() => null);
    if (adapter) gpu = [adapter.info?.vendor, adapter.info?.architecture].filter(Boolean).join(' ') || 'unnamed';
  }
  const cores = navigator.hardwareConcurrency || 1;
  return {
    secure: self.isSecureContext === true,
    isolated,
    cores,
    memory_gb: navigator.deviceMemory ?? null,
    gpu,
    clock_step_ns: clockStepNs(),
    relaxed,
    // The build with threads needs relaxed SIMD, which Safari does not have.
    modes: ['wasm', ...(isolated && relaxed && cores > 1 ? ['threads'] : []), ...(gpu ? ['webgpu'] : [])],
  };
}

/** The phone's own name, where the browser tells it. */
export async function phoneModel() {
  try {
    return (await navigator.userAgentData.getHighEntropyValues(['model'])).model || '';
  } catch {
    return '';
  }
}

/** uint8 RGB pixels to what the model takes: float32 arithmetic as in preprocess.py, bit for bit. */
export function preparer(job, input) {
  if (input === 'uint8') return (pixels) => new Uint8Array(pixels);
  const f = Math.fround;
  const table = [0, 1, 2].map((channel) => {
    const center = f(f(job.mean[channel]) * 255);
    const width = f(f(job.std[channel]) * 255);
    return Float32Array.from({length: 256}, (_, value) => f(f(value - center) / width));
  });
  return (pixels) => {
    const values = new Float32Array(pixels.length);
    for (let n = 0; n < values.length; n += 3) {
      values[n] = table[0][pixels[n]];
      values[n + 1] = table[1][pixels[n + 1]];
      values[n + 2] = table[2][pixels[n + 2]];
    }
    return values;
  };
}

let loaded = null;

/** What the runtime says: its notes are no errors of the page, though it writes them where errors go. */
const log = (line) => (/^(INFO|WARNING|VERBOSE|DEBUG)\b/.test(line) ? console.debug(line) : console.error(line));

/** Loads the build of LiteRT.js that a mode needs, instead of another one; returns its name and load time. */
async function runtime(mode, relaxed) {
  const build = mode === 'threads' ? 'threaded' : relaxed ? 'relaxed SIMD' : 'compat';
  if (loaded?.build !== build) {
    if (loaded) unloadLiteRt();
    loaded = null;
    const begun = performance.now();
    self.Module = {printErr: log};
    if (build === 'threaded') await loadLiteRt('/litert/', {threads: true});
    else await loadLiteRt(`/litert/litert_wasm_${relaxed ? '' : 'compat_'}internal.js`);
    loaded = {build, load_ms: performance.now() - begun};
  }
  return loaded;
}

/** A compiled model that answers one image after the other. */
export class Net {
  /** Throws where this browser cannot run the model in this mode; nothing else is run instead. */
  static async compile(bytes, model, job, mode, threads, relaxed) {
    const {build, load_ms} = await runtime(mode, relaxed);
    const begun = performance.now();
    const accelerator = mode === 'webgpu' ? 'webgpu' : 'wasm';
    const net = await loadAndCompile(bytes, {accelerator, cpuOptions: {numThreads: threads}});
    const compile_ms = performance.now() - begun;
    const made = new Net(net, {build, load_ms, compile_ms, fully_accelerated: net.isFullyAccelerated === true});
    const [input, output] = [net.getInputDetails()[0], net.getOutputDetails()[0]];
    const classes = [...output.shape].reduce((a, b) => a * b, 1);
    let why = '';
    if (mode === 'webgpu' && !net.isFullyAccelerated) why = 'WebGPU cannot run all of it';
    else if (input.dtype !== model.input) why = `its input is ${input.dtype}, not ${model.input}`;
    else if (output.dtype !== 'float32') why = `its output is ${output.dtype}`;
    else if (classes !== job.labels.length) why = `it has ${classes} outputs for ${job.labels.length} classes`;
    if (!why) return made;
    made.close();
    throw new Error(`${why}: not measured`);
  }

  constructor(net, described) {
    this.net = net;
    this.described = described;
    this.shape = [...net.getInputDetails()[0].shape];
  }

  /** One image in, logits out. Waits for the values: run() alone resolves before a GPU is done. */
  async infer(values) {
    const input = new Tensor(values, this.shape);
    const outputs = await this.net.run([input]);
    const answer = new Float32Array(await outputs[0].data());
    for (const output of outputs) output.delete();
    input.delete();
    return answer;
  }

  close() {
    this.net.delete();
  }
}

/** How many different inputs take turns while latency is measured. */
export const latencyInputs = (job) => {
  const bytes = job.image_size * job.image_size * 3 * 4;
  return Math.min(job.images, Math.max(2, Math.min(LATENCY_INPUTS, Math.floor(MOST_INPUT_BYTES / bytes))));
};

/** Runs until both limits of the suite are reached; returns the number of queries. */
export async function warmUp(net, inputs, limits) {
  const begun = performance.now();
  let queries = 0;
  let drawn = begun;
  while (queries < limits.warmup_queries || performance.now() - begun < limits.warmup_s * 1e3) {
    await net.infer(inputs[queries++ % inputs.length]);
    if (performance.now() - drawn > 100) {
      await pause();
      drawn = performance.now();
    }
  }
  return queries;
}

/** How many queries must be timed together for the clock's step not to matter: the most of some tries. */
export async function together(net, inputs, clockNs) {
  const least = (LEAST_TICKS * clockNs) / 1e6;
  let most = 1;
  for (let attempt = 0; attempt < TRIES; attempt++) {
    const begun = performance.now();
    let queries = 0;
    while (queries === 0 || (performance.now() - begun < least && queries < MOST_TOGETHER)) {
      await net.infer(inputs[queries++ % inputs.length]);
    }
    most = Math.max(most, queries);
  }
  return most;
}

/**
 * Latencies in whole nanoseconds, inputs in turn; of queries that are timed together, their mean.
 * Stops once both `min_queries` and `min_s` are reached, or at `max_s` whatever was reached. The page may draw
 * between two stretches, never in one. Where the first stretches are too short for the clock after all, more queries
 * are timed together and it begins again.
 */
export async function measure(net, inputs, limits, group, clockNs, seen) {
  const latencies = [];
  let started = performance.now();
  let ended = started;
  let drawn = started;
  let query = 0;
  while (latencies.length < limits.min_queries || ended - started < limits.min_s * 1e3) {
    const begun = performance.now();
    for (let n = 0; n < group; n++) await net.infer(inputs[query++ % inputs.length]);
    ended = performance.now();
    latencies.push(Math.max(1, Math.round(((ended - begun) * 1e6) / group)));
    if (latencies.length === JUDGED && group < MOST_TOGETHER && isTooShort(latencies, group, clockNs)) {
      group = Math.min(2 * group, MOST_TOGETHER);
      latencies.length = 0;
      started = ended;
    }
    if (ended - started >= limits.max_s * 1e3 || latencies.length >= MOST_LATENCIES) break;
    if (ended - drawn > 100) {
      seen(latencies, (ended - started) / 1e3);
      await pause();
      drawn = performance.now();
    }
  }
  seen(latencies, (ended - started) / 1e3);
  return {latencies, group};
}

/** Whether the median stretch has less than half of the ticks that it should have. */
const isTooShort = (latencies, group, clockNs) =>
  [...latencies].sort((a, b) => a - b)[latencies.length >> 1] * group < (LEAST_TICKS * clockNs) / 2;
