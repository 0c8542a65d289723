/** Chromium, and the site its pages come from: another origin than the server under test. */
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { chromium } from 'playwright-core';

import { pageScript } from './bundles.mjs';
import { Tab } from './tab.mjs';

const ARGUMENTS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-dev-shm-usage',
  '--disable-background-networking', '--disable-component-update', '--disable-sync', '--no-proxy-server',
  '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream',
];

export class Browser {
  #executable;
  #started;
  #scripts = new Map();
  #tabs = [];
  #reports = new WeakMap();

  constructor(executable) {
    this.#executable = executable;
  }

  /** Opens a page with one client on it. */
  async open({ sdk, configuration }, report) {
    this.#started ??= this.#start();
    const { site, context } = await this.#started;
    const page = await context.newPage();
    this.#reports.set(page, report);
    page.on('console', (message) => process.stderr.write(`page: ${message.text()}\n`));
    page.on('pageerror', (error) => process.stderr.write(`page: ${error.stack ?? error}\n`));
    await page.goto(`${site}/${sdk}.html`);
    await page.evaluate((options) => window.offhook.open(options), configuration);
    return new PageClient(page, configuration);
  }

  /** Opens a page with this body, after scripts from files of this machine, which stay as they are. */
  async openTab({ html, scripts }, report) {
    this.#started ??= this.#start();
    const { site, browser } = await this.#started;
    const path = `/tabs/${this.#tabs.push({ html, scripts }) - 1}`;
    return Tab.open(browser, `${site}${path}`, report);
  }

  async close() {
    if (!this.#started) return;
    const { browser, server } = await this.#started;
    await browser.close();
    server.close();
  }

  async #start() {
    const server = createServer((request, response) => this.#serve(request, response));
    await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
    const browser = await chromium.launch({ executablePath: this.#executable, args: ARGUMENTS });
    // The development certificate's authority is nobody's but the test server's own.
    const context = await browser.newContext({ ignoreHTTPSErrors: true });
    await context.exposeBinding('reportToDriver', ({ page }, line) => this.#reports.get(page)(JSON.parse(line)));
    return { server, browser, context, site: `http://localhost:${server.address().port}` };
  }

  async #serve(request, response) {
    const [, tab, script] = /^\/tabs\/(\d+)(?:\/(\d+)\.js)?$/.exec(request.url) ?? [];
    if (tab !== undefined) {
      await this.#serveTab(tab, script, response);
      return;
    }
    const [, sdk, kind] = /^\/([\w.-]+)\.(html|js)$/.exec(request.url) ?? [];
    if (kind === 'html') {
      response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' });
      response.end(`<!doctype html><title>${sdk}</title><script type="module" src="/${sdk}.js"></script>`);
    } else if (kind === 'js') {
      if (!this.#scripts.has(sdk)) this.#scripts.set(sdk, pageScript(sdk));
      response.writeHead(200, { 'content-type': 'text/javascript; charset=utf-8' });
      response.end(await this.#scripts.get(sdk));
    } else {
      response.writeHead(204).end();
    }
  }

  async #serveTab(number, script, response) {
    const { html, scripts } = this.#tabs[number];
    if (script === undefined) {
      const tags = scripts.map((_, index) => `<script src="/tabs/${number}/${index}.js"></script>`);
      response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' });
      response.end(`<!doctype html><title>Tab ${number}</title>${tags.join('')}<body>${html}</body>`);
    } else {
      response.writeHead(200, { 'content-type': 'text/javascript; charset=utf-8' });
      response.end(await readFile(scripts[script]));
    }
  }
}

class PageClient {
  #page;
  #configuration;

  constructor(page, configuration) {
    this.#page = page;
    this.#configuration = configuration;
  }

  async call(command, args) {
    return JSON.parse(await this.#page.evaluate(([name, list]) => window.offhook.call(name, list), [command, args]));
  }

  /** What a user does with F5: the page goes without a word to the SDK, and a new client is there. */
  async reload() {
    await this.#page.reload();
    await this.#page.evaluate((options) => window.offhook.open(options), this.#configuration);
  }

  async kill() {
    await this.#page.close();
  }
}
