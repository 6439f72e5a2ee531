// The cells that have to be shown, and what was shown of them.
//
// A cell is a case (a row) through one SDK and transport (a column). `tables` below is the whole list: what is run and is
// not in it fails, and what is in it and was not run fails.
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
];

const KINDS = {
  'X.509, individual': 'x509-individual',
  'X.509, group': 'x509-group',
  'X.509, group, through two intermediates': 'x509-chain',
};

const tables = [
  {
    name: 'registration',
    columns: ['Node HTTP', 'Node MQTT', 'Python MQTT'],
    rows: Object.keys(KINDS).flatMap((kind) => STEPS.map((step) => `${kind}: ${step}`)),
  },
  {
    name: 'at the hub',
    columns: ['Node MQTT', 'Python MQTT'],
    rows: [
      'reads its twin',
      'reports properties',
      'is told what is desired',
      'is hung up on when it moves, and let in nowhere but at its new hub',
      'registers again by itself and goes on with its twin',
      'comes back by itself after a restart of the service',
    ],
  },
  {
    name: 'between front ends',
    columns: ['rehome'],
    rows: [
      'registered over HTTPS, moved by an operator, registered again over MQTT',
      'registered over MQTT, moved by its enrollment, looked up over gRPC',
      'one registration, one audit trail',
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
      await within(60, step());
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

module.exports = { KINDS, STEPS, tables, note, steps, within };
