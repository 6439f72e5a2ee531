// Prints the table of what passed. Fails when a cell failed, is missing, or is not one that is expected.
'use strict';

const fs = require('fs');
const { tables } = require('./cells');

const lines = fs.readFileSync(process.env.INTEROP_CELLS, 'utf8').split('\n').filter(Boolean).map((line) => JSON.parse(line));
const only = process.env.INTEROP_ONLY;
const key = (table, row, column) => `${table} | ${row} | ${column}`;
const shown = new Map();
for (const { table, row, column, ok } of lines) {
  const name = key(table, row, column);
  shown.set(name, (shown.get(name) ?? true) && ok);
}

const counts = { passed: 0, failed: 0, missing: 0 };
for (const { name, columns, rows, absent = {} } of tables) {
  const width = Math.max(...rows.map((row) => row.length), name.length);
  console.log(`\n${name.padEnd(width)}  ${columns.join('  ')}`);
  for (const row of rows) {
    const words = columns.map((column) => {
      if (absent[row]?.includes(column)) return '–'.padEnd(column.length);
      const ok = shown.get(key(name, row, column));
      shown.delete(key(name, row, column));
      const word = ok === undefined ? 'missing' : ok ? 'passed' : 'failed';
      counts[word] += 1;
      return word.padEnd(column.length);
    });
    console.log(`${row.padEnd(width)}  ${words.join('  ')}`.trimEnd());
  }
}
for (const name of shown.keys()) console.log(`not expected: ${name}`);
console.log(`\n${counts.passed} passed, ${counts.failed} failed, ${counts.missing} missing`);
const whole = only ? counts.failed === 0 : counts.failed + counts.missing + shown.size === 0;
process.exit(whole ? 0 : 1);
