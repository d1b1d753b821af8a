// Does through the sidecar of its pod what applications do: read, write on a condition, read a batch, and watch.
//
// Usage: node client.mjs get DATASET KEY | replace DATASET KEY VALUE [ETAG] | batch DATASET KEY... | watch DATASET KEY
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';

const sidecar = process.env.RINGSIDE_HTTP ?? 'http://localhost:7070';
const timeout = 10_000; // ms; longer than the sidecar takes to answer
const idle = 60_000; // ms; longer than the time between two heartbeats of a watch
const maxRetries = 30;

// Problem is an error of the sidecar (RFC 9457). Rely on its name, such as "not-found". retryAfter is in seconds, or null.
class Problem extends Error {
  constructor(document, retryAfter = null) {
    const name = document.type.replace('https://ringside.dev/problems/', '');
    super(`error ${name}: ${document.detail}`);
    this.name = name;
    this.retryAfter = retryAfter;
  }
}

const urlOf = (dataset, key) => `${sidecar}/v1/${dataset}/${encodeURIComponent(key)}`;

// send makes one request, without a retry.
async function send(url, options = {}) {
  const response = await fetch(url, { ...options, signal: AbortSignal.timeout(timeout) });
  if (response.ok) return { headers: response.headers, text: await response.text() };
  const after = response.headers.get('Retry-After');
  throw new Problem(await response.json(), after === null ? null : Number(after));
}

// read repeats a read while the sidecar is overloaded or the database is down (429, 503), or the sidecar is restarting.
async function read(url) {
  for (let attempt = 0; ; attempt++) {
    try {
      return await send(url);
    } catch (error) {
      const after = error instanceof Problem ? error.retryAfter : 1;
      if (after === null || attempt === maxRetries) throw error; // it does not change when it is repeated
      console.error(`unavailable, trying again in ${after} s`);
      await sleep(after * 1000);
    }
  }
}

async function get(dataset, key) {
  try {
    const { headers, text } = await read(urlOf(dataset, key));
    const stale = headers.get('Ringside-Stale') === 'true'; // the database is down: use it, and know its age
    console.log(stale ? `stale, ${headers.get('Age')} s old: ${text}` : `value: ${text}`);
  } catch (error) {
    if (error.name !== 'not-found') throw error;
    console.log('not found'); // an answer like any other
  }
}

// replace writes a value if nobody else has changed the row since it was read, or since it had the given ETag. A write is not
// repeated: after a lost response, read the row to find out whether it was made, or send an Idempotency-Key.
async function replace(dataset, key, value, etag) {
  etag ??= (await read(urlOf(dataset, key))).headers.get('ETag');
  try {
    const { headers } = await send(urlOf(dataset, key), {
      method: 'PUT', body: value, headers: { 'If-Match': etag, 'Content-Type': 'application/json' },
    });
    console.log('written, version', headers.get('Ringside-Version'));
  } catch (error) {
    if (error.name !== 'precondition-failed') throw error;
    console.log('condition failed'); // read it again, and decide again
  }
}

// textOf is for the result of one key of a batch, and for a state event of a watch.
function textOf({ key, value, stale, error }) {
  if (!error) return `${key}: ${stale ? 'stale' : 'value'}: ${JSON.stringify(value)}`;
  const { name } = new Problem(error);
  return `${key}: ${name === 'not-found' ? 'not found' : `error ${name}`}`;
}

// batch reads many keys in one request. Each has a result of its own: some may fail.
async function batch(dataset, ...keys) {
  const { text } = await send(`${sidecar}/v1/${dataset}:batchGet`, {
    method: 'POST', body: JSON.stringify({ keys }), headers: { 'Content-Type': 'application/json' },
  });
  for (const state of JSON.parse(text).results) console.log(textOf(state));
}

// watch prints each change of a key, forever. After an interruption it resumes with the id of the last event.
async function watch(dataset, key) {
  const headers = {};
  for (;;) {
    try {
      for await (const event of events(`${sidecar}/v1/${dataset}:watch?key=${encodeURIComponent(key)}`, headers)) {
        if (event.id) headers['Last-Event-ID'] = event.id;
        // current: all states were sent; reset: they come again
        console.log(event.event === 'state' ? textOf(JSON.parse(event.data)) : event.event);
      }
    } catch (error) {
      console.error('interrupted:', error.message);
    }
    console.error('resuming');
    await sleep(1000);
  }
}

// events splits a stream of server-sent events. A line with a colon alone is a heartbeat.
async function* events(url, headers) {
  const abort = new AbortController();
  const silent = setTimeout(() => abort.abort(), idle);
  try {
    const response = await fetch(url, { headers, signal: abort.signal });
    if (!response.ok) throw new Error(`status ${response.status}`);
    let rest = '';
    let event = {};
    for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
      silent.refresh();
      const lines = (rest + chunk).split('\n');
      rest = lines.pop();
      for (const line of lines) {
        const [name, ...value] = line.split(': ');
        if (name === '' && event.event) {
          yield event;
          event = {};
        } else if (value.length > 0) {
          event[name] = value.join(': ');
        }
      }
    }
  } finally {
    clearTimeout(silent);
  }
}

const commands = { get, replace, batch, watch };
const [command, ...args] = process.argv.slice(2);
if (!Object.hasOwn(commands, command ?? '') || args.length < 2) {
  console.error('usage: client.mjs get|replace|batch|watch DATASET KEY...');
  process.exit(2);
}
try {
  await commands[command](...args);
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
