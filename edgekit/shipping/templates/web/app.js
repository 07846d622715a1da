// Sample page: classifies picture files and camera frames.

import { answered, open } from './model.js';

const $ = (id) => document.getElementById(id);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
let stream = null;

const say = (text, isBad = false) => {
  $('state').textContent = text;
  $('state').className = isBad ? 'bad' : '';
};

/** Shows the three most probable classes of a picture. */
async function show(model, picture) {
  const begun = performance.now();
  const answers = await model.classify(picture);
  $('answers').replaceChildren(...answers.slice(0, 3).map((answer) => {
    const item = document.createElement('li');
    item.textContent = `${answer.label} ${(100 * answer.probability).toFixed(1)} %`; // never as HTML
    return item;
  }));
  say(`${Math.round(performance.now() - begun)} ms`);
  answered().then((news) => { if (news) $('news').textContent = news; }, fail);
}

/** Classifies frames until the camera is closed. */
async function watch(model) {
  const wanted = { video: { facingMode: { ideal: 'environment' }, width: { ideal: 640 } }, audio: false };
  stream = await navigator.mediaDevices.getUserMedia(wanted);
  const video = $('video');
  video.srcObject = stream;
  video.hidden = false;
  $('answers').ariaLive = 'off'; // readers of screens would never end
  $('camera').textContent = 'Close the camera';
  $('camera').disabled = false;
  await video.play();
  while (stream) {
    if (video.videoWidth && !document.hidden) await show(model, video);
    await pause(100);
  }
}

function close() {
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = null;
  $('video').hidden = true;
  $('video').srcObject = null;
  $('answers').ariaLive = 'polite';
  $('camera').textContent = 'Open the camera';
  $('camera').disabled = false;
}

const fail = (error) => say(error.message || String(error), true);

try {
  const model = await open();
  say(`${model.labels.length} classes`);
  $('file').disabled = false;
  $('file').addEventListener('change', () => {
    const [file] = $('file').files;
    if (file) show(model, file).catch(fail);
  });
  $('camera').disabled = !navigator.mediaDevices; // browsers have none on pages that are not secure
  $('camera').addEventListener('click', () => {
    if (stream) return close();
    $('camera').disabled = true;
    watch(model).catch((error) => { close(); fail(error); });
  });
} catch (error) {
  fail(error);
}
