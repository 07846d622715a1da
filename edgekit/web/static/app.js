// Page of `edgekit serve`: measures the models of a run and sends the results back, or classifies camera pictures.

import {Watcher} from './camera.js';
import {el, ms, ranking, strip} from './draw.js';
import {toTensor} from './fit.js';
import {capabilities, latencyInputs, measure, Net, phoneModel, together, warmUp} from './measure.js';

const $ = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);
const TITLES = {wasm: '1 thread', threads: 'threads', webgpu: 'GPU'};
const state = {job: null, can: null, modes: new Set(), done: new Map(), failed: new Map(), busy: false, watcher: null};

/** Sends a request: POST with a body, else GET. Throws an Error with the server's text and, as `status`, its HTTP status. */
async function request(path, body, binary) {
  const options = body === undefined ? {} : {method: 'POST', body: binary ? body : JSON.stringify(body)};
  const answer = await fetch(path, options).catch(() => {
    throw new Error('the server does not respond: is edgekit serve still running?');
  });
  if (!answer.ok) throw Object.assign(new Error((await answer.text()) || `request refused (HTTP status ${answer.status})`), {status: answer.status});
  return answer;
}

const bytes = async (path) => new Uint8Array(await (await request(path)).arrayBuffer());

/** Exchanges the link's token for a cookie, which outlasts a reload of the page, and returns the job. */
async function enter() {
  const token = location.hash.slice(1);
  if (token) {
    await request('/api/enter', {token, phone: await phoneModel()});
    history.replaceState(null, '', location.pathname + location.search);
  }
  return (await request('/api/job')).json();
}

const threadsOf = (mode) => (mode === 'threads' ? state.job.threads || Math.min(4, state.can.cores) : 1);
const titleOf = (mode) => (mode === 'threads' ? `${threadsOf(mode)} threads` : TITLES[mode]);
const key = (model, mode) => `${model} ${mode}`;

function fail(error) {
  $('error').textContent = error.message || String(error);
  $('error').hidden = false;
}

function drawSetup() {
  const {job, can} = state;
  const step = can.clock_step_ns >= 1e6 ? `${can.clock_step_ns / 1e6} ms` : `${Math.round(can.clock_step_ns / 1e3)} µs`;
  const chips = [
    [can.secure, can.secure ? 'secure page' : 'insecure page: no threads, GPU or camera'],
    [can.isolated, can.isolated ? 'isolated' : 'not isolated'],
    [true, `${can.cores} ${can.cores === 1 ? 'core' : 'cores'}`],
    [can.gpu, can.gpu ? `GPU ${can.gpu}` : 'no WebGPU'],
    [can.clock_step_ns < 1e6, `clock resolution ${step}`],
  ];
  $('can').replaceChildren(...chips.map(([yes, text]) => el('li', {class: yes ? '' : 'no'}, text)));
  const toggle = (mode) => {
    if (!state.modes.delete(mode)) state.modes.add(mode);
    draw();
  };
  const pressed = (mode) => String(state.modes.has(mode));
  const choices = can.modes.map((m) =>
    el('button', {type: 'button', 'aria-pressed': pressed(m), onclick: () => toggle(m)}, titleOf(m)));
  $('modes').replaceChildren(...choices);
  $('models').replaceChildren(...job.models.map((m) =>
    el('li', {}, el('span', {}, m.name), el('span', {class: 'quiet'}, `${m.precision}, ${(m.bytes / 1e6).toFixed(1)} MB`))));
  $('plan').textContent = `${job.images} test images, suite ${job.suite}, ${job.runtime}`;
}

function card(figures) {
  const {queries, timed_together: group} = figures;
  const cells = [['p50', ms(figures.p50_ms), 'ms'], ['p90', ms(figures.p90_ms), ''], ['p99', ms(figures.p99_ms), ''],
    ...(figures.top1 === null ? [] : [['top-1', figures.top1.toFixed(1), '%']])];
  const why = group > 1 || figures.p99_ms !== null ? '' : ' (p99 needs at least 662)';
  const notes = [`${queries} latencies${why}, ${figures.images} test images`];
  if (group > 1) notes.push(`coarse clock: each latency is the mean of ${group} queries, so there is no p90 and no p99`);
  if (!figures.fully_accelerated) notes.push('XNNPACK accelerates only a part of this model in this browser');
  if (figures.was_hidden) notes.push('the page was in the background during the measurement: unreliable');
  return el('article', {class: 'card result'},
    el('header', {}, el('h3', {}, figures.model), el('span', {class: 'quiet'}, titleOf(figures.mode))),
    el('dl', {class: 'figures'}, ...cells.map(([name, value, unit]) =>
      el('div', {}, el('dt', {}, name), el('dd', {}, value, unit ? el('small', {}, ` ${unit}`) : '')))),
    strip(figures.strip_ms, figures.p50_ms), ...notes.map((text) => el('p', {class: 'note'}, text)));
}

