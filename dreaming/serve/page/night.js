// One night in full: what it chose, dreamt, learned, how its losses ran, and what the gate said.

import {get, post, query} from './api.js';
import {changes, lines} from './chart.js';
import {scores} from './diary.js';
import {add, button, chip, duration, empty, h, long, number, plural, put, section, table, tell, upper, when, words} from './dom.js';
import {state} from './nights.js';

const AT_ONCE = 8;  // questions that the generation before is asked at a time
const SHOWN = 24;  // dreams at a time
const PAIRS = 4;  // of one dream, before the rest is asked for
const SHARES = [['recall', 'Tonight\u2019s facts'], ['earlier', 'Facts of earlier nights'],
  ['general', 'General knowledge'], ['never_mentioned', 'Inventions']];
const GATE = {
  recall_gain: ['Facts learned', 'at least'], general_drop: ['General knowledge lost', 'at most'],
  nll_increase: ['Generic text, worse by', 'at most'], never_mentioned: ['Inventions', 'at most'],
};

export async function render(number, {signal, refresh, status: coming}) {
  const [night, report, {dreams}, status] = await Promise.all([
    get(`/api/nights/${number}`, signal), get(`/api/nights/${number}/report`, signal),
    get(query('/api/dreams', {night: number}), signal), coming]);
  const r = night.result;
  const waiting = status.waiting?.night === number ? status.waiting : null;
  return h('div', {class: 'night'},
    h('p', {class: 'back'}, h('a', {href: '#/nights'}, '\u2190 All nights')),
    h('div', {class: 'line'}, h('h2', {class: 'large'}, `Night ${number}`), state(night),
      h('span', {class: 'hint push'}, when(night.started),
        night.ended && ` \u00b7 ${duration(night.ended - night.started)}`)),
    r.reason && h('p', {class: 'reason'}, upper(r.reason)),
    r.generation && h('p', {}, 'It woke as ', h('a', {href: '#/identity'}, `generation ${r.generation}`),
      r.consumed && `, with ${plural(r.consumed.length, 'experience')} in its weights.`),
    waiting && review(waiting, refresh),
    learned(report, r.generation),
    gate(r.gate ?? []),
    losses(report),
    chosen(report),
    dreamt(dreams, waiting?.point === 'dreams'));
}

// ---- What it learned ----

function learned(report, generation) {
  const {measures, base, questions} = report;
  const rows = SHARES.filter(([key]) => typeof measures[key] === 'number').map(([key, label]) => ({
    name: label, before: typeof base[key] === 'number' ? base[key] : null, after: measures[key]}));
  const asked = questions.filter((q) => q.measure === 'recall');
  const earlier = questions.filter((q) => q.measure === 'earlier');
  const unknown = questions.filter((q) => q.measure === 'never_mentioned');
  const body = rows.length || questions.length ? [
    rows.length && changes('Its exam, diary closed', rows, 'the base', 'after this night'),
    asked.length && probes('Tonight\u2019s facts, in words that no dream used', asked, generation, report.parent),
    earlier.length && fold(`Facts of earlier nights (${earlier.length})`, probes('', earlier, generation, report.parent)),
    unknown.length && fold(`Never mentioned: the less it invents, the better (${unknown.length})`,
      probes('', unknown, generation, report.parent)),
  ] : empty('It took no exam.');
  return section('What it learned', body);
}

function fold(summary, ...body) {
  return h('details', {}, h('summary', {}, summary), ...body);
}

function probes(caption, questions, generation, parent) {
  const cells = questions.map((q) => h('td', {'data-label': 'before'}, q.before ? said(q.before) : h('span', {class: 'hint'}, 'not asked')));
  const known = typeof parent === 'number' && generation;
  const before = known && button(
    parent ? `Ask generation ${parent} the same` : 'Ask the base the same', async (made) => {
      for (let i = 0; i < questions.length; i += AT_ONCE) {
        const some = questions.slice(i, i + AT_ONCE);
        made.textContent = `Asked ${i} of ${questions.length}\u2026`;
        const {answers} = await post('/api/generations/compare',
          {questions: some.map((q) => q.question), generations: [parent]});
        answers[parent].forEach((reply, j) => put(cells[i + j], h('span', {}, reply || '(nothing)')));
      }
      made.remove();
    }, {class: 'quiet'});
  return h('div', {class: 'probes'},
    caption && h('h3', {}, caption), before,
    h('div', {class: 'scroll', tabindex: 0, role: 'region', 'aria-label': caption || 'Questions'},
      h('table', {},
        h('thead', {}, h('tr', {}, ['Question', 'Before', 'After this night'].map((x) => h('th', {scope: 'col'}, x)))),
        h('tbody', {}, questions.map((q, i) => h('tr', {},
          h('th', {scope: 'row'}, q.question, q.answer && h('span', {class: 'hint block'}, `told: ${q.answer}`)),
          cells[i], h('td', {'data-label': 'after'}, said(q))))))));
}

/** A reply, with whether it is right for those who see colours and those who do not. */
function said(x) {
  return h('span', {class: x.right ? 'right' : 'wrong'},
    h('span', {'aria-hidden': 'true'}, x.right ? '\u2713 ' : '\u2717 '),
    h('span', {class: 'unseen'}, x.right ? 'right: ' : 'not right: '), x.reply || '(nothing)');
}

// ---- The gate ----

