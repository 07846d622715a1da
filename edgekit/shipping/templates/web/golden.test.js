// Compares fit.js with the golden set in Node.js, which neither decodes pictures nor runs LiteRT.js: check.html does.
//
//     node --test                        as tests
//     node golden.test.js --json         results as JSON

import assert from 'node:assert';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { fit } from './fit.js';
import { check, noise, open } from './golden.js';

const file = (name) => readFile(new URL(name, import.meta.url));
const contract = JSON.parse(await file('preprocess.json'));
const golden = await open((name) => file(`golden/${name}`), contract.scores.classes);
const results = await check(golden, {
  contract,
  pixels: async (each) => fit(noise(each.source), contract),
  noFiles: 'Node.js decodes no pictures: open check.html in a browser',
  noScores: 'LiteRT.js runs in browsers: open check.html',
});

if (process.argv.includes('--json')) {
  console.log(JSON.stringify(results));
} else {
  for (const { level, problems, cause, skipped } of results) {
    test(level, { skip: skipped || false }, () => assert.deepStrictEqual(problems, [], cause || problems.join('\n')));
  }
}
