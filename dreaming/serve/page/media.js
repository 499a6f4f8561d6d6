// Pictures and voice notes: taken from the user, and shown from the diary.

import {get, send} from './api.js';
import {add, button, h, put, s, tell} from './dom.js';

const SIDE = 2000;  // pixels of the longer side: more is not looked at
const SECONDS = 120;  // of a voice note
const PICTURE = 'M4 5h16v14H4zM4 16l4.5-5 3.5 4 3-3 5 5M15.5 9.5h.01';
const VOICE = 'M12 3a3 3 0 0 1 3 3v5a3 3 0 0 1-6 0V6a3 3 0 0 1 3-3zM5.5 11a6.5 6.5 0 0 0 13 0M12 17.5V21';

/** What is to be said with a message: buttons that take it, and the list of what was taken. */
export function shelf() {
  const list = h('div', {class: 'shelf', 'aria-live': 'polite', hidden: true});
  let kept = [], offered = '';
  const draw = () => {
    list.hidden = !kept.length;
    put(list, kept.map((one) => h('span', {class: 'kept'}, view(one.kind, one.url),
      button('\u00d7', async () => {
        kept = kept.filter((x) => x !== one);
        draw();
      }, {class: 'quiet', 'aria-label': one.kind === 'image' ? 'Leave the picture out' : 'Leave the voice note out'}))));
  };
  const keep = (kind, blob) => {
    kept.push({kind, blob, url: URL.createObjectURL(blob)});
    draw();
  };
  const pictures = async (files) => {
    for (const file of files) {
      if (file.type.startsWith('image/')) keep('image', await smaller(file));
    }
  };
  const buttons = h('span', {class: 'senses'});
  return {
    list, buttons, pictures,
    /** After the server has said what it can perceive: {image, audio}. */
    offer({image, audio}) {
      if (offered === `${image} ${audio}`) return;  // or what is being recorded would lose its button
      offered = `${image} ${audio}`;
      const recorded = audio && navigator.mediaDevices?.getUserMedia && window.MediaRecorder;
      put(buttons, image && picker(pictures), recorded && recorder((blob) => keep('audio', blob)));
    },
    take() {
      const taken = kept;
      kept = [];
      draw();
      return taken;
    },
    put(back) {
      kept = [...back, ...kept];
      draw();
    },
  };
}

/** OpenAI's parts of a message. */
export async function parts(text, taken) {
  if (!taken.length) return text;
  const made = text ? [{type: 'text', text}] : [];
  for (const {kind, blob} of taken) {
    const url = await dataUrl(blob);
    made.push(kind === 'image' ? {type: 'image_url', image_url: {url}}
      : {type: 'input_audio', input_audio: {data: url.slice(url.indexOf(',') + 1), format: blob.type.split(/[/;]/)[1]}});
  }
  return made;
}

export function view(kind, url, description = '') {
  return kind === 'image' ? h('img', {src: url, alt: description || 'A picture'})
    : h('audio', {src: url, controls: true, 'aria-label': description || 'A voice note'});
}

/** Of the diary, read when it is shown; an event 'seen' says that it is there. */
export function kept({kind, digest, description}) {
  const place = h('div', {class: 'seen'});
  send('GET', `/api/media/${digest}`).then((r) => r.blob()).then((blob) => {
    const url = URL.createObjectURL(blob), shown = view(kind, url, description);
    if (kind === 'image') shown.addEventListener('load', () => URL.revokeObjectURL(url));
    put(place, shown,
      h('p', {class: 'hint'}, description));
    place.dispatchEvent(new CustomEvent('seen', {bubbles: true}));
  }).catch(() => put(place, h('p', {class: 'hint'}, 'It is no longer kept.')));
  return place;
}

/** The pictures that came with a message, which the diary has as experiences of their own. */
export function beside(ids) {
  const place = h('div', {});
  Promise.all(ids.map((id) => get(`/api/experiences/${id}`).catch(() => null)))
    .then((found) => add(place, found.filter(Boolean).flatMap((e) => e.media.map(kept))));
  return place;
}

function icon(path) {
  return s('svg', {viewBox: '0 0 24 24', 'aria-hidden': 'true'}, s('path', {d: path}));
}

function picker(take) {
  const file = h('input', {type: 'file', class: 'unseen', tabindex: -1, multiple: true,
    accept: 'image/jpeg,image/png,image/webp,image/gif,image/bmp', 'aria-label': 'Pictures to show'});
  file.addEventListener('change', () => {
    take([...file.files]).catch((e) => tell(e.message, true));
    file.value = '';
  });
  return [button(icon(PICTURE), async () => file.click(),
    {class: 'sense', 'aria-label': 'Show a picture', title: 'Show a picture'}), file];
}

async function smaller(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`${file.name} cannot be read as a picture.`);
  }
  const scale = SIDE / Math.max(bitmap.width, bitmap.height);
  if (scale >= 1) return file;
  const canvas = h('canvas', {width: Math.round(bitmap.width * scale), height: Math.round(bitmap.height * scale)});
  const context = canvas.getContext('2d');
  context.fillStyle = 'white';  // in the place of what is transparent
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const made = await new Promise((resolve) => canvas.toBlob(resolve, 'image/jpeg', 0.9));
  return made ?? file;
}

function recorder(take) {
  let running = null, starting = false;
  const label = (text) => {
    made.setAttribute('aria-label', text);
    made.title = text;
    made.setAttribute('aria-pressed', String(running !== null));
  };
  const record = async () => {
    const stream = await navigator.mediaDevices.getUserMedia({audio: true});
    const pieces = [];
    let tape;
    try {
      tape = new MediaRecorder(stream);
    } catch (e) {
      for (const track of stream.getTracks()) track.stop();
      throw e;
    }
    const end = setTimeout(() => tape.state === 'recording' && tape.stop(), 1000 * SECONDS);
    tape.addEventListener('dataavailable', (e) => pieces.push(e.data));
    tape.addEventListener('stop', () => {
      clearTimeout(end);
      for (const track of stream.getTracks()) track.stop();
      running = null;
      label('Record a voice note');
      take(new Blob(pieces, {type: tape.mimeType}));
    });
    tape.start();
    running = tape;
    label('Stop recording');
  };
  const made = h('button', {type: 'button', class: 'sense', onclick: async () => {
    if (running) {
      if (running.state === 'recording') running.stop();
    } else if (!starting) {
      starting = true;
      await record().catch((e) => tell(
        e.name === 'NotAllowedError' ? 'The browser may not use the microphone.' : e.message, true));
      starting = false;
    }
  }}, icon(VOICE));
  label('Record a voice note');
  return made;
}

function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}
