// Who it has become: its generations, what they hold, and what was forgotten.

import {get, post, query, remove} from './api.js';
import {lines, shares} from './chart.js';
import {add, button, chip, count, empty, h, long, percent, plural, put, section, tell, when} from './dom.js';

export const name = 'identity';
export const title = 'Identity';

const FACTS = 12;
const STATES = {
  held: 'the weights know it', missed: 'did not take, is dreamt of again', slipping: 'was known, is slipping',
  dreamt: 'dreamt of, not examined', heard: 'not dreamt of yet', superseded: 'a later night knows better',
};

export async function render(_, {signal, refresh}) {
  const root = h('div', {});
  const draw = async () => {
    const [found, matrix] = await Promise.all([
      get('/api/generations', signal), get('/api/matrix', signal)]);
    const changed = async () => {
      await refresh();
      await draw();
    };
    const facts = section('Facts', empty('Reading\u2026'));
    put(root, timeline(found, changed), trajectory(found), comparison(found), forgetting(matrix.rows), facts);
    // Of a long diary this takes a moment: the rest is there already.
    get(query('/api/facts', {limit: FACTS}), signal).then((first) => facts.replaceWith(known(first)),
      (e) => put(facts, h('h2', {}, 'Facts'), empty(e.message)));
  };
  await draw();
  return root;
}

const called = (n) => (n ? `generation ${n}` : 'the base');
const Called = (n) => (n ? `Generation ${n}` : 'The base');

// ---- Generations ----

function timeline(found, changed) {
  const {serving, generations} = found;
  const current = generations.find((g) => g.number === serving);
  const serve = (number, label, cls) => button(label, async () => {
    await post('/api/generations/rollback', {generation: number});
    await changed();
    tell(`${Called(number)} serves now.`);
  }, {class: cls});
  const back = serving ? serve(current.parent, `Roll back to ${called(current.parent)}`, 'main') : null;
  return section('Generations',
    h('p', {class: 'hint'}, 'Each night that passed its exam left one. Any of them can serve again, bit for bit.'),
    h('ol', {class: 'timeline'}, generations.toReversed().map((g) => {
      const here = g.number === serving;
      return h('li', {class: here ? 'here' : '', 'aria-current': here ? 'true' : null},
        h('div', {class: 'head'}, h('strong', {}, Called(g.number)),
          here && chip('serves', 'good'), g.pinned && chip('kept warm'),
          g.created > 1e6 && h('span', {class: 'hint'}, when(g.created))),
        h('p', {class: 'hint'}, about(g, generations)),
        h('div', {class: 'actions left'},
          here ? back : serve(g.number, `Let ${called(g.number)} serve`, 'quiet'),
          button(g.pinned ? 'Keep warm no longer' : 'Keep warm', async () => {
            const path = `/api/generations/${g.number}/pin`;
            await (g.pinned ? remove(path) : post(path));
            await changed();
          }, {class: 'link'})));
    })));
}

function about(g, all) {
  if (!g.number) return 'As it was before its first night. It never changes.';
  const parts = [];
  const branch = g.parent !== Math.max(...all.map((x) => x.number).filter((n) => n < g.number));
  if (branch) parts.push(`grew from ${called(g.parent)}`);
  if (typeof g.scores.recall === 'number') parts.push(`${percent(g.scores.recall)} of its night\u2019s facts`);
  if (typeof g.scores.general === 'number') parts.push(`general knowledge ${percent(g.scores.general)}`);
  if (g.experiences) parts.push(`learned from ${plural(g.experiences, 'experience')}`);
  const text = parts.join(' \u00b7 ') || 'No measures';
  return g.night ? [h('a', {href: `#/nights/${g.night}`}, `Night ${g.night}`), ` \u00b7 ${text}`] : text;
}

function trajectory({serving, generations}) {
  const known = new Map(generations.map((g) => [g.number, g]));
  const line = [];  // of the one that serves, back to the base
  for (let n = serving; n && known.has(n); n = known.get(n).parent) line.unshift(known.get(n));
  const of = (key) => line.filter((g) => typeof g.scores[key] === 'number').map((g) => [g.number, g.scores[key]]);
  const series = [['recall', 'facts of the night'], ['earlier', 'facts of earlier nights'],
    ['general', 'general knowledge'], ['never_mentioned', 'inventions']]
    .map(([key, label]) => ({name: label, points: of(key)})).filter((one) => one.points.length);
  if (line.length < 2 || !series.length) return null;
  return section('Trajectory', lines('Answered rightly, generation by generation', series,
    {x: 'generation', share: true, whole: true}));
}

// ---- Comparing two ----

