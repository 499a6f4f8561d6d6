// Looking through the diary, forgetting, approving, and bringing a foreign log in.

import {get, post, query} from './api.js';
import {kept} from './media.js';
import {add, ask, button, chip, count, empty, h, long, plural, put, tell, upper, when, words} from './dom.js';

export const name = 'diary';
export const title = 'Diary';

const SIZE = 50;
const PART = 400_000;  // characters of a request: a longer file goes line by line, in several
const NO_WORDS = {by: 'words', text: '', kind: '', trust: '', night: '', offset: 0};

let asked = {...NO_WORDS};  // remembered while other views are shown
let loads = 0;  // an answer that comes after that to a later question is not shown

export async function render(_, {signal}) {
  const {nights} = await get('/api/nights', signal);
  const list = h('div', {'aria-live': 'polite'});
  const all = h('div', {}, filters(nights, list), list);
  await load(list, signal);
  return all;
}

// ---- What is asked for ----

function filters(nights, list) {
  const text = h('input', {type: 'search', id: 'text', value: asked.text, maxlength: 200});
  const by = select('by', {words: 'with these words', recall: 'that come to mind'}, asked.by);
  const kind = select('kind', {'': 'all', chat: 'conversations', observation: 'observations',
    summary: 'summaries'}, asked.kind);
  const trust = select('trust', {'': 'all', waiting: 'waiting for approval', user: 'said by the user',
    approved: 'approved', imported: 'imported', third_party: 'third party'}, asked.trust);
  const night = select('night', {'': 'all', 0: 'not slept on yet',
    ...Object.fromEntries(nights.filter((n) => n.state === 'promoted')
      .map((n) => [n.number, `night ${n.number}`]))}, asked.night);
  const again = () => {
    asked = {by: by.value, text: text.value.trim(), kind: kind.value, trust: trust.value,
      night: night.value, offset: 0};
    for (const x of [kind, trust, night]) x.disabled = asked.by === 'recall' && asked.text !== '';
    load(list).catch((e) => tell(e.message, true));
  };
  for (const x of [by, kind, trust, night]) x.addEventListener('change', again);
  return h('form', {class: 'filters', role: 'search', onsubmit: (e) => {
    e.preventDefault();
    again();
  }},
  h('div', {class: 'line'}, h('label', {class: 'unseen', for: 'text'}, 'Search the diary'), text,
    h('button', {class: 'main'}, 'Search')),
  h('div', {class: 'options'},
    labelled('Experiences', by), labelled('Kind', kind), labelled('Trust', trust),
    labelled('Night', night), bring(() => {
      put(list);
      return load(list);
    })));
}

function labelled(label, control) {
  return h('span', {class: 'field'}, h('label', {for: control.id}, label), control);
}

function select(id, options, value) {
  const made = h('select', {id}, Object.entries(options).map(([v, text]) =>
    h('option', {value: v, selected: v === String(value)}, text)));
  return made;
}

// ---- The list ----

async function load(list, signal) {
  const mine = ++loads;
  const {by, text, offset, ...filter} = asked;
  const recalled = by === 'recall' && text !== '';
  const {experiences, total} = recalled
    ? await post('/api/recall', {query: text, limit: 20}, signal)
    : await get(query('/api/diary', {...filter, text, offset, limit: SIZE}), signal);
  if (mine === loads) draw(list, experiences, total ?? experiences.length, !recalled);
}

function draw(list, experiences, total, paged) {
  const boxes = new Map();
  const chosen = () => [...boxes].filter(([, b]) => b.checked).map(([id]) => id);
  const say = h('span', {class: 'hint'});
  const forget = button('Forget\u2026', async () => {
    const ids = chosen();
    const sure = await ask({
      title: `Forget ${plural(ids.length, 'experience')}?`, action: 'Forget', danger: true,
      text: 'They are deleted with their dreams. What nights have learned of them stays in the weights until a generation is rolled back.',
    });
    if (!sure) return;
    const {forgotten} = await post('/api/forget', {ids});
    tell(`${plural(forgotten, 'experience')} forgotten.`);
    await load(list);
  }, {class: 'danger'});
  const approve = button('Approve', async () => {
    const {approved} = await post('/api/approve', {ids: chosen()});
    tell(`${plural(approved, 'experience')} approved: nights may dream of them.`);
    await load(list);
  }, {class: 'quiet'});
  const all = h('input', {type: 'checkbox', id: 'all', onchange: () => {
    for (const b of boxes.values()) b.checked = all.checked;
    update();
  }});
  const update = () => {
    const ids = new Set(chosen());
    const waits = experiences.some((e) => ids.has(e.id) && isWaiting(e));
    forget.hidden = !ids.size;
    approve.hidden = !waits;
    say.textContent = ids.size ? `${count(ids.size)} chosen` : '';
  };
  const end = asked.offset + experiences.length;
  const page = (to) => async () => {
    asked.offset = to;
    await load(list);
    list.scrollIntoView();
  };
  put(list,
    h('div', {class: 'bar'},
      experiences.length > 0 && h('span', {}, all, ' ', h('label', {for: 'all'}, 'Choose all on this page')),
      say, approve, forget,
      h('span', {class: 'push'}, !total ? '' : paged
        ? `${count(asked.offset + 1)} to ${count(end)} of ${count(total)}` : plural(total, 'memory', 'memories'))),
    total ? null : empty(asked.text || asked.kind || asked.trust || asked.night
      ? 'Nothing like this is in the diary.' : 'The diary is empty. Talk, or import a log.'),
    h('ol', {class: 'entries'}, experiences.map((e) => {
      const b = h('input', {type: 'checkbox', id: `choose-${e.id}`, onchange: update});
      boxes.set(e.id, b);
      return entry(e, b);
    })),
    paged && total > SIZE && h('div', {class: 'pages'},
      button('Newer', page(Math.max(0, asked.offset - SIZE)), {class: 'quiet', disabled: !asked.offset}),
      button('Older', page(asked.offset + SIZE), {class: 'quiet', disabled: end >= total})));
  update();
}

