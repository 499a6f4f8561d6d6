// Talking: what was said last, the reply as it is spoken, what it recalled, and thumbs.

import {Failure, events, get, post, query, send} from './api.js';
import {beside, kept, parts, shelf, view} from './media.js';
import {add, button, chip, empty, h, long, put, s, tell, when} from './dom.js';

export const name = 'chat';
export const title = 'Chat';

const TURNS = 8;  // that go with a message: what was replied then is not chosen again
const SESSION = [...crypto.getRandomValues(new Uint8Array(8))].map((b) => b.toString(16).padStart(2, '0')).join('');
const EARLIER = 12;  // experiences that are shown of before
const UP = 'M7 11v9H3v-9zM9.5 20V10.6L13 3.5a2.3 2.3 0 0 1 2 2.9L14.3 10H19a2 2 0 0 1 2 2.4l-1.2 6A2 2 0 0 1 17.8 20z';

let root = null;  // kept while other views are shown, with what is being said
let turns = [];
let log, box, go, stop, speaker, carried;

export async function render(_, {signal, status, refresh}) {
  const [models, now, recent] = await Promise.all([
    get('/v1/models', signal),
    status,
    get(query('/api/diary', {kind: 'chat', limit: EARLIER}), signal),
  ]);
  if (root === null) build(refresh);
  carried.offer(now.senses);
  const chosen = speaker.value;
  const names = models.data.map((m) => m.id).filter((id) => id !== 'agent@blue');
  put(speaker, names.map((id) => h('option', {value: id}, id === 'agent'
    ? 'Who serves' : id === 'agent@0' ? 'The base' : `Generation ${id.slice(6)}`)));
  speaker.value = names.includes(chosen) ? chosen : 'agent';
  if (log.dataset.busy !== 'yes') {
    put(log, recent.experiences.length ? null : welcome());
    for (const e of recent.experiences.toReversed()) earlier(e);
    turns = recent.experiences.slice(0, TURNS).reverse()
      .filter((e) => e.response).map((e) => [e.content, e.response]);
  }
  return root;
}

/** After it is on the screen. */
export function shown() {
  down();
  box.focus({preventScroll: true});
}

function welcome() {
  return empty('Say something. It is kept in the diary, and what matters is dreamt of at night.');
}

function build(refresh) {
  log = h('div', {class: 'log', role: 'log', 'aria-live': 'polite', 'aria-label': 'Conversation', onseen: down});
  box = h('textarea', {
    id: 'say', rows: 1, placeholder: 'Say something\u2026', 'aria-describedby': 'how',
    onkeydown: (e) => {
      if (e.key === 'Enter' && !e.shiftKey && !e.isComposing) {
        e.preventDefault();
        form.requestSubmit();
      }
    },
    oninput: grow,
    onpaste: (e) => carried.pictures(e.clipboardData.files).catch((x) => tell(x.message, true)),
  });
  carried = shelf();
  go = h('button', {class: 'main'}, 'Send');
  stop = h('button', {type: 'button', class: 'quiet', hidden: true}, 'Stop');
  speaker = h('select', {id: 'speaker'});
  const recalls = h('input', {type: 'checkbox', id: 'recalls', checked: true});
  const form = h('form', {class: 'say', onsubmit: async (e) => {
    e.preventDefault();
    const text = box.value.trim();
    if (log.dataset.busy === 'yes') return;
    const taken = carried.take();
    if (text || taken.length) await speak(text, recalls.checked, taken);
    refresh().catch(() => {});
  }},
  carried.list,
  h('div', {class: 'line'}, h('label', {class: 'unseen', for: 'say'}, 'Message'), carried.buttons, box, stop, go),
  h('div', {class: 'options'},
    h('label', {for: 'speaker'}, 'Speaks'), speaker,
    h('span', {}, recalls, ' ', h('label', {for: 'recalls'}, 'Recalls from the diary')),
    h('span', {id: 'how', class: 'hint'}, 'Enter sends, Shift+Enter begins a line')));
  root = h('div', {class: 'talk'}, log, form);
}