function comparison({serving, generations}) {
  const current = generations.find((g) => g.number === serving);
  const choose = (id, value) => h('select', {id}, generations.map((g) =>
    h('option', {value: g.number, selected: g.number === value}, Called(g.number))));
  const one = choose('one', current?.parent ?? 0), two = choose('two', serving);
  const questions = h('textarea', {id: 'questions', rows: 3, maxlength: 8000,
    placeholder: 'One question a line'});
  const result = h('div', {'aria-live': 'polite'});
  return section('Compare two generations',
    h('p', {class: 'hint'}, 'The same questions to both, diary closed: what stands in their weights.'),
    h('form', {class: 'card stack', onsubmit: async (e) => {
      e.preventDefault();
      const asked = questions.value.split('\n').map((q) => q.trim()).filter(Boolean);
      if (!asked.length) return;
      const [a, b] = [Number(one.value), Number(two.value)];
      const go = e.submitter;
      if (go) go.disabled = true;
      put(result, h('p', {class: 'hint'}, 'Asking\u2026'));
      try {
        const {answers} = await post('/api/generations/compare', {questions: asked, generations: [a, b]});
        put(result, h('div', {class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Answers'}, h('table', {},
          h('thead', {}, h('tr', {}, ['Question', Called(a), Called(b)].map((x) => h('th', {scope: 'col'}, x)))),
          h('tbody', {}, asked.map((q, i) => h('tr', {class: answers[a][i] === answers[b][i] ? '' : 'differs'},
            h('th', {scope: 'row'}, q), h('td', {}, answers[a][i] || '(nothing)'), h('td', {}, answers[b][i] || '(nothing)')))))));
      } catch (error) {
        put(result, h('p', {class: 'wrong', role: 'alert'}, error.message));
      } finally {
        if (go) go.disabled = false;
      }
    }},
    h('label', {for: 'questions'}, 'Questions'), questions,
    h('div', {class: 'options'},
      h('span', {class: 'field'}, h('label', {for: 'one'}, 'First'), one),
      h('span', {class: 'field'}, h('label', {for: 'two'}, 'Second'), two),
      h('button', {class: 'main push'}, 'Compare')), result));
}

// ---- Facts ----

function known(first) {
  const total = Object.values(first.states).reduce((a, b) => a + b, 0);
  if (!total) return section('Facts', empty('Nothing was told yet.'));
  const list = h('ul', {class: 'facts'});
  const more = h('div', {});
  let state = '';
  const draw = (page, offset) => {
    if (!offset) put(list);
    add(list, page.facts.map((f) => h('li', {},
      h('div', {class: 'head'}, chip(f.state, `part-${f.state}`),
        h('span', {class: 'hint'}, when(f.time), f.nights.length > 0
          && [' \u00b7 ', plural(f.nights.length, 'night')],
        f.exams.length > 0 && ` \u00b7 exams ${f.exams.map((x) => percent(x.share)).join(', ')}`)),
      long(f.text, 240))));
    const end = offset + page.facts.length;
    put(more, end < page.total && button(`Show more of ${count(page.total)}`, () => load(end), {class: 'quiet'}));
  };
  const load = async (offset) => draw(await get(query('/api/facts', {state, limit: FACTS, offset})), offset);
  const filter = h('select', {id: 'state', onchange: () => {
    state = filter.value;
    load(0).catch((e) => tell(e.message, true));
  }}, h('option', {value: ''}, `All ${count(total)}`), Object.entries(STATES)
    .filter(([key]) => first.states[key])
    .map(([key, text]) => h('option', {value: key}, `${count(first.states[key])} ${key}: ${text}`)));
  draw(first, 0);
  return section('Facts', shares('What was told, by how well the weights hold it',
    Object.keys(STATES).map((key) => ({name: key, count: first.states[key] ?? 0}))),
  h('div', {class: 'options'}, h('span', {class: 'field'}, h('label', {for: 'state'}, 'Show'), filter)),
  list, more);
}

// ---- The forgetting matrix ----

function forgetting(rows) {
  if (!rows.length) return null;
  return section('Forgetting', h('p', {class: 'hint'},
    'After each night, how much of each day the weights alone still answer. Down a column a day fades, or does not.'),
  h('div', {class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Forgetting matrix'}, h('table', {class: 'matrix'},
    h('caption', {class: 'unseen'}, 'Forgetting matrix'),
    h('thead', {}, h('tr', {}, h('th', {scope: 'col'}, 'After night'), rows.map((r, i) =>
      h('th', {scope: 'col', title: r.day}, `day ${i + 1}`)))),
    h('tbody', {}, rows.map((r, i) => h('tr', {},
      h('th', {scope: 'row'}, `${i + 1}`, !r.promoted && h('span', {class: 'hint'}, ' rejected')),
      rows.map((_, j) => {
        const v = r.weights[j];
        if (j >= r.weights.length) return h('td', {class: 'none'});
        return h('td', {class: v > 0.55 ? 'cell deep' : 'cell', vars: {v: v ?? 0}}, v === null ? '\u2013' : percent(v));
      })))))));
}
