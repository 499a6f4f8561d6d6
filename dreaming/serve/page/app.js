// Which view is shown, and what stands above all of them.

import {get, whoAsks} from './api.js';
import {ask, empty, h, plural, put} from './dom.js';
import * as chat from './chat.js';
import * as diary from './diary.js';
import * as identity from './identity.js';
import * as nights from './nights.js';

const VIEWS = {chat, diary, nights, identity};
const main = document.getElementById('main');
let leaving = new AbortController();
let first = true;

whoAsks((why) => ask({
  title: 'A token, please', text: `${why} It is kept for this tab alone.`, action: 'Continue',
  field: {label: 'Token', type: 'password'},
}));

/** Reads who serves, and says so above. */
export async function refresh(signal) {
  const status = await get('/api/status', signal);
  document.getElementById('agent').textContent = status.agent;
  const chip = document.getElementById('serving');
  chip.hidden = false;
  put(chip, h('span', {class: 'wide'}, 'Generation '), `${status.serving}`,
    h('span', {class: 'wide'}, status.asleep ? ' sleeps' : ' serves'));
  chip.setAttribute('aria-label',
    `Generation ${status.serving} ${status.asleep ? 'sleeps' : 'serves'}; ${plural(status.experiences, 'experience')}`);
  return status;
}

async function show() {
  leaving.abort();
  leaving = new AbortController();
  const {signal} = leaving;
  const [name, ...args] = location.hash.replace(/^#\/?/, '').split('/');
  const view = VIEWS[name] ?? chat;
  for (const link of document.querySelectorAll('nav a')) {
    const here = link.getAttribute('href') === `#/${view.name}`;
    if (here) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  document.title = `${view.title} \u00b7 Dreaming Machines`;
  main.setAttribute('aria-busy', 'true');
  main.className = view.name;
  try {
    const status = refresh(signal);
    const [shown] = await Promise.all([
      view.render(args, {signal, status, refresh: () => refresh(), go: (to) => { location.hash = to; }}),
      status,
    ]);
    if (signal.aborted) return;
    put(main, h('h1', {class: view.name === 'chat' ? 'unseen' : ''}, view.title), shown);
    view.shown?.();
  } catch (e) {
    if (signal.aborted) return;
    if (e.status === 503) {  // its weights are being read
      put(main, h('h1', {}, view.title), empty('It is waking up. One moment\u2026'));
      setTimeout(() => signal.aborted || show(), 1500);
      return;
    }
    put(main, h('h1', {}, view.title), empty(e.message),
      h('p', {class: 'middle'}, h('button', {class: 'main', onclick: show}, 'Try again')));
  }
  main.setAttribute('aria-busy', 'false');
  if (!first) main.focus({preventScroll: true});
  if (!first && view.name !== 'chat') window.scrollTo(0, 0);
  first = false;
}

document.querySelector('.skip').addEventListener('click', (e) => {
  e.preventDefault();
  main.focus();
});
window.addEventListener('hashchange', show);
show();