function grow() {
  box.style.height = 'auto';
  box.style.height = `${Math.min(box.scrollHeight + 2, 220)}px`;
}

function down() {
  window.scrollTo(0, document.documentElement.scrollHeight);
}

// ---- Saying something ----

async function speak(text, retrieval, taken) {
  const model = speaker.value;
  const leaving = new AbortController();
  log.querySelector('.empty')?.remove();
  const mine = bubble(null, text, null, taken.map((one) => view(one.kind, one.url)));
  const words = h('p', {class: 'text'});
  const foot = h('div', {class: 'foot'});
  const reply = h('article', {class: 'reply', 'aria-label': 'Reply'},
    h('p', {class: 'thinking'}, h('span', {class: 'unseen'}, 'Thinking'), h('i'), h('i'), h('i')), words, foot);
  add(log, mine, reply);
  log.dataset.busy = 'yes';
  log.setAttribute('aria-busy', 'true');
  box.value = '';
  grow();
  go.hidden = true;
  stop.hidden = false;
  stop.onclick = () => leaving.abort();
  down();
  get('/api/status').then(({asleep}) => asleep && model === 'agent'
    && log.dataset.busy === 'yes' && !answer && add(words, h('span', {class: 'hint'},
    'It sleeps, and answers when it wakes. You need not wait: the answer will be in the diary.'))).catch(() => {});
  let about = null, id = '', generation = null, answer = '';
  try {
    const messages = turns.slice(-TURNS).flatMap(([user, assistant]) => [
      {role: 'user', content: user}, {role: 'assistant', content: assistant}]);
    messages.push({role: 'user', content: await parts(text, taken)});
    const response = await send('POST', '/v1/chat/completions',
      {model, messages, stream: true, stream_options: {include_usage: true}, retrieval,
        metadata: {session: SESSION}},
      leaving.signal);
    generation = response.headers.get('x-dreaming-generation');  // none while it sleeps
    for await (const event of events(response)) {
      if (event.data === '[DONE]') break;
      const chunk = JSON.parse(event.data);
      if (chunk.error) throw new Failure(chunk.error.message, 500);
      id = chunk.id;
      about = chunk.dreaming ?? about;
      const piece = chunk.choices[0]?.delta?.content;
      if (piece) {
        reply.querySelector('.thinking')?.remove();
        answer += piece;
        words.textContent = answer;
        down();
      }
    }
    const told = (about?.shown ?? []).map((x) => x.said ?? x.description);
    if (told.length) add(mine, h('p', {class: 'hint'}, told.join(' ')));
    turns.push([[text, ...(about?.shown ?? []).map((x) => x.said)].filter(Boolean).join('\n'), answer.trim()]);
    if (!answer.trim()) add(foot, h('p', {class: 'hint'}, 'It said nothing.'));
    // The last chunk, that of the usage, comes when it is in the diary, and says where.
    add(foot, footer(id, Number(generation ?? about?.generation), about?.experience, about?.recalled?.length ?? 0, 0,
      about?.reader));
    if (model !== 'agent') add(foot, h('span', {class: 'hint'}, 'Not kept in the diary'));
  } catch (e) {
    if (e.name === 'AbortError') {
      turns.push([text, answer.trim()]);
      add(foot, h('p', {class: 'hint'}, 'Stopped.'));
    } else {
      if (!answer) {  // nothing of it is lost
        box.value ||= text;
        carried.put(taken);
      }
      grow();
      add(foot, h('p', {class: 'wrong', role: 'alert'}, e.message));
    }
  } finally {
    words.textContent = answer;
    reply.querySelector('.thinking')?.remove();
    log.dataset.busy = '';
    log.setAttribute('aria-busy', 'false');
    go.hidden = false;
    stop.hidden = true;
    if (root.isConnected) {
      box.focus({preventScroll: true});
      down();
    }
  }
}

