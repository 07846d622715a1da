// Runs models with LiteRT.js and measures them, as edgekit/ondevice/{measure,preprocess,main}.py do in Python.

import {loadAndCompile, loadLiteRt, supportsFeature, Tensor, unloadLiteRt} from './litert/core.js';

const LATENCY_INPUTS = 32;
const MOST_INPUT_BYTES = 64e6;
const MOST_LATENCIES = 200000;
// Ticks of the clock that a timed group of queries must last, so that the resolution is at most a tenth of it.
const LEAST_TICKS = 10;
const MOST_TOGETHER = 1000;
const TRIES = 5;
const JUDGED = 8;

/** Lets the page draw and handle events. */
export const pause = (ms = 0) => new Promise((resolve) => setTimeout(resolve, ms));

/** Measures the resolution of performance.now() in nanoseconds; browsers coarsen it on purpose. */
export function clockStepNs() {
  let least = Infinity;
  const end = performance.now() + 60;
  for (let last = performance.now(), now = last; now < end; last = now) {
    now = performance.now();
    if (now > last) least = Math.min(least, now - last);
  }
  return Math.max(1, Math.round(least * 1e6));
}

/** Returns the capabilities of this browser. With `compat` it does not use relaxed SIMD, which Safari lacks. */
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

/** Returns the model name of the phone, "" where the browser does not reveal it. */
export async function phoneModel() {
  try {
    return (await navigator.userAgentData.getHighEntropyValues(['model'])).model || '';
  } catch {
    return '';
  }
}

let loaded = null;

/** Logs a line of the runtime's standard error; its notes are not errors. */
const log = (line) => (/^(INFO|WARNING|VERBOSE|DEBUG)\b/.test(line) ? console.debug(line) : console.error(line));

/** Loads the build of LiteRT.js that a mode needs, in place of another one. Returns its name and load time. */
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

/** A compiled model for batches of one image. */
export class Net {
  /** Compiles a model. Throws if this browser cannot run it in this mode: there is no fallback to another mode. */
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
    // LiteRT.js compiles for WebAssembly, and only warns, where WebGPU cannot run every operator.
    if (net.options.accelerator !== accelerator || (mode === 'webgpu' && !net.isFullyAccelerated)) why = 'WebGPU cannot run all of its operators';
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

  /** Returns the logits of one image. Waits for their values, because run() resolves before a GPU is done. */
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

/** Returns the number of different inputs that alternate while latency is measured. */
export const latencyInputs = (job) => {
  const bytes = job.image_size * job.image_size * 3 * 4;
  return Math.min(job.images, Math.max(2, Math.min(LATENCY_INPUTS, Math.floor(MOST_INPUT_BYTES / bytes))));
};

/** Warms up until both limits of the suite are reached. Returns the number of queries. */
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

/** Returns the number of queries to time together so that the clock's resolution does not matter: the maximum of some tries. */
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
 * Measures latency with alternating inputs. Returns whole nanoseconds; for queries that are timed together, their mean.
 * Stops once both `min_queries` and `min_s` are reached, and at `max_s` in any case. The page draws between two groups
 * of queries, never within one. If the first groups are too short for the clock, the size of the groups is doubled and
 * the measurement starts again.
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

/** Returns whether the median group lasts less than half of the ticks that it should. */
const isTooShort = (latencies, group, clockNs) =>
  [...latencies].sort((a, b) => a - b)[latencies.length >> 1] * group < (LEAST_TICKS * clockNs) / 2;
