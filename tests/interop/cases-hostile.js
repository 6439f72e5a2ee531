// Thousands of connections that say nothing, and slow senders: the service serves others meanwhile, hangs up on who does not
// come to the point, and keeps nothing of them.
'use strict';

const assert = require('assert');
const path = require('path');
const readline = require('readline');
const { once } = require('events');
const { spawn } = require('child_process');
const { device } = require('./columns');
const { steps } = require('./cells');
const { KINDS } = require('./kinds');
const { HUBS, selfSigned, until } = require('./world');

/** Of each of six kinds. */
const CONNECTIONS = 400;
/** What the allocator may keep after the third wave that it had not after the second; it levels off within four. */
const GROWTH_MAX = 40 << 20;

async function wave(stranger) {
  const [https, mqtt] = (process.env.INTEROP_PORTS || '443 8883').split(' ');
  const args = [path.join(__dirname, 'hostile.py'), '127.0.0.1', https, mqtt, String(CONNECTIONS), stranger.certFile, stranger.keyFile];
  const child = spawn(process.env.INTEROP_PYTHON, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = readline.createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const heard = async () => {
    const { value, done } = await lines.next();
    if (done) throw new Error('the hostile clients ended early');
    return JSON.parse(value);
  };
  const { opened } = await heard();
  return {
    opened,
    async silent() {
      child.stdin.write('\n');
      return (await heard()).silent;
    },
    async end() {
      const ended = once(child, 'exit');
      child.stdin.end();
      await ended;
    },
  };
}

async function hostile(serving) {
  const stranger = await selfSigned('stranger');
  const columns = ['Node HTTP', 'Node MQTT'];
  const devices = await Promise.all(columns.map(async (column) => {
    const identity = await KINDS['X.509, individual']();
    await identity.enroll({ hub: 'hub-a' });
    return { identity, it: device(column) };
  }));
  const allRegister = async () => {
    for (const { identity, it } of devices) assert.equal((await it.register(identity)).assignedHub, HUBS['hub-a']);
  };
  await allRegister();
  const before = serving.memory();
  const memories = [];
  await steps('hostile clients', 'rehome', null, [
    ['devices register while thousands of connections say nothing and others are slow', async () => {
      const first = await wave(stranger);
      assert.ok(first.opened > 6 * CONNECTIONS);
      await allRegister();
      memories.push(serving.memory());
      await first.end();
    }],
    ['who says nothing before TLS, or nothing of MQTT, is hung up on', async () => {
      const second = await wave(stranger);
      await until('they are gone', async () => (await second.silent()) === 0, 45);
      await allRegister();
      await second.end();
    }],
    ['no connection is left, and no memory for them', async () => {
      await until('no connection is open', async () => (await serving.gauge('rehome_connections')) === 0, 45);
      memories.push(serving.memory());
      const third = await wave(stranger);
      await third.end();
      await until('no connection is open', async () => (await serving.gauge('rehome_connections')) === 0, 45);
      memories.push(serving.memory());
      const mib = [before, ...memories].map((bytes) => Math.round(bytes / (1 << 20)));
      console.log(`memory in MiB: ${mib[0]} before, ${mib[1]} with ${6 * CONNECTIONS} connections, ${mib[2]} and ${mib[3]} after two waves more`);
      assert.ok(memories[2] - memories[1] < GROWTH_MAX, `it grows: ${mib}`);
    }],
  ]);
}

module.exports.cases = [{ name: 'hostile', run: hostile }];
