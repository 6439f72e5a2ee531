// The service under test and its operator: commands, certificates, the webhook that allocates.
'use strict';

const fs = require('fs');
const http = require('http');
const path = require('path');
const crypto = require('crypto');
const { execFile } = require('child_process');
const { promisify } = require('util');

const work = process.env.INTEROP_WORK;
const HOST = 'localhost';
const SCOPE = '0ne00REHOME';
const HUBS = { 'hub-a': 'hub-a.localhost', 'hub-b': 'hub-b.localhost' };

const run = promisify(execFile);

/** A command of `rehome`, and what it prints as JSON. */
async function rehome(...args) {
  const { stdout } = await run(process.env.INTEROP_REHOME, ['--json', ...args], { cwd: work, maxBuffer: 1 << 24 });
  return stdout.trim() ? JSON.parse(stdout) : null;
}

async function openssl(...args) {
  await run('openssl', args, { cwd: work });
}

let last = 0;
/** A name that nobody else has. */
function fresh(prefix) {
  last += 1;
  return `${prefix}-${process.pid}-${last}`;
}

function file(name) {
  return path.join(work, name);
}

function write(name, text) {
  fs.writeFileSync(file(name), text);
  return file(name);
}

function read(name) {
  return fs.readFileSync(file(name), 'utf8');
}

/** A certificate that signs itself. */
async function selfSigned(id) {
  const [cert, key] = [`${id}.self.pem`, `${id}.self.key`];
  await openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2',
    '-subj', `/CN=${id}`, '-keyout', key, '-out', cert);
  return { cert: read(cert), key: read(key), certFile: file(cert), keyFile: file(key) };
}

/** An authority: its certificate's file, and the path that `rehome pki` takes. */
async function authority(name, below) {
  await rehome('pki', 'ca', name, '--out', work, ...(below ? ['--below', below.path] : []));
  return { path: file(name), certFile: file(`${name}.pem`), cert: read(`${name}.pem`) };
}

/** A device's certificate and the chain that it presents. */
async function issued(id, by) {
  await rehome('pki', 'device', id, '--authority', by.path, '--out', work);
  const [certFile, keyFile] = [file(`${id}.pem`), file(`${id}.key`)];
  return { cert: read(`${id}.pem`), key: read(`${id}.key`), certFile, keyFile };
}

/** Waits until something is so. */
async function until(what, holds, seconds = 30) {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const value = await holds();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`not within ${seconds} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

/** A webhook that sends every device to one hub, with a payload; tells what it was asked. */
async function webhook(hub, payload) {
  const asked = [];
  const server = http.createServer((request, response) => {
    let body = '';
    request.on('data', (part) => (body += part));
    request.on('end', () => {
      asked.push(JSON.parse(body));
      response.setHeader('content-type', 'application/json');
      response.end(JSON.stringify({ iotHubHostName: HUBS[hub], payload }));
    });
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${server.address().port}/allocate?code=x`;
  return { url, asked, close: () => server.close() };
}

/** What is made at the first call, and the same at every other. */
function once(make) {
  let made;
  return () => (made ??= make());
}

const random = () => crypto.randomBytes(8).toString('hex');

module.exports = { HOST, SCOPE, HUBS, authority, file, fresh, issued, once, random, read, rehome, selfSigned, until, webhook, work, write };
