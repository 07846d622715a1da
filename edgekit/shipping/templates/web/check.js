// Page check.html: compares this browser with the golden set, and shows what differs.
//
// check.html?accelerator=webgpu checks the GPU. check.html?post=PATH sends the results to a path of the same host.

import { Classifier } from './classifier.js';
import { check, noise, open } from './golden.js';

const query = new URLSearchParams(location.search);
const accelerator = query.get('accelerator') ?? 'wasm';

async function file(name) {
  const answer = await fetch(`golden/${name}`);
  if (!answer.ok) throw new Error(`golden/${name}: HTTP status ${answer.status}`);
  return answer;
}

async function results() {
  const model = await Classifier.open('.', { accelerator });
  const golden = await open(async (name) => new Uint8Array(await (await file(name)).arrayBuffer()), model.labels.length);
  const found = await check(golden, {
    contract: model.contract,
    labels: model.labels,
    delegate: accelerator === 'webgpu' ? 'gpu' : 'cpu',
    pixels: async (each) => model.pixels(each.isFile ? await (await file(each.source)).blob() : noise(each.source)),
    scores: (square) => model.scores(square),
  });
  model.close();
  return found;
}

/** Returns an item of the list. */
function item({ level, checked, problems, cause }) {
  const made = document.createElement('li');
  made.className = problems.length ? 'bad' : 'good';
  const lines = problems.length ? [`${problems.length} of ${checked} wrong`, ...(cause ? [`cause: ${cause}`] : []), ...problems.slice(0, 5)]
    : [`ok (${checked} checked)`];
  made.textContent = `${level}: ${lines.join('\n')}`;
  return made;
}

const failed = (error) => [{ level: 'golden set', checked: 0, problems: [error.message || String(error)], cause: '', skipped: '' }];
const found = await results().catch(failed);
const json = JSON.stringify(found);
document.getElementById('levels').replaceChildren(...found.map(item));
document.getElementById('json').textContent = json;
document.title = found.some((each) => each.problems.length) ? 'Check: wrong' : 'Check: ok';
if (query.has('post')) await fetch(new URL(query.get('post'), location.origin).pathname, { method: 'POST', body: json });
