// Charts as SVG, drawn as wide as there is room, so that their letters stay as large as the page's.

import {h, number, percent, put, s} from './dom.js';

const LEFT = 44, TOP = 10, RIGHT = 12;

/** A figure that draws itself again when its width changes. `draw(width)` gives an SVG. */
function figure(title, draw, legend = null) {
  const holder = h('div', {class: 'chart'});
  let drawn = 0;
  const watch = new ResizeObserver(() => {
    const width = Math.floor(holder.clientWidth);
    if (width && width !== drawn) {
      drawn = width;
      put(holder, draw(width));
    }
  });
  watch.observe(holder);
  const made = h('figure', {}, h('figcaption', {}, title), legend, holder);
  made.redraw = () => {
    if (drawn) put(holder, draw(drawn));
  };
  return made;
}

/** Round numbers from low to high, about `n` of them. */
function ticks(low, high, n) {
  const rough = (high - low) / n || 1;
  const size = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((m) => m * size >= rough) * size;
  const found = [];
  for (let x = Math.ceil(low / step) * step; x <= high + step / 1e6; x += step) found.push(Number(x.toPrecision(12)));
  return found;
}

/**
 * Lines over a shared axis.
 *
 * @param title what it shows.
 * @param series [{name, points: [[x, y], ...]}], at most four; changed in place, then `redraw()`.
 * @param options {x: what is along the bottom, share: y is from 0 to 1, whole: x are whole numbers}
 */
export function lines(title, series, {x = '', share = false, whole = false} = {}) {
  const legend = h('ul', {class: 'legend'}, series.map((one, i) =>
    h('li', {class: `line${i}`}, h('span', {'aria-hidden': 'true'}), one.name)));
  const show = (y) => (share ? percent(y) : number(y));
  return figure(title, (width) => {
    const height = Math.max(170, Math.min(250, width * 0.4));
    const BOTTOM = x ? 44 : 26;
    const all = series.flatMap((one) => one.points);
    const xs = all.map((p) => p[0]), ys = all.map((p) => p[1]);
    let [x0, x1] = all.length ? [Math.min(...xs), Math.max(...xs)] : [0, 1];
    if (x0 === x1) [x0, x1] = [x0 - 1, x1 + 1];
    const [y0, y1] = share ? [0, 1] : [0, Math.max(...ys, 1e-9) * 1.05];
    const px = (v) => LEFT + ((v - x0) / (x1 - x0)) * (width - LEFT - RIGHT);
    const py = (v) => height - BOTTOM - ((v - y0) / (y1 - y0)) * (height - BOTTOM - TOP);
    const told = series.filter((one) => one.points.length).map((one) =>
      `${one.name} from ${show(one.points[0][1])} to ${show(one.points.at(-1)[1])}`).join(', ');
    return s('svg', {width, height, viewBox: `0 0 ${width} ${height}`, role: 'img',
      'aria-label': `${title}: ${told || 'nothing yet'}`},
    ticks(y0, y1, 4).map((v) => [
      s('line', {class: 'grid', x1: LEFT, x2: width - RIGHT, y1: py(v), y2: py(v)}),
      s('text', {class: 'tick', x: LEFT - 7, y: py(v) + 4, 'text-anchor': 'end'}, show(v))]),
    ticks(x0, x1, Math.max(2, Math.min(8, width / 90))).filter((v) => !whole || Number.isInteger(v)).map((v) =>
      s('text', {class: 'tick', x: px(v), y: height - BOTTOM + 18, 'text-anchor': 'middle'}, `${v}`)),
    x && s('text', {class: 'tick', x: (LEFT + width - RIGHT) / 2, y: height - 6, 'text-anchor': 'middle'}, x),
    series.map((one, i) => s('g', {class: `line${i}`},
      s('polyline', {points: one.points.map(([a, b]) => `${px(a).toFixed(1)},${py(b).toFixed(1)}`).join(' ')}),
      (one.points.length < 30 ? one.points : one.points.slice(-1)).map(([a, b]) =>
        s('circle', {cx: px(a), cy: py(b), r: 3}, s('title', {}, `${one.name}, ${a}: ${show(b)}`))))));
  }, legend);
}

/**
 * Shares before and after, a line for each: a ring where it was, a dot where it is.
 *
 * @param rows [{name, before, after}], shares from 0 to 1 or null.
 */
export function changes(title, rows, before, after) {
  const legend = h('ul', {class: 'legend'},
    h('li', {class: 'ring'}, h('span', {'aria-hidden': 'true'}), before),
    h('li', {class: 'line0 dot'}, h('span', {'aria-hidden': 'true'}), after));
  return figure(title, (width) => {
    const narrow = width < 460;
    const step = narrow ? 46 : 34, left = narrow ? 8 : 190, height = rows.length * step + 24;
    const px = (v) => left + v * (width - left - 52);
    return s('svg', {width, height, viewBox: `0 0 ${width} ${height}`, role: 'img',
      'aria-label': `${title}: ${rows.map((r) =>
        `${r.name} ${r.before === null ? '' : `from ${percent(r.before)} `}to ${percent(r.after)}`).join(', ')}`},
    [0, 0.5, 1].map((v) => [
      s('line', {class: 'grid', x1: px(v), x2: px(v), y1: 4, y2: height - 20}),
      s('text', {class: 'tick', x: px(v), y: height - 5, 'text-anchor': v ? 'middle' : 'start'}, percent(v))]),
    rows.map((r, i) => {
      const y = i * step + (narrow ? 32 : 20);
      return s('g', {class: 'line0'},
        s('text', {class: 'name', x: narrow ? left : left - 14, y: narrow ? y - 13 : y + 4,
          'text-anchor': narrow ? 'start' : 'end'}, r.name),
        r.before !== null && r.after !== null
          && s('line', {class: 'move', x1: px(r.before), x2: px(r.after), y1: y, y2: y}),
        r.before !== null && s('circle', {class: 'ring', cx: px(r.before), cy: y, r: 5}),
        r.after !== null && s('circle', {cx: px(r.after), cy: y, r: 6}),
        r.after !== null && s('text', {class: 'value', x: px(Math.max(r.after, r.before ?? 0)) + 12, y: y + 4}, percent(r.after)));
    }));
  }, legend);
}

/**
 * Parts of a whole, side by side.
 *
 * @param parts [{name, count}]
 */
export function shares(title, parts) {
  const total = parts.reduce((n, p) => n + p.count, 0);
  const there = parts.map((p, i) => ({...p, i})).filter((p) => p.count);
  return figure(title, (width) => {
    let x = 0;
    return s('svg', {width, height: 26, viewBox: `0 0 ${width} 26`, role: 'img',
      'aria-label': `${title}: ${there.map((p) => `${p.count} ${p.name}`).join(', ') || 'none'}`},
    there.map((p) => {
      const w = (p.count / total) * (width - 2 * (there.length - 1));
      const made = s('rect', {class: `part part-${p.name}`, x, y: 0, width: Math.max(w, 1), height: 26, rx: 5},
        s('title', {}, `${p.count} ${p.name}`));
      x += w + 2;
      return made;
    }));
  }, h('ul', {class: 'legend'}, there.map((p) =>
    h('li', {class: `part-${p.name} dot`}, h('span', {'aria-hidden': 'true'}), `${p.count} ${p.name}`))));
}
