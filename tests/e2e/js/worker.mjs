/** One client in a Node worker thread: its own globals, its own copy of the SDK, killed without a goodbye. */
import { createRequire } from 'node:module';
import { parentPort, workerData } from 'node:worker_threads';
import WebSocket from 'ws';

import { Client, describe } from './client.mjs';
import { observeSockets } from './sockets.mjs';

const { sdk, module, configuration, websocket } = workerData;
const emit = (kind, value) => parentPort.postMessage({ kind, value: plain(value) });

// Node 20 has no WebSocket of its own. Without one the oldest client falls back to SockJS.
if (websocket) observeSockets(globalThis, WebSocket, emit);

// The SDKs print whole socket objects; a line says as much.
console.error = (problem) => process.stderr.write(`${sdk}: ${problem?.message ?? problem}\n`);

const namespace = sdk.startsWith('core-') ? await import(module) : createRequire(import.meta.url)(module);
// The legacy package loads SockJS in the background and cannot connect before it is there.
await new Promise((resolve) => { setImmediate(resolve); });

const client = new Client(namespace, configuration, emit);

parentPort.on('message', ({ id, command, args }) => {
  client.call(command, args).then(
    (value) => parentPort.postMessage({ id, value: plain(value) }),
    (error) => parentPort.postMessage({ id, error: describe(error) }),
  );
});
parentPort.postMessage({ kind: 'ready', value: null });

function plain(value) {
  return value === undefined ? null : JSON.parse(JSON.stringify(value));
}
