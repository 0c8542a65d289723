/**
 * Drives real SDK clients from another process: JSON lines in on stdin, JSON lines out on stdout.
 *
 *   in   {"id": 1, "op": "open", "client": "a", "place": "node", "sdk": "core-1.11.0",
 *         "configuration": {"apiKey": "…", "host": "127.0.0.1:8686", "secure": false}, "websocket": true}
 *   in   {"id": 2, "op": "call", "client": "a", "command": "start", "args": [{"username": "jane"}]}
 *   in   {"id": 3, "op": "reload", "client": "a"}
 *   in   {"id": 4, "op": "kill", "client": "a"}
 *   in   {"id": 5, "op": "open", "client": "b", "place": "tab", "html": "<p>Hello", "scripts": ["/tmp/sdk.js"]}
 *   out  {"id": 2, "value": …}  or  {"id": 2, "error": {"name": …, "code": …, "message": …}}
 *   out  {"client": "a", "kind": "presence", "value": …}
 *
 * The driver ends when its stdin does. The only argument is the path of Chromium.
 */
import { createInterface } from 'node:readline';
import { Worker } from 'node:worker_threads';

import { Browser } from './browser.mjs';
import { nodeModule } from './bundles.mjs';
import { describe } from './client.mjs';

const browser = new Browser(process.argv[2]);
const clients = new Map();

class WorkerClient {
  #options;
  #report;
  #worker;
  #calls = new Map();
  #count = 0;

  static async open(options, report) {
    const client = new WorkerClient();
    client.#options = { ...options, module: await nodeModule(options.sdk) };
    client.#report = report;
    await client.#spawn();
    return client;
  }

  call(command, args) {
    const id = (this.#count += 1);
    this.#worker.postMessage({ id, command, args });
    return new Promise((resolve) => { this.#calls.set(id, resolve); });
  }

  async reload() {
    await this.kill();
    await this.#spawn();
  }

  async kill() {
    await this.#worker.terminate();
  }

  #spawn() {
    this.#worker = new Worker(new URL('./worker.mjs', import.meta.url), { workerData: this.#options });
    return new Promise((resolve, reject) => {
      this.#worker.on('error', (error) => {
        process.stderr.write(`${this.#options.sdk}: ${error.stack ?? error}\n`);
        reject(error);
      });
      this.#worker.on('message', ({ id, ...message }) => {
        if (id !== undefined) {
          this.#calls.get(id)(message);
          this.#calls.delete(id);
        } else if (message.kind === 'ready') {
          resolve();
        } else {
          this.#report(message);
        }
      });
    });
  }
}

const PLACES = {
  node: (options, report) => WorkerClient.open(options, report),
  chromium: (options, report) => browser.open(options, report),
  tab: (options, report) => browser.openTab(options, report),
};

const OPERATIONS = {
  async open({ client, place, ...options }) {
    const report = (message) => write({ client, ...message });
    clients.set(client, await PLACES[place](options, report));
    return { value: null };
  },
  call({ client, command, args }) {
    return clients.get(client).call(command, args);
  },
  async reload({ client }) {
    await clients.get(client).reload();
    return { value: null };
  },
  async kill({ client }) {
    await clients.get(client).kill();
    clients.delete(client);
    return { value: null };
  },
};

function write(message) {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

async function answer({ id, op, ...request }) {
  try {
    write({ id, ...(await OPERATIONS[op](request)) });
  } catch (error) {
    write({ id, error: describe(error) });
  }
}

for await (const line of createInterface({ input: process.stdin })) answer(JSON.parse(line));

await browser.close();
process.exit(0);