/** Measurements that are left: chosen modes of all models, without those that are done or failed. */
const remaining = () => state.job.models.flatMap((model, index) =>
  state.can.modes.filter((mode) => state.modes.has(mode) && !state.done.has(key(model.name, mode))
    && !state.failed.has(key(model.name, mode))).map((mode) => ({model, index, mode}))).sort((a, b) =>
  state.can.modes.indexOf(a.mode) - state.can.modes.indexOf(b.mode));

function draw() {
  drawSetup();
  const failures = [...state.failed].map(([what, why]) => el('p', {class: 'bad'}, `${what}: ${why}`));
  $('results').replaceChildren(...[...state.done.values()].map(card), ...failures);
  const [left, some] = [remaining().length, state.done.size + state.failed.size];
  $('setup').hidden = state.busy;
  $('live').hidden = !state.busy;
  $('start').hidden = state.busy;
  $('start').disabled = !state.modes.size;
  $('start').textContent = !some ? 'Start' : left ? `Measure ${left} more` : 'Measure again';
  for (const tab of document.querySelectorAll('nav button')) tab.disabled = state.busy;
}

let reporting = Promise.resolve();
/** Reports progress to the server. Callers do not wait for it; nothing is reported while latency is measured. */
function report(done, total, text) {
  reporting = reporting.then(() => request('/api/progress', {done, total, text})).catch(() => {});
  return reporting;
}

/** Shows the current measurement; `share` of it is done, from 0 to 1. */
function live(what, phase, share) {
  $('what').textContent = what;
  $('phase').textContent = phase;
  $('bar').value = share;
}

/** Measures one model in one mode: latency first, then the logits of every test image. Returns the figures. */
async function run({model, index, mode}) {
  const {job, can} = state;
  const what = `${model.name}, ${titleOf(mode)}`;
  $('plot').replaceChildren();
  live(model.name, `${titleOf(mode)}, loading`, 0.02);
  await request('/api/begin', {model: index, mode});
  await report(0, job.images, `${what}: loading`);
  const net = await Net.compile(await bytes(`/api/model/${index}`), model, job, mode, threadsOf(mode), can.relaxed);
  try {
    const size = job.image_size * job.image_size * 3;
    const chunks = Math.ceil(job.images / job.chunk);
    const image = (chunk, n) => toTensor(chunk.subarray(n * size, (n + 1) * size), model.tensor);
    const inputs = [];
    for (let c = 0; inputs.length < latencyInputs(job); c++) {
      const chunk = await bytes(`/api/images/${c}`);
      for (let n = 0; n < chunk.length / size && inputs.length < latencyInputs(job); n++) inputs.push(image(chunk, n));
    }
    await report(0, job.images, `${what}: measuring latency`);
    const hid = watchHidden();
    live(model.name, `${titleOf(mode)}, warming up`, 0.05);
    const warmup_queries = await warmUp(net, inputs, job.limits);
    const first = await together(net, inputs, can.clock_step_ns);
    const {latencies, group} = await measure(net, inputs, job.limits, first, can.clock_step_ns, (so_far, seconds) => {
      const share = Math.min(so_far.length / job.limits.min_queries, seconds / job.limits.min_s);
      live(model.name, `${titleOf(mode)}, latency: ${so_far.length} queries`, 0.1 + 0.4 * Math.min(1, Math.max(share, seconds / job.limits.max_s)));
      $('plot').replaceChildren(strip(so_far.slice(-400).map((ns) => ns / 1e6)));
    });
    const was_hidden = hid();
    let done = 0;
    for (let c = 0; c < chunks; c++) {
      const chunk = await bytes(`/api/images/${c}`);
      const count = chunk.length / size;
      const logits = new Float32Array(count * job.labels.length);
      for (let n = 0; n < count; n++) {
        logits.set(await net.infer(image(chunk, n)), n * job.labels.length);
        if (++done % 8 === 0) {
          live(model.name, `${titleOf(mode)}, accuracy: ${done} of ${job.images} images`, 0.5 + (0.5 * done) / job.images);
          await new Promise((resolve) => setTimeout(resolve));
        }
      }
      await request(`/api/logits/${c}`, logits, true);
      report(done, job.images, `${what}: accuracy`);
    }
    await reporting;
    const environment = {
      threads: threadsOf(mode), cores: can.cores, memory_gb: can.memory_gb, gpu: can.gpu, isolated: can.isolated,
      secure: can.secure, clock_step_ns: can.clock_step_ns, timed_together: group, warmup_queries, was_hidden,
      ...net.described,
    };
    return await (await request('/api/finish', {latencies_ns: latencies, environment})).json();
  } finally {
    net.close();
  }
}

/** Returns a function that tells whether the page was in the background since, where browsers slow everything down. */
function watchHidden() {
  let hidden = document.hidden;
  const note = () => (hidden ||= document.hidden);
  document.addEventListener('visibilitychange', note);
  return () => {
    document.removeEventListener('visibilitychange', note);
    return hidden;
  };
}

