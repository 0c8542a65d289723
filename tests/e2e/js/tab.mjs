/**
 * A page that carries a vendor's script as it is, in a browser context of its own, as if on a machine of its own.
 *
 * It reports what goes over its network: `request` and `response` (or `failed`) of fetch and XMLHttpRequest,
 * `websocket`, `frame` and `closed` of WebSockets, `socket` with close codes as the page itself learns them, and
 * `console` with what went wrong. What the page's own scripts hand to `reportToDriver` is passed on.
 */
import { observeSockets } from './sockets.mjs';

const REQUESTS = new Set(['fetch', 'xhr']);
const SPOKEN = new Set(['error', 'warning']);

export class Tab {
  #context;
  #page;

  constructor(context, page) {
    this.#context = context;
    this.#page = page;
  }

  static async open(browser, url, report) {
    // The development certificate's authority is nobody's but the test server's own.
    const context = await browser.newContext({ ignoreHTTPSErrors: true });
    await context.exposeBinding('reportToDriver', (_, line) => report(JSON.parse(line)));
    await context.addInitScript(`(${observeSockets})(window, window.WebSocket,
      (kind, value) => window.reportToDriver(JSON.stringify({ kind, value })))`);
    const page = await context.newPage();
    new Observer(report).watch(page);
    await page.goto(url);
    return new Tab(context, page);
  }

  async call(command, args) {
    return { value: (await COMMANDS[command](this.#page, ...args)) ?? null };
  }

  async reload() {
    await this.#page.reload();
  }

  async kill() {
    await this.#context.close();
  }
}

const COMMANDS = {
  /** Calls a function, given as source text, in the page. Its result has to be JSON. */
  evaluate(page, source, ...args) {
    // eslint-disable-next-line no-eval
    return page.evaluate(([text, list]) => (0, eval)(`(${text})`)(...list), [source, args]);
  },
  click(page, selector) {
    return page.click(selector);
  },
  text(page, selector) {
    return page.textContent(selector);
  },
  offline(page, flag) {
    return page.context().setOffline(flag);
  },
};

class Observer {
  #report;
  #count = 0;
  #numbers = new WeakMap();

  constructor(report) {
    this.#report = (kind, value) => report({ kind, value });
  }

  watch(page) {
    page.on('console', (message) => {
      if (SPOKEN.has(message.type())) this.#report('console', `${message.type()}: ${message.text()}`);
    });
    page.on('pageerror', (error) => this.#report('console', `uncaught: ${error.stack ?? error}`));
    page.on('request', (request) => this.#request(request));
    page.on('requestfinished', (request) => this.#response(request));
    page.on('requestfailed', (request) => {
      if (this.#numbers.has(request)) {
        this.#report('failed', { number: this.#numbers.get(request), error: request.failure()?.errorText ?? '' });
      }
    });
    page.on('websocket', (socket) => this.#websocket(socket));
  }

  #request(request) {
    if (!REQUESTS.has(request.resourceType())) return;
    const number = (this.#count += 1);
    this.#numbers.set(request, number);
    this.#report('request', {
      number, method: request.method(), url: request.url(), headers: request.headers(), body: request.postData(),
    });
  }

  async #response(request) {
    if (!this.#numbers.has(request)) return;
    try {
      const response = await request.response();
      const [headers, body] = [await response.allHeaders(), await response.text()];
      this.#report('response', { number: this.#numbers.get(request), status: response.status(), headers, body });
    } catch {
      // The page went away before the answer's body could be read.
    }
  }

  #websocket(socket) {
    const number = (this.#count += 1);
    const frame = (direction) => ({ payload }) => {
      this.#report('frame', { number, direction, text: typeof payload === 'string' ? payload : null });
    };
    this.#report('websocket', { number, url: socket.url() });
    socket.on('framesent', frame('sent'));
    socket.on('framereceived', frame('received'));
    socket.on('close', () => this.#report('closed', { number }));
  }
}
