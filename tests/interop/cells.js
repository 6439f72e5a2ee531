// The cells that have to be shown, and what was shown of them.
//
// A cell is a case (a row) through one SDK and transport (a column). `tables` below is the whole list: what is run and is
// not in it fails, and what is in it and was not run fails. `absent` are cells that an SDK cannot show.
'use strict';

const fs = require('fs');

const STEPS = [
  'registers',
  'is told its device id',
  'has the initial twin at its hub',
  'registers again and stays',
  'moves with its twin when its enrollment says so',
  'is allocated by a webhook, with its payload',
  'is refused when its enrollment is deleted',
  'is deleted from its hub',
];

const KINDS = [
  'X.509, individual',
  'X.509, group',
  'X.509, group, through two intermediates',
  'symmetric key, individual',
  'symmetric key, group',
];

const AT_THE_HUB = [
  'reads its twin',
  'reports properties',
  'is told what is desired',
  'is hung up on when it moves, and let in nowhere but at its new hub',
  'registers again by itself and goes on with its twin',
];

const tables = [
  {
    name: 'registration',
    columns: ['Node HTTP', 'Node MQTT', 'Node MQTT-WS', 'Python MQTT', 'Python MQTT-WS'],
    rows: KINDS.flatMap((kind) => STEPS.map((step) => `${kind}: ${step}`)),
  },
  {
    name: 'refused',
    columns: ['Node HTTP', 'Node MQTT', 'Node MQTT-WS', 'Python MQTT', 'Python MQTT-WS'],
    rows: [
      'a device with another key',
      "a device with its group's own key",
      "a device with another device's key",
      'a device with a certificate of an authority that is not enrolled',
      "a device with another device's certificate",
      'nothing of them is left',
    ],
  },
  {
    name: 'at the hub',
    columns: ['Node MQTT', 'Node MQTT-WS', 'Python MQTT', 'Python MQTT-WS'],
    rows: ['X.509', 'symmetric key'].flatMap((proof) => AT_THE_HUB.map((step) => `${proof}: ${step}`)),
  },
  {
    name: 'after a restart of the service',
    columns: ['Node MQTT', 'Node MQTT-WS', 'Python MQTT', 'Python MQTT-WS'],
    rows: ['comes back by itself'],
  },
  {
    name: 'TPM',
    columns: ['Node HTTP'],
    rows: [
      'registers by its endorsement key',
      'is let in by its hub with a token that the TPM signed',
      'moves when it registers again, and is given another key',
      'is refused when another TPM is enrolled under its id',
    ],
  },
  {
    name: 'service SDKs',
    columns: ['Node', 'Python', 'Python, old'],
    rows: [
      ...['individual, X.509', 'individual, TPM', 'individual, symmetric key', 'group, X.509', 'group, symmetric key'].map(
        (what) => `${what}: created, read, changed, not overwritten, deleted`),
      'many at once: created, refused each for itself, changed, deleted',
      'queried page by page',
      'registrations: read, deleted',
      'registrations of a group, page by page',
      'refused with another key, or by a policy that nobody has',
    ],
    absent: { 'registrations of a group, page by page': ['Python, old'] },
  },
  {
    name: 'azure-iothub',
    columns: ['Node'],
    rows: [
      'reads a device, and lists it with the others',
      'reads a twin, with tags and what the device reported',
      'changes tags and desired properties, which the device is told',
      'overwrites nothing that was changed meanwhile',
      'queries twins page by page',
      'shuts a device out and lets it in again',
      'makes no device: it gets to a hub by registering',
      "is refused with another hub's key",
      'deletes a device, which is let in no longer',
    ],
  },
  {
    name: 'between front ends',
    columns: ['rehome'],
    rows: [
      'registered over HTTPS, moved by an operator, registered again over MQTT',
      'registered over MQTT, moved by its enrollment, looked up over gRPC',
      'one registration, one audit trail',
      'seen alike by the command line, the service SDK and the registry of its hub',
      'ended through the service SDK, and gone for all of them',
    ],
  },
  {
    name: 'the programs of docs/sdk',
    columns: ['Node', 'Python'],
    rows: ['registers, lives at its hub, is moved and goes on'],
  },
  {
    name: 'slow senders',
    columns: ['rehome'],
    rows: [
      'a CONNECT that takes too long is hung up on',
      'a body that takes too long is answered 408',
      'headers that take too long are hung up on',
    ],
  },
  {
    name: 'hostile clients',
    columns: ['rehome'],
    rows: [
      'devices register while thousands of connections say nothing and others are slow',
      'who says nothing before TLS, or nothing of MQTT, is hung up on',
      'no connection is left, and no memory for them',
    ],
  },
];

const cells = process.env.INTEROP_CELLS;

/** Notes how a cell went. */
function note(table, row, column, error, began) {
  const seconds = (Date.now() - began) / 1000;
  const said = error ? String(error.stack || error) : null;
  fs.appendFileSync(cells, JSON.stringify({ table, row, column, ok: !error, seconds, error: said }) + '\n');
  if (error) console.log(`FAILED  ${table} | ${row} | ${column}\n${said.replace(/^/gm, '        ')}`);
}

/** Runs the steps of one device in one column, in order; after one that fails the others have failed, too. */
async function steps(table, column, prefix, all) {
  let failed = null;
  for (const [name, step] of all) {
    const row = prefix ? `${prefix}: ${name}` : name;
    const began = Date.now();
    if (failed) {
      note(table, row, column, `not reached: ${failed}`, began);
      continue;
    }
    try {
      await within(90, step());
      note(table, row, column, null, began);
    } catch (error) {
      failed = name;
      note(table, row, column, error, began);
    }
  }
}

/** The promise, or a failure when it takes too long. */
function within(seconds, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`nothing within ${seconds} s`)), seconds * 1000);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

module.exports = { tables, note, steps, within };