async function start() {
  if (!remaining().length) {
    state.done.clear();
    state.failed.clear();
  }
  state.busy = true;
  $('error').hidden = $('sent').hidden = true;
  draw();
  const lock = await navigator.wakeLock?.request('screen').catch(() => null);
  try {
    for (const step of remaining()) {
      try {
        state.done.set(key(step.model.name, step.mode), await run(step));
      } catch (error) {
        if (error.status === 401 || error.status === 403) throw error;
        const why = error.message || String(error);
        await request('/api/failed', {text: `${step.model.name}, ${titleOf(step.mode)}: ${why}`});
        state.failed.set(key(step.model.name, step.mode), why);
      }
      draw();
    }
    await request('/api/end', {});
    $('sent').textContent = `All results were sent. They are kept as ${state.job.device}.`;
    $('sent').hidden = false;
  } catch (error) {
    fail(error);
  }
  await lock?.release();
  state.busy = false;
  draw();
}

function showTab(name) {
  for (const tab of document.querySelectorAll('nav button')) tab.setAttribute('aria-current', String(tab.dataset.tab === name));
  $('measure').hidden = name !== 'measure';
  $('camera').hidden = name !== 'camera';
  $('error').hidden = true;
  if (name !== 'camera') closeCamera();
}

const CAMERA_CLOSED = 'the camera is closed';

function closeCamera() {
  state.watcher?.stop();
  state.watcher = null;
  $('closed').textContent = state.can.secure ? CAMERA_CLOSED
    : 'The live camera needs a secure page: edgekit serve --lan --https. Photos work without it.';
  $('look').textContent = 'Open';
  $('look').hidden = !state.can.secure;
}

/** Returns a watcher of the chosen model, with threads where they are available. */
async function watcher() {
  const {job, can} = state;
  const index = Number($('model').value);
  const model = await bytes(`/api/model/${index}`);
  const mode = can.modes.includes('threads') ? 'threads' : 'wasm';
  let reported = 0;
  return Watcher.open(job, index, model, mode, threadsOf(mode), can.relaxed, (best, took) => {
    $('top').replaceChildren(...ranking(best));
    const kind = job.temperature === null ? 'probabilities not calibrated' : 'calibrated probabilities';
    $('speed').textContent = `${ms(took)} ms per picture, ${titleOf(mode)}, ${kind}`;
    if (performance.now() - reported > 1000) {
      reported = performance.now();
      report(0, 0, `camera: ${best[0].label} ${(100 * best[0].probability).toFixed(0)} %, ${ms(took)} ms`);
    }
  });
}

async function look() {
  if (state.watcher) return closeCamera();
  $('look').disabled = true;
  $('error').hidden = true;
  try {
    const mine = (state.watcher = await watcher());
    $('closed').textContent = '';
    $('look').textContent = 'Close';
    $('look').disabled = false;
    await mine.watch($('video'));
  } catch (error) {
    fail(error.name === 'NotAllowedError' ? new Error('access to the camera was denied: allow it in the site settings of the browser') : error);
    closeCamera();
  }
  $('look').disabled = false;
}

async function photo() {
  const file = $('photo').files[0];
  if (!file) return;
  closeCamera();
  try {
    const mine = await watcher();
    await mine.photo(file);
    mine.stop();
  } catch (error) {
    fail(error);
  }
  $('photo').value = '';
}

try {
  state.job = await enter();
  state.can = await capabilities(query.has('compat'));
  const {job, can} = state;
  for (const figures of job.figures) state.done.set(key(figures.model, figures.mode), figures);
  const wanted = (query.get('modes') || job.mode).split(',');
  state.modes = new Set(wanted.filter((mode) => can.modes.includes(mode)));
  $('title').textContent = document.title = job.title;
  $('device').textContent = `results are kept as ${job.device}`;
  document.documentElement.style.setProperty('--crop', `${(100 * job.image_size) / job.resize_size}%`);
  if (job.picture.geometry !== 'centre-box') $('video').style.objectFit = 'contain';
  $('model').replaceChildren(...job.models.map((m, n) => el('option', {value: n}, m.name)));
  $('model').value = job.models.length - 1;
  $('model').addEventListener('change', closeCamera);
  $('start').addEventListener('click', start);
  $('look').addEventListener('click', look);
  $('photo').addEventListener('change', photo);
  for (const tab of document.querySelectorAll('nav button')) tab.addEventListener('click', () => showTab(tab.dataset.tab));
  $('main').hidden = $('tabs').hidden = false;
  closeCamera();
  draw();
  for (const mode of wanted.filter((each) => !can.modes.includes(each))) {
    fail(new Error(`${TITLES[mode] || 'unknown mode'}: not available in this browser`));
    await request('/api/failed', {text: `cannot run in the mode ${mode}`});
  }
  if (query.get('auto') === 'camera') {
    showTab('camera');
    look();
  } else if (query.has('auto')) start();
} catch (error) {
  $('title').textContent = 'not connected';
  fail(error);
}
