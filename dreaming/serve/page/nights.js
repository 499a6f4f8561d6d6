// The nights so far, and the one that runs: its steps, its losses as they come.

import {events, get, post, send} from './api.js';
import {lines} from './chart.js';
import {ask, button, chip, duration, empty, h, percent, plural, put, section, tell, upper, when, words} from './dom.js';
import * as night from './night.js';

export const name = 'nights';
export const title = 'Nights';

const STEPS = ['rate', 'select', 'dream', 'corpus', 'train', 'prune', 'examine', 'promote'];
const SAYS = {
  school: 'goes to school, once, to learn to read',
  rate: 'rates the day', select: 'chooses what mattered', dream: 'dreams of it', corpus: 'lays out what to learn',
  train: 'trains on its dreams', prune: 'prunes what is weak', examine: 'takes its exam', promote: 'wakes as a new generation',
};
const LOSSES = [['dream_loss', 'dreams'], ['held_out_loss', 'held-out wordings'], ['replay_kl', 'distance to the base']];

export async function render(args, {signal, refresh, status: coming}) {
  if (args[0]) return night.render(Number(args[0]), {signal, refresh, status: coming});
  const live = h('div', {class: 'live'});
  const list = h('div', {});
  const again = async () => {
    put(list, await listed(signal));
    return refresh();
  };
  const [status, current, shown] = await Promise.all([
    coming, get('/api/nights/current', signal), listed(signal)]);
  put(list, shown);
  if (current.running) follow(live, signal, again);
  else put(live, starter(status, live, signal, again));
  return h('div', {}, live, list);
}

// ---- Starting one ----

function starter(status, live, signal, again) {
  const {waiting} = status;
  if (waiting) {
    const dreams = waiting.point === 'dreams';
    return h('section', {class: 'card sleep'},
      h('div', {}, h('h2', {}, `Night ${waiting.night} waits for you`),
        h('p', {class: 'hint'}, `Read what it ${dreams ? 'dreamt' : 'learned'}, then let it go on.`)),
      h('a', {class: 'button', href: `#/nights/${waiting.night}`},
        dreams ? 'Review its dreams' : 'Review what it learned'));
  }
  const baking = status.baking?.now;
  if (baking) {
    return h('section', {class: 'card sleep'},
      h('div', {}, h('h2', {}, `Generation ${baking.generation} is being tried`),
        h('p', {class: 'hint'},
          `It speaks in ${percent(baking.share)} of the conversations${
            baking.shadow ? `, and answers ${percent(baking.shadow)} of the others unheard,` : ''} until `, when(baking.until), '.')),
      h('a', {class: 'button', href: '#/identity'}, 'See the generations'));
  }
  const open = status.nights.find((n) => n.state === 'running');
  const start = button(open ? 'Go on with it' : 'Start a night', async () => {
    await post('/api/nights');
    follow(live, signal, again);
  }, {class: 'main'});
  return h('section', {class: 'card sleep'},
    h('div', {},
      h('h2', {}, open ? `Night ${open.number} was interrupted` : 'It is awake'),
      h('p', {class: 'hint'}, open ? 'What it finished is kept.' : status.unconsumed
        ? `${plural(status.unconsumed, 'experience')} not slept on yet. It goes on talking meanwhile.`
        : 'All that was said has been slept on.')),
    start);
}

// ---- The one that runs ----

