/** One client in a page of a browser. The bundle's entry hands the SDK over; the driver calls `window.offhook`. */
import { Client, describe } from './client.mjs';
import { observeSockets } from './sockets.mjs';

export function serve(sdk) {
  const emit = (kind, value) => window.reportToDriver(JSON.stringify({ kind, value: value ?? null }));
  observeSockets(window, window.WebSocket, emit);
  let client;
  window.offhook = {
    open(configuration) {
      client = new Client(sdk, configuration, emit);
    },
    async call(command, args) {
      try {
        return JSON.stringify({ value: (await client.call(command, args)) ?? null });
      } catch (error) {
        return JSON.stringify({ error: describe(error) });
      }
    },
  };
}