const isWaiting = (e) => e.trust === 'imported' || e.trust === 'third_party';

function entry(e, box) {
  return h('li', {class: 'entry'},
    h('div', {class: 'head'}, box,
      h('label', {for: box.id}, h('strong', {}, e.speaker), ' ', when(e.time)),
      e.kind !== 'chat' && chip(words(e.kind)),
      isWaiting(e) ? chip(`${words(e.trust)}, not approved`, 'warn') : e.trust === 'approved' && chip('approved'),
      e.night ? h('a', {class: 'chip', href: `#/nights/${e.night}`}, `night ${e.night}`) : chip('not slept on', 'faint')),
    long(e.content),
    e.media.map(seen),
    e.response && h('div', {class: 'answer'}, long(e.response)),
    scores(e.scores));
}

/** A picture or a sound: its description, and the thing itself when it is opened. */
function seen(m) {
  const made = h('details', {ontoggle: () => {
    if (made.open && made.children.length === 1) add(made, kept(m));
  }}, h('summary', {class: 'hint'}, `${upper(m.kind)}: ${m.description}`));
  return made;
}

/** The parts of its score, each of 10. */
export function scores(given) {
  if (!given) return h('p', {class: 'hint'}, 'Not scored yet');
  const parts = ['importance', 'novelty', 'emotion', 'feedback'].filter((p) => given[p] > 0);
  return h('ul', {class: 'scores', 'aria-label': 'Scores, of 10'}, parts.map((p) => h('li', {},
    `${p} `, h('span', {class: 'bar10', vars: {v: given[p] / 10}, 'aria-hidden': 'true'}),
    ` ${given[p].toFixed(1)}`)));
}

// ---- Bringing in ----

function bring(done) {
  const file = h('input', {type: 'file', class: 'unseen', id: 'file', tabindex: -1,
    accept: '.json,.jsonl,.ndjson', 'aria-label': 'A log to import'});
  const open = button('Import\u2026', async () => file.click(), {class: 'quiet push'});
  file.addEventListener('change', async () => {
    const chosen = file.files[0];
    file.value = '';
    if (!chosen) return;
    open.disabled = true;
    try {
      await report(await imported(chosen));
      await done();
    } catch (e) {
      tell(e.message, true);
    } finally {
      open.disabled = false;
    }
  });
  return [open, file];
}

async function imported(file) {
  const text = await file.text();
  const name = file.name.replace(/[^A-Za-z0-9_. -]/g, '_').replace(/^[^A-Za-z0-9_]+/, '').slice(-100) || 'log.jsonl';
  const sum = {added: 0, known: 0, skipped: 0, damaged: 0, lines: []};
  for (const part of parts(text, /\.(jsonl|ndjson)$/.test(name))) {
    const got = await post('/api/import', {name, text: part});
    for (const key of ['added', 'known', 'skipped', 'damaged']) sum[key] += got[key];
    sum.lines.push(...got.lines);
  }
  return sum;
}

/** A file of lines in parts that end with a line; any other whole. */
function* parts(text, ofLines) {
  let rest = text;
  while (ofLines && rest.length > PART) {
    const cut = rest.lastIndexOf('\n', PART);
    if (cut < 1) break;
    yield rest.slice(0, cut + 1);
    rest = rest.slice(cut + 1);
  }
  if (rest.trim() || rest === text) yield rest;
}

async function report(got) {
  const left = got.lines.slice(0, 10).map((x) => `${x.place}: ${x.why}`).join('\n');
  tell(`${plural(got.added, 'experience')} imported, ${count(got.known)} known already, ${
    count(got.skipped + got.damaged)} left out. Nights dream of them once they are approved.${left ? ` ${left}` : ''}`,
  got.damaged > 0);
}
