// Compares a program with the golden set (golden/golden.tsv says its form), level by level, in browsers and in Node.js.

import { probabilities } from './classifier.js';
import { toTensor } from './fit.js';

/**
 * Reads the golden set.
 *
 * @param {(name: string) => Promise<Uint8Array>} read returns a file of golden/. @param {number} classes
 */
export async function open(read, classes) {
  const lines = new TextDecoder().decode(await read('golden.tsv')).trimEnd().split('\n').map((line) => line.split('\t'));
  const single = Object.fromEntries(lines.filter((line) => line.length === 2));
  if (single.schema !== '1') throw new Error('golden.tsv is of another schema than 1: use the golden.js that came with it');
  const [count, size] = [Number(single.probe), Number(single.size)];
  const probes = await read('probes.rgb');
  const probe = (row) => probes.subarray(row * count * count * 3, (row + 1) * count * count * 3);
  const bytes = await read('scores.f32');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const scores = (row) => Float32Array.from({ length: classes }, (_, n) => view.getFloat32(4 * (row * classes + n), true));
  const cases = [];
  for (const [kind, ...fields] of lines) {
    if (kind === 'wrong') cases.at(-1).drifts.set(fields[0], probe(Number(fields[1])));
    if (kind !== 'case') continue;
    const [form, source, crc, most, row, scored, best, probability] = fields;
    cases.push({
      isFile: form === 'file', source, name: form === 'file' ? source : `noise ${source.replace(/x\d+$/, '')}`,
      crc, most: Number(most), probe: probe(Number(row)), drifts: new Map(),
      scores: scored === '-' ? null : scores(Number(scored)), best: Number(best), probability: Number(probability),
    });
  }
  const values = lines.filter(([kind]) => kind === 'value').map((line) => line.slice(1).map(Number));
  const named = (kind) => new Map(lines.filter((line) => line[0] === kind).map((line) => [line[1], line[2]]));
  return { count, size, cases, values, tolerance: named('tolerance'), drifts: named('drift') };
}

/** Returns the pixels of a case without a file, RGB. */
export function noise(source) {
  const [width, height, seed] = source.split('x').map(Number);
  const data = new Uint8Array(width * height * 3);
  for (let at = 0, state = seed; at < data.length; at++) {
    state = (Math.imul(1664525, state) + 1013904223) >>> 0;
    data[at] = state >>> 24;
  }
  return { width, height, data };
}

/**
 * Compares a program with the golden set. Returns a result for each level: `level`, `checked`, `problems`, `cause` and
 * `skipped` ("" where it was checked).
 *
 * @param program `contract`, `labels`, `delegate`; `pixels` returns the square of a case, `scores` those of a square.
 *     Where it cannot do the one or the other: `noFiles`, `noScores`, the reason.
 */
export async function check(golden, program) {
  const results = [];
  const scored = [];
  for (const isFile of [false, true]) {
    const level = isFile ? 'picture file to tensor' : 'pixels to tensor';
    if (isFile && program.noFiles) {
      results.push(skipped(level, program.noFiles));
      continue;
    }
    const own = golden.cases.filter((each) => each.isFile === isFile);
    const found = [];
    for (const each of own) found.push({ case: each, square: await program.pixels(each) });
    scored.push(...found.filter((each) => each.case.scores));
    const problems = found.map((each) => wrong(each.case, each.square, golden.count)).filter(Boolean);
    results.push(result(level, own.length, problems, problems.length ? cause(found, golden) : ''));
  }
  results.push(values(golden, program.contract.tensor));
  if (program.noScores) {
    return [...results, ...['tensor to scores', 'label and probability'].map((level) => skipped(level, program.noScores))];
  }
  const most = Number(golden.tolerance.get(program.delegate));
  const [off, labels] = [[], []];
  let largest = 0;
  for (const each of scored) {
    const scores = await program.scores(each.square);
    const gap = scores.reduce((a, score, n) => Math.max(a, Math.abs(score - each.case.scores[n])), 0);
    if (!(gap <= most)) off.push(`${each.case.name}: scores differ by ${digits(gap)}, more than ${digits(most)}`);
    largest = Math.max(largest, gap);
    labels.push(wrongLabel(each.case, scores, program, most));
  }
  results.push({ ...result('tensor to scores', scored.length, off), largest });
  return [...results, result('label and probability', scored.length, labels.filter(Boolean))];
}

