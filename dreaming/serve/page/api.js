// Requests to this server, with the token where one is needed.

const KEY = 'dreaming.token';  // kept for this tab alone

export class Failure extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

let asking = null;
let askForToken = async () => null;

/** Who is asked for a token: a function of a line that says why. */
export function whoAsks(ask) {
  askForToken = ask;
}

async function token(why) {
  asking ??= askForToken(why).finally(() => { asking = null; });  // one dialog for all that wait
  const given = await asking;
  if (!given) throw new Failure(why, 401);
  sessionStorage.setItem(KEY, given);
}

/** A response whose status is good. Raises Failure with the server's own line. */
export async function send(method, path, body, signal) {
  for (;;) {
    const known = sessionStorage.getItem(KEY);
    const headers = {};
    if (known) headers.Authorization = `Bearer ${known}`;
    if (body !== undefined) headers['Content-Type'] = 'application/json';
    let response;
    try {
      response = await fetch(path, {
        method, headers, signal, cache: 'no-store',
        body: body === undefined ? undefined : JSON.stringify(body),
      });
    } catch (e) {
      if (e.name === 'AbortError') throw e;
      throw new Failure('The server does not answer. Is it running?', 0);
    }
    if (response.ok) return response;
    const told = await response.json().catch(() => ({}));
    const line = told.error?.message ?? `The server answered with ${response.status}.`;
    if (response.status !== 401) throw new Failure(line, response.status);
    if (known === sessionStorage.getItem(KEY)) {  // or another request was given one meanwhile
      sessionStorage.removeItem(KEY);
      await token(line);
    }
  }
}

async function json(method, path, body, signal) {
  return (await send(method, path, body, signal)).json();
}

export const get = (path, signal) => json('GET', path, undefined, signal);
export const post = (path, body = {}, signal) => json('POST', path, body, signal);
export const remove = (path) => json('DELETE', path);

/** A path with its query; what is null or empty is left out. */
export function query(path, fields) {
  const kept = Object.entries(fields).filter(([, v]) => v !== null && v !== undefined && v !== '');
  return kept.length ? `${path}?${new URLSearchParams(kept)}` : path;
}

/** The events of a stream, as {id, data} with data as it was sent. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = '', id = '', data = [];
  try {
    for (;;) {
      const {value, done} = await reader.read();
      if (done) return;
      buffer += value;
      const lines = buffer.split(/\r?\n/);
      buffer = lines.pop();
      for (const line of lines) {
        if (line === '') {
          if (data.length) yield {id, data: data.join('\n')};
          data = [];
        } else if (line.startsWith('data:')) data.push(line.slice(5).trimStart());
        else if (line.startsWith('id:')) id = line.slice(3).trim();
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
