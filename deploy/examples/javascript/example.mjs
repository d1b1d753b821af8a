// Reads a key through the sidecar of its pod: over HTTP, over gRPC, and over gRPC on the unix socket.
//
// Usage: node example.mjs DATASET KEY
import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';
import protobuf from 'protobufjs';

const timeout = 5000; // ms

class NotFound extends Error {
  constructor() { super('not found'); }
}

class Unavailable extends Error {
  constructor(seconds) {
    super(`unavailable, try again in ${Math.ceil(seconds)} s`);
    this.seconds = seconds;
  }
}

async function overHTTP(sidecar, dataset, key) {
  const response = await fetch(`${sidecar}/v1/${dataset}/${encodeURIComponent(key)}`,
    { signal: AbortSignal.timeout(timeout) });
  if (response.ok) {
    const stale = response.headers.get('Ringside-Stale') === 'true';
    return { value: await response.text(), stale, age: response.headers.get('Age') };
  }
  const problem = await response.json(); // RFC 9457; rely on its type
  if (problem.type === 'https://ringside.dev/problems/not-found') throw new NotFound();
  if (response.headers.has('Retry-After')) throw new Unavailable(Number(response.headers.get('Retry-After')));
  throw new Error(problem.detail);
}

const { ringside } = grpc.loadPackageDefinition(protoLoader.loadSync('ringside/v1/cache.proto', {
  includeDirs: [process.env.RINGSIDE_PROTO ?? 'proto'], // a copy of Ringside's folder proto
  longs: Number,
}));

function overGRPC(sidecar, dataset, key) {
  // Reuse one client in your program; this example closes it after one call.
  const client = new ringside.v1.Cache(sidecar, grpc.credentials.createInsecure());
  // waitForReady waits for a sidecar that is starting, until the deadline.
  const metadata = new grpc.Metadata({ waitForReady: true });
  return new Promise((resolve, reject) => {
    client.get({ dataset, key }, metadata, { deadline: Date.now() + timeout }, (error, response) => {
      client.close();
      if (error) return reject(reasonOf(error));
      const { stale, age } = response.meta;
      resolve({ value: response.value.toString(), stale, age: age.seconds });
    });
  });
}

// The google.rpc messages in the details of a status, which grpc-js does not decode.
const rpc = protobuf.parse(`syntax = "proto3"; package google.rpc;
  message Status { repeated Any details = 3; }
  message Any { string type_url = 1; bytes value = 2; }
  message ErrorInfo { string reason = 1; }
  message RetryInfo { Duration retry_delay = 1; }
  message Duration { int64 seconds = 1; int32 nanos = 2; }`, { keepCase: true }).root;

// The reasons are listed in ringside/v1/cache.proto.
function reasonOf(error) {
  const [raw] = error.metadata?.get('grpc-status-details-bin') ?? [];
  const { details } = rpc.lookupType('google.rpc.Status').decode(raw ?? new Uint8Array());
  for (const { type_url: url, value } of details) {
    const detail = rpc.lookup(url.split('/').pop())?.decode(value) ?? {};
    if (detail.reason === 'NOT_FOUND') return new NotFound();
    if (detail.retry_delay) return new Unavailable(Number(detail.retry_delay.seconds) + detail.retry_delay.nanos / 1e9);
  }
  return error;
}

async function show(way, read, sidecar, dataset, key) {
  try {
    const { value, stale, age } = await read(sidecar, dataset, key);
    console.log(`${way}: ${stale ? `stale, ${age} s old: ` : ''}${value}`); // stale: the database is unavailable
  } catch (error) {
    console.log(`${way}: ${error.message}`);
  }
}

const [dataset, key] = process.argv.slice(2);
if (key === undefined) {
  console.error('usage: node example.mjs DATASET KEY');
  process.exit(2);
}
const { RINGSIDE_HTTP, RINGSIDE_GRPC, RINGSIDE_UNIX } = process.env;
await show('http', overHTTP, RINGSIDE_HTTP ?? 'http://localhost:7070', dataset, key);
await show('grpc', overGRPC, RINGSIDE_GRPC ?? 'localhost:7071', dataset, key);
await show('unix', overGRPC, `unix:${RINGSIDE_UNIX ?? '/run/ringside/ringside.sock'}`, dataset, key);
