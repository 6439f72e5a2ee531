// The programs of docs/sdk, as they stand there: each registers, lives at its hub, and registers again when it is moved.
'use strict';

const assert = require('assert');
const fs = require('fs');
const path = require('path');
const { spawn } = require('child_process');
const { steps } = require('./cells');
const { once, rehome, until, work, write } = require('./world');

/** The first block of a page in a language, for another device. */
function program(page, language, device) {
  const text = fs.readFileSync(path.join(__dirname, '../../docs/sdk', page), 'utf8');
  const [, block] = new RegExp(`^\`\`\`${language}\\n([^]*?)^\`\`\``, 'm').exec(text);
  assert.ok(block.includes('meter-17'));
  return block.replaceAll('meter-17', device);
}

/** What lets the devices of the pages in. */
const group = once(() => rehome('group', 'create', 'meters', '--certificate', 'certs/device-ca.pem', '--allocation', 'static', '--hub', 'hub-a'));

const PAGES = {
  Node: { page: 'node.md', language: 'js', device: 'meter-18', command: 'node', env: { NODE_PATH: path.join(__dirname, 'node_modules') } },
  Python: { page: 'python.md', language: 'python', device: 'meter-19', command: process.env.INTEROP_PYTHON, env: {} },
};

async function page(column) {
  const { page, language, device, command, env } = PAGES[column];
  const file = write(`device.${language}`, program(page, language, device));
  let child;
  let said = '';
  await steps('the programs of docs/sdk', column, null, [
    ['registers, lives at its hub, is moved and goes on', async () => {
      await group();
      await rehome('pki', 'device', device);
      child = spawn(command, [file], { cwd: work, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
      process.once('exit', () => child.kill('SIGKILL'));
      for (const stream of [child.stdout, child.stderr]) stream.on('data', (part) => (said += part));
      const says = (what) => until(`it says ${what}`, () => said.includes(what), 40).catch((error) => assert.fail(`${error.message}: ${said}`));
      await says(`${device} lives at hub-a.localhost`);
      await rehome('device', 'reprovision', device, '--to', 'hub-b', '--wait');
      await says(`${device} lives at hub-b.localhost`);
      await rehome('twin', 'patch', device, '--desired', '{"interval": 30}');
      await says('interval');
    }],
  ]);
  child?.kill();
}

module.exports.cases = Object.keys(PAGES).map((column) => ({ name: `docs | ${column}`, run: () => page(column) }));
