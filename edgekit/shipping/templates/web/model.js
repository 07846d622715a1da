// The model of the sample page: that of the kit.

import { Classifier } from './classifier.js';

/** Opens the model. */
export const open = () => Classifier.open();

/** Is told that the model gave a good answer. Returns what the page should say of it; "" for nothing. */
export const answered = async () => '';