// ---- What stands in the conversation ----

function bubble(who, text, time = null, media = []) {
  return h('article', {class: 'mine', 'aria-label': who ? `${who} said` : 'You said'},
    time && h('p', {class: 'hint'}, who && `${who}, `, when(time)), media, text && long(text));
}

function earlier(e) {
  const id = e.metadata.response_id;
  const media = [...e.media.map(kept), Array.isArray(e.metadata.shown) && beside(e.metadata.shown.filter(Number.isInteger))];
  add(log, bubble(e.speaker, e.content, e.time, media));
  if (!e.response) return;
  add(log, h('article', {class: 'reply', 'aria-label': 'Reply'}, long(e.response),
    h('div', {class: 'foot'},
      footer(id, e.metadata.generation, e.id, null, e.scores?.feedback ?? 0))));
}

function footer(id, generation, experience, recalled, feedback = 0, reader = generation) {
  const parts = h('div', {class: 'about'},
    generation !== undefined && generation !== null
      && chip(generation ? `Generation ${generation} spoke` : 'The base spoke'),
    reader !== generation && h('span', {class: 'hint'}, `${reader ? `generation ${reader}` : 'the base'} `
      + (recalled ? 'read the diary for it' : 'chose the words')));
  if (experience) add(parts, thumbs(experience, feedback));
  const all = h('div', {}, parts);
  if (id) add(all, recollection(id, recalled));
  return all;
}

function thumbs(experience, feedback) {
  const thumb = (value, label, cls, on) => button(
    s('svg', {viewBox: '0 0 24 24', 'aria-hidden': 'true', class: cls}, s('path', {d: UP})),
    async () => {
      await post('/api/feedback', {value, experience});
      for (const t of both) t.setAttribute('aria-pressed', String(t === (value === 'up' ? up : down)));
      tell(value === 'up' ? 'Noted: it will dream of this.' : 'Noted: it will not dream of this.');
    }, {class: 'thumb', 'aria-label': label, title: label, 'aria-pressed': String(on)});
  const up = thumb('up', 'Thumbs up', '', feedback >= 9);
  const down = thumb('down', 'Thumbs down', 'turned', feedback > 0 && feedback <= 2);
  const both = [up, down];
  return h('span', {class: 'thumbs'}, both);
}

/** What it recalled: read when it is opened. */
function recollection(id, recalled) {
  const body = h('div', {class: 'why'});
  let read = false;
  const details = h('details', {ontoggle: async () => {
    if (!details.open || read) return;
    read = true;
    put(body, h('p', {class: 'hint'}, 'Reading\u2026'));
    try {
      show(body, await get(`/api/replies/${encodeURIComponent(id)}/why`));
    } catch (e) {
      put(body, h('p', {class: 'hint'}, e.status === 404
        ? 'What stood behind this reply is no longer remembered.' : e.message));
    }
    details.scrollIntoView({block: 'nearest'});
  }}, h('summary', {}, recalled === null ? 'What it recalled'
    : recalled ? `What it recalled (${recalled})` : 'It recalled nothing'), body);
  return details;
}

function show(body, why) {
  put(body,
    why.recalled.length ? h('ol', {class: 'recalled'}, why.recalled.map((r) => h('li', {},
      long(r.content, 300),
      h('p', {class: 'hint'}, h('span', {class: 'bar10', 'aria-hidden': 'true',
        vars: {v: Math.max(0, Math.min(1, r.relevance))}}),
      ` relevance ${r.relevance.toFixed(2)}, recency ${r.recency.toFixed(2)}, importance ${r.importance.toFixed(2)}`))))
      : h('p', {class: 'hint'}, 'Nothing came to mind: it answered from its weights.'),
    h('details', {}, h('summary', {}, 'All that the model read'), h('pre', {tabindex: 0}, why.prompt)));
}