function gate(rows) {
  if (!rows.length) return null;
  const open = rows.every((r) => r.ok);
  return section('The gate', h('p', {class: 'hint'}, open
    ? 'Every measure was there and good: it opened.' : 'It stayed closed: nothing changed.'),
  table('Measures of the gate', ['Measure', 'Value', 'Limit', ''], rows.map((r) => {
    const [label, sign] = GATE[r.name] ?? [words(r.name), ''];
    const share = (v) => (typeof v === 'number' && r.name in GATE ? `${number(100 * v)}%` : number(v));
    return [label, share(r.value), `${sign} ${share(r.limit)}`,
      r.ok ? chip('ok', 'good') : chip('failed', 'bad')];
  })));
}

// ---- What it chose ----

function chosen(report) {
  const list = h('ol', {class: 'entries'}, report.chosen.map((e) => h('li', {class: 'entry'},
    h('div', {class: 'head'}, h('strong', {}, e.speaker), ' ', when(e.time),
      e.missed && chip('did not take: dreamt of again', 'warn')),
    long(e.content, 300), scores(e.scores))));
  return section('What it chose', report.chosen_count
    ? [h('p', {class: 'hint'}, `${plural(report.chosen_count, 'experience')}: the most profound, different from each other, and what was asked for.`), list]
    : empty('Nothing was left to dream of.'));
}

// ---- What it dreamt ----

function dreamt(dreams, reviewed) {
  const kept = dreams.filter((d) => d.status !== 'rejected');
  const rejected = dreams.filter((d) => d.status === 'rejected');
  if (!dreams.length) return section('What it dreamt', empty('It did not dream.'));
  return section('What it dreamt',
    h('div', {class: 'two'},
      pile('kept', kept, reviewed, true), pile('rejected', rejected, reviewed, false)));
}

function pile(label, dreams, reviewed, open) {
  const list = h('ul', {class: 'dreams'});
  let shown = 0;
  const more = button('Show more', async () => draw(), {class: 'quiet'});
  const draw = () => {
    add(list, dreams.slice(shown, shown + SHOWN).map((d) => dream(d, reviewed)));
    shown += SHOWN;
    more.hidden = shown >= dreams.length;
  };
  const made = h('details', {open}, h('summary', {}, `${plural(dreams.length, 'dream')} ${label}`), list, more);
  if (open) draw();
  else made.addEventListener('toggle', draw, {once: true});
  return made;
}

function dream(d, reviewed) {
  return h('li', {class: `dream ${d.status}`},
    h('p', {class: 'head'}, chip(words(d.style)), d.reason && chip(d.reason, 'warn'),
      h('span', {class: 'hint'}, d.sources.length ? `of ${d.sources.map((i) => `#${i}`).join(', ')}` : '')),
    d.text && long(d.text, 400),
    d.pairs.slice(0, PAIRS).map(pair),
    d.pairs.length > PAIRS && fold(`${plural(d.pairs.length - PAIRS, 'more question')}`, d.pairs.slice(PAIRS).map(pair)),
    reviewed && reviewer(d));
}

const pair = (p) => h('p', {class: 'pair'}, h('span', {}, p.question), ' ', h('b', {}, p.answer));

// ---- Review ----

function review(waiting, refresh) {
  return h('section', {class: 'card'},
    h('h2', {}, 'It waits for you'),
    h('p', {}, waiting.point === 'dreams'
      ? 'Read what it dreamt, below: approve, reject or correct. Then let it go on.'
      : 'Read what it learned, below. Then let it serve, or not.'),
    h('div', {class: 'line'},
      button('Let the night go on', async () => {
        await post('/api/nights', {});
        tell(`Night ${waiting.night} goes on.`);
        location.hash = '#/nights';
      }, {class: 'main'}),
      button('Refuse it', async () => {
        await post('/api/nights/refuse', {});
        tell(`Night ${waiting.night} is over. Nothing of it was learned.`);
        await refresh();
        location.hash = '#/nights';
      }, {class: 'quiet'})));
}

function reviewer(d) {
  const state = h('span', {class: 'hint', role: 'status'});
  const decide = (decision, said) => button(upper(decision), async () => {
    await post(`/api/dreams/${d.id}/review`, {decision});
    state.textContent = said;
  }, {class: 'quiet'});
  const place = h('div', {});
  const edit = button('Edit', async () => put(place, place.firstChild ? null : editor(d, place, state)), {class: 'quiet'});
  return h('div', {class: 'review'}, decide('approve', 'Approved'), decide('reject', 'Rejected'), edit, state, place);
}

function editor(d, place, state) {
  const text = h('textarea', {rows: 4, 'aria-label': 'Text of the dream', value: d.text});
  const pairs = d.pairs.map((p) => [
    h('input', {'aria-label': 'Question', value: p.question}), h('input', {'aria-label': 'Answer', value: p.answer})]);
  return h('div', {class: 'editor'}, text, pairs.map((two) => h('div', {class: 'line'}, two)),
    button('Save', async () => {
      await post(`/api/dreams/${d.id}/review`, {decision: 'edit', text: text.value,
        pairs: pairs.map(([q, a]) => ({question: q.value, answer: a.value}))});
      put(place);
      state.textContent = 'Edited';
    }, {class: 'main'}));
}

// ---- Losses ----

function losses(report) {
  if (!report.losses.length) return null;
  const of = (key) => report.losses.filter((r) => typeof r.values[key] === 'number').map((r) => [r.index, r.values[key]]);
  return section('How its losses ran', lines('Nats a token', [
    {name: 'dreams', points: of('dream_loss')}, {name: 'held-out wordings', points: of('held_out_loss')},
    {name: 'distance to the base', points: of('replay_kl')}], {x: 'training step'}));
}