function follow(live, signal, again) {
  const items = new Map(STEPS.map((step) => [step, h('li', {}, h('span', {}, step))]));
  const now = h('p', {class: 'now', role: 'status', 'aria-live': 'polite'}, 'Falling asleep\u2026');
  const bar = h('progress', {'aria-label': 'This step'});
  const series = LOSSES.map(([, label]) => ({name: label, points: []}));
  const chart = lines('Losses, nats a token', series, {x: 'step'});
  const drawn = h('div', {hidden: true}, chart);
  put(live, h('section', {class: 'card asleep'},
    h('div', {class: 'line'}, h('h2', {}, 'It sleeps'), button('Cancel the night', async () => {
      if (await ask({title: 'Cancel this night?', action: 'Cancel the night', danger: true,
        text: 'What it has finished is kept, and the next one goes on there.'})) {
        await post('/api/nights/current/cancel');
      }
    }, {class: 'quiet push'})),
    h('ol', {class: 'steps'}, [...items.values()]), now, bar, drawn));

  let last = '', reached = -1;
  const step = (event) => {
    const [kind] = event.step.split(' ');  // 'recover 0.1'
    const at = STEPS.indexOf({recover: 'prune', school: 'dream'}[kind] ?? kind);
    if (at >= 0) {
      reached = at;
      STEPS.forEach((one, i) => {
        const item = items.get(one);
        item.className = i < reached ? 'done' : i === reached ? 'current' : '';
        if (i === reached) item.setAttribute('aria-current', 'step');
        else item.removeAttribute('aria-current');
      });
    }
    if (event.step !== last) {
      last = event.step;
      now.textContent = `It ${SAYS[kind] ?? (kind === 'recover' ? 'recovers from pruning' : event.step)}.`;
    }
    if (event.total) {
      bar.max = event.total;
      bar.value = event.done;
    } else bar.removeAttribute('value');
    if (kind !== 'train' || !event.total) return;
    LOSSES.forEach(([key], i) => {
      if (typeof event.values[key] === 'number') series[i].points.push([event.done, event.values[key]]);
    });
    drawn.hidden = false;
    chart.redraw();
  };

  (async () => {
    let after = -1, end = null;
    while (!signal.aborted && end === null) {  // a connection may break: it goes on after what it heard
      try {
        const response = await send('GET', `/api/nights/current/events?after=${after}`, undefined, signal);
        for await (const {id, data} of events(response)) {
          const event = JSON.parse(data);
          after = Number(id);
          if (event.event === 'progress') step(event);
          else end = event;
        }
        if (end === null && !(await get('/api/nights/current', signal)).running) end = {event: 'failed', reason: ''};
      } catch (e) {
        if (signal.aborted) return;
        tell(e.message, true);
        await new Promise((r) => { setTimeout(r, 2000); });
      }
    }
    if (signal.aborted) return;
    const status = await again();
    put(live, ended(end, status), starter(status, live, signal, again));
  })().catch((e) => { if (e.name !== 'AbortError') tell(e.message, true); });
}

function ended(end, status) {
  if (end.outcome === 'waiting') return null;  // the card below says so
  const state = end.outcome ?? end.event;
  const told = {
    promoted: status.baking?.now?.generation === end.generation
      ? `Generation ${end.generation} is tried before it serves.`
      : `Generation ${end.generation} serves now.`,
    cancelled: 'It was cancelled. What it finished is kept.',
  }[state] ?? end.reason;
  return h('section', {class: 'card', role: 'status'},
    h('h2', {}, end.night ? `Night ${end.night} is over: ${state}` : `The night ended: ${state}`),
    told && h('p', {}, upper(told)),
    end.night && h('p', {}, h('a', {class: 'button', href: `#/nights/${end.night}`}, 'See what it learned')));
}

// ---- Those before ----

async function listed(signal) {
  const {nights} = await get('/api/nights', signal);
  if (!nights.length) return empty('No night yet. After one you see here what it dreamt, and what it learned.');
  return section('All nights', h('ul', {class: 'cards'}, nights.toReversed().map(card)));
}

function card(n) {
  const r = n.result, dreams = r.dreams;
  const recall = r.measures?.recall;
  return h('li', {}, h('a', {class: 'card row', href: `#/nights/${n.number}`},
    h('span', {class: 'title'}, `Night ${n.number}`), state(n),
    h('span', {class: 'hint push'}, when(n.started)),
    h('span', {class: 'wide hint'},
      [r.generation && `generation ${r.generation}`,
        r.selected && `${plural(r.selected.length, 'experience')} chosen`,
        dreams && `${plural(dreams.kept, 'dream')} kept, ${dreams.rejected} rejected`,
        typeof recall === 'number' && `${percent(recall)} of its questions right`,
        n.ended && duration(n.ended - n.started)].filter(Boolean).join(' \u00b7 '),
      r.reason && h('span', {class: 'reason'}, upper(r.reason)))));
}

/** Its state as a chip. */
export function state(n) {
  const outcome = n.result.outcome ?? n.state;
  const kind = {promoted: 'good', rejected: 'warn', failed: 'bad', running: 'live', waiting: 'live'}[outcome] ?? '';
  return chip(words(outcome), kind);
}