const result = (level, checked, problems, why = '') => ({ level, checked, problems, cause: why, skipped: '' });
const skipped = (level, why) => ({ level, checked: 0, problems: [], cause: '', skipped: why });
const digits = (value) => Number(value.toPrecision(3)).toString();

/** Returns how the pixels of a case differ from what they must be; "" if they do not. */
function wrong(case_, square, count) {
  const seen = probe(square, count);
  const most = seen.reduce((a, level, n) => Math.max(a, Math.abs(level - case_.probe[n])), 0);
  if (case_.most) return most > case_.most ? `${case_.name}: ${most} levels off, more than ${case_.most}` : '';
  return crc32(square) === case_.crc ? '' : `${case_.name}: other pixels, up to ${most} levels off where it was looked`;
}

/** Returns the pixels at the places of a probe. */
function probe(square, count) {
  const size = Math.sqrt(square.length / 3);
  const places = Array.from({ length: count }, (_, n) => Math.floor(((2 * n + 1) * size) / (2 * count)));
  return Uint8Array.from(places.flatMap((y) => places.flatMap((x) => [...square.subarray((y * size + x) * 3, (y * size + x) * 3 + 3)])));
}

/** Returns what a program that gives these pixels does wrong; "" if it is none of the known mistakes. */
function cause(found, golden) {
  const told = found.filter((each) => each.case.drifts.size);
  const seen = told.map((each) => probe(each.square, golden.count));
  const total = (name) => told.reduce((sum, each, n) => sum + apart(seen[n], each.case.drifts.get(name) ?? each.case.probe), 0);
  const [best] = [...golden.drifts.keys()].sort((a, b) => total(a) - total(b));
  return total(best) < total('') / 2 ? `${best}: ${golden.drifts.get(best)}` : '';
}

/** Returns the mean difference of two probes, levels. */
const apart = (one, other) => one.reduce((sum, level, n) => sum + Math.abs(level - other[n]), 0) / one.length;

/** Compares the tensor's values of black, grey and white pixels. */
function values(golden, form) {
  const problems = [];
  for (const [level, ...wanted] of golden.values) {
    const tensor = toTensor(new Uint8Array(golden.size * golden.size * 3).fill(level), form);
    for (let channel = 0; channel < 3; channel++) {
      const got = tensor[form.layout === 'NCHW' ? (channel * tensor.length) / 3 : channel];
      if (Math.abs(got - wanted[channel]) <= 1e-5) continue;
      problems.push(`${'RGB'[channel]} of ${level}: ${got} instead of ${wanted[channel]} (mean, std, scale)`);
    }
  }
  return result('values of the tensor', 3 * golden.values.length, problems);
}

/** Returns how the answer of a case differs; classes within the tolerance of the best count as equal. */
function wrongLabel(case_, scores, program, most) {
  const { temperature } = program.contract.scores;
  const best = scores.indexOf(scores.reduce((a, b) => Math.max(a, b), -Infinity));
  if (best !== case_.best && scores[best] - scores[case_.best] > 2 * most) {
    return `${case_.name}: ${JSON.stringify(program.labels[best])} instead of ${JSON.stringify(program.labels[case_.best])}`;
  }
  const share = probabilities(scores, temperature)[case_.best];
  const room = Math.min(1, Math.expm1((2 * most) / (temperature ?? 1))) + 1e-6;
  if (Math.abs(share - case_.probability) <= room) return '';
  return `${case_.name}: probability ${share.toFixed(4)} instead of ${case_.probability.toFixed(4)}`;
}

/** Returns the CRC-32 of bytes, 8 hexadecimal digits. */
function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ((crc ^ 0xffffffff) >>> 0).toString(16).padStart(8, '0');
}
