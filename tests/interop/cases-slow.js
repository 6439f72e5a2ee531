// Senders that take their time: each is answered or hung up on within the bound of what it does.
'use strict';

const assert = require('assert');
const fs = require('fs');
const tls = require('tls');
const { SCOPE } = require('./world');
const { steps } = require('./cells');

const [https, mqtt] = process.env.INTEROP_PORTS.split(' ').map(Number);
const REGISTER = `PUT /${SCOPE}/registrations/slow/register?api-version=2021-10-01 HTTP/1.1\r\nhost: localhost\r\n`;

/** Sends the beginning at once and then a byte every tenth of a second, until the other end has had enough; what it said. */
async function dribble(port, beginning) {
  const ca = fs.readFileSync(process.env.NODE_EXTRA_CA_CERTS);
  const stream = tls.connect({ host: '127.0.0.1', port, servername: 'localhost', ca });
  let said = '';
  stream.on('data', (part) => (said += part));
  stream.on('error', () => {});
  let timer;
  stream.on('secureConnect', () => {
    stream.write(beginning);
    timer = setInterval(() => stream.writable && stream.write('x'), 100);
  });
  await new Promise((resolve) => stream.on('close', resolve));
  clearInterval(timer);
  return said;
}

async function slow() {
  // All at once: the longest bound is a minute.
  const ends = {
    body: dribble(https, `${REGISTER}content-length: 50000\r\n\r\n`),
    headers: dribble(https, `${REGISTER}x-slow: `),
    connect: dribble(mqtt, Buffer.from([0x10, 0xff, 0x7f])),
  };
  await steps('slow senders', 'rehome', null, [
    ['a CONNECT that takes too long is hung up on', async () => assert.equal(await ends.connect, '')],
    ['a body that takes too long is answered 408', async () => assert.match(await ends.body, /^HTTP\/1\.1 408 [^]*"errorCode":408001/)],
    ['headers that take too long are hung up on', async () => assert.match(await ends.headers, /^($|HTTP\/1\.1 408)/)],
  ]);
}

module.exports.cases = [{ name: 'slow senders', run: slow }];
