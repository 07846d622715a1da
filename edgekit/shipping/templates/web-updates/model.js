// The model of the sample page: the newest release that is here, or else that of the kit.

import { Classifier } from './classifier.js';
import { Updates } from './updates.js';

const updates = await Updates.open();
let isGood = false;

/** Opens the model. */
export async function open() {
  const release = await updates.start();
  return Classifier.open(undefined, { files: release?.files });
}

/** Is told that the model gave a good answer. Returns what the page should say of it; "" for nothing. */
export async function answered() {
  if (isGood) return '';
  isGood = true;
  await updates.good();
  const { state, release, reason } = await updates.check();
  if (state === 'updated') return `a new model is here (${release || 'that of this page'}): load the page again`;
  return state === 'refused' ? `a new model was refused: ${reason}` : '';
}
