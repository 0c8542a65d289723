/** Bundles of the unmodified SDKs, made when they are needed and never kept. */
import { build } from 'esbuild';
import { rmSync } from 'node:fs';
import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));

async function bundle(contents, platform) {
  const result = await build({
    stdin: { contents, resolveDir: here },
    bundle: true,
    format: 'esm',
    platform,
    define: platform === 'browser' ? { global: 'globalThis' } : {},
    // Bundled CommonJS still calls require() for Node's own modules.
    banner: platform === 'node'
      ? { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" }
      : {},
    logLevel: 'error',
    write: false,
  });
  return result.outputFiles[0].text;
}

/** The script of a page that carries one SDK. */
export function pageScript(sdk) {
  return bundle(`import * as sdk from '${sdk}'; import { serve } from './page.mjs'; serve(sdk);`, 'browser');
}

const modules = new Map();

/**
 * What a Node worker loads for an SDK. Node cannot import core 1.x as it is published (it imports SockJS by a path
 * without extension), so that package is bundled once into a temporary directory.
 */
export function nodeModule(sdk) {
  if (!modules.has(sdk)) modules.set(sdk, sdk.startsWith('core-1') ? bundledModule(sdk) : Promise.resolve(sdk));
  return modules.get(sdk);
}

async function bundledModule(sdk) {
  const directory = await mkdtemp(join(tmpdir(), 'offhook-e2e-'));
  const file = join(directory, `${sdk}.mjs`);
  await writeFile(file, await bundle(`export * from '${sdk}'; export { default } from '${sdk}';`, 'node'));
  process.on('exit', () => rmSync(directory, { recursive: true, force: true }));
  return pathToFileURL(file).href;
}
