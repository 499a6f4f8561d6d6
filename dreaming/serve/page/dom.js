// Elements made of data. Data only ever becomes text or an attribute's value: nothing parses markup.

const SVG = 'http://www.w3.org/2000/svg';

/** An element: h('button', {class: 'quiet', onclick: f}, 'Send'). Children that are null are left out. */
export function h(name, props = {}, ...children) {
  return fill(document.createElement(name), props, children);
}

/** The same of SVG. */
export function s(name, props = {}, ...children) {
  return fill(document.createElementNS(SVG, name), props, children);
}

function fill(element, props, children) {
  for (const [key, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (key === 'vars') {
      for (const [name, v] of Object.entries(value)) element.style.setProperty(`--${name}`, v);
    } else if (key === 'value') element.value = value;
    else element.setAttribute(key, value === true ? '' : String(value));
  }
  add(element, ...children);
  return element;
}

/** Appends elements and texts. */
export function add(element, ...children) {
  element.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
  return element;
}

/** Puts these in the place of what is there. */
export function put(element, ...children) {
  element.replaceChildren();
  return add(element, ...children);
}

// ---- How things are said ----

const MOMENT = new Intl.DateTimeFormat(undefined, {dateStyle: 'medium', timeStyle: 'short'});
const COUNT = new Intl.NumberFormat();

export const count = (n) => COUNT.format(n);
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;
export const percent = (x) => (x === null || x === undefined ? 'not measured' : `${Math.round(100 * x)}%`);
export const words = (name) => name.replaceAll('_', ' ');
export const upper = (text) => text.charAt(0).toUpperCase() + text.slice(1);

export function number(x, digits = 3) {
  if (typeof x !== 'number') return x === null || x === undefined ? 'not measured' : String(x);
  return Number(x.toPrecision(digits)).toString();
}

/** How long, of seconds. */
export function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/** A moment, of Unix seconds. */
export function when(seconds) {
  const date = new Date(1000 * seconds);
  return h('time', {datetime: date.toISOString()}, MOMENT.format(date));
}

/** A long text: its beginning, and a button for the rest. */
export function long(text, limit = 600, cls = 'text') {
  const shown = h('p', {class: cls}, text.length > limit ? `${text.slice(0, limit)}\u2026` : text);
  if (text.length <= limit) return shown;
  const more = h('button', {class: 'link', onclick: () => {
    shown.textContent = text;
    more.remove();
  }}, `Show all ${count(text.length)} characters`);
  return h('div', {}, shown, more);
}

export const chip = (text, kind = '') => h('span', {class: `chip ${kind}`}, text);
export const empty = (...text) => h('p', {class: 'empty'}, ...text);

/** A table of rows of cells; cells may be elements. */
export function table(caption, heads, rows) {
  return h('div', {class: 'scroll', tabindex: 0, role: 'region', 'aria-label': caption},
    h('table', {},
      h('caption', {class: 'unseen'}, caption),
      h('thead', {}, h('tr', {}, heads.map((x) => h('th', {scope: 'col'}, x)))),
      h('tbody', {}, rows.map((row) => h('tr', {}, row.map((cell, i) =>
        i ? h('td', {}, cell) : h('th', {scope: 'row'}, cell)))))));
}

/** A section with its heading. */
export function section(title, ...children) {
  return h('section', {}, h('h2', {}, title), ...children);
}

// ---- Asking and telling ----

let hiding = 0;

/** Says something for some seconds, aloud to those who listen. */
export function tell(text, bad = false) {
  const notice = document.getElementById('notice');
  notice.textContent = text;
  notice.className = bad ? 'bad' : 'good';
  clearTimeout(hiding);
  hiding = setTimeout(() => { notice.className = ''; }, bad ? 12000 : 6000);
}

/** Asks in a dialog; resolves to what was typed, true, or null when it was left. */
export function ask({title, text, action, danger = false, field = null}) {
  return new Promise((resolve) => {
    const input = field && h('input', {
      type: field.type, id: 'asked', required: true, autocomplete: 'off', spellcheck: 'false'});
    const dialog = h('dialog', {'aria-labelledby': 'asking'},
      h('form', {method: 'dialog'},
        h('h2', {id: 'asking'}, title),
        text && h('p', {}, text),
        field && h('label', {for: 'asked'}, field.label), input,
        h('div', {class: 'actions'},
          h('button', {type: 'button', class: 'quiet', onclick: () => dialog.close('')}, 'Cancel'),
          h('button', {value: 'yes', class: danger ? 'danger' : 'main'}, action))));
    dialog.addEventListener('close', () => {
      dialog.remove();
      resolve(dialog.returnValue === 'yes' ? (input ? input.value.trim() : true) : null);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** A button that cannot be pressed again while what it does is under way; errors are told. */
export function button(label, work, props = {}) {
  const made = h('button', {type: 'button', ...props, onclick: async () => {
    made.disabled = true;
    try {
      await work(made);
    } catch (e) {
      if (e.name !== 'AbortError') tell(e.message, true);
    } finally {
      made.disabled = false;
    }
  }}, label);
  return made;
}
