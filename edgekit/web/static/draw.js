// Elements and charts of the page. Text is always set as text, never as HTML.

/** Creates an element; children that are strings become text. */
export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === 'onclick') made.addEventListener('click', value);
    else if (value !== false && value !== null) made.setAttribute(key, value === true ? '' : value);
  }
  made.append(...children);
  return made;
}

function svg(name, attributes) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** Formats milliseconds with three significant digits. */
export const ms = (value) =>
  value === null || value === undefined ? '–' : value.toFixed(Math.max(0, 2 - Math.floor(Math.log10(Math.max(value, 1e-3)))));

/** Draws latencies in the order of measurement, and their median. The highest 1 % are clipped at the top. */
export function strip(values, median) {
  const width = 320;
  const height = 72;
  const sorted = Float64Array.from(values).sort();
  const least = sorted[0] ?? 0;
  const most = Math.max(sorted[Math.floor(sorted.length * 0.99)] ?? 1, least * 1.02);
  const middle = median ?? sorted[sorted.length >> 1];
  const word = (text, at) => Object.assign(svg('text', {x: width, y: at, 'text-anchor': 'end'}), {textContent: text});
  const y = (value) => height - 8 - ((Math.min(value, most) - least) / (most - least || 1)) * (height - 20);
  const label = `latencies from ${ms(least)} to ${ms(most)} milliseconds, median ${ms(middle)}`;
  const made = svg('svg', {viewBox: `0 0 ${width} ${height}`, class: 'strip', role: 'img', 'aria-label': label});
  if (!values.length) return made;
  made.append(svg('line', {x1: 0, x2: width - 36, y1: y(middle), y2: y(middle), class: 'median'}));
  const step = (width - 40) / Math.max(1, values.length - 1);
  values.forEach((value, n) => {
    made.append(svg('circle', {cx: (3 + n * step).toFixed(1), cy: y(value).toFixed(1), r: 1.6}));
  });
  made.append(word(ms(most), y(most) + 4));
  if (y(least) - y(middle) > 12) made.append(word(ms(least), y(least) + 4));
  if (y(middle) - y(most) > 12) made.append(word(ms(middle), y(middle) + 4));
  return made;
}

/** Creates a list item with a bar for each class. */
export function ranking(best) {
  return best.map(({label, probability}) => {
    const fill = el('i');
    fill.style.setProperty('--share', `${(100 * probability).toFixed(1)}%`);
    const percent = el('span', {class: 'percent'}, `${(100 * probability).toFixed(1)} %`);
    return el('li', {}, fill, el('span', {class: 'name'}, label), percent);
  });
}
