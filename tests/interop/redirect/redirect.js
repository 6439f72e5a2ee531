// Loaded before a case where no namespace is allowed: connections to the names under test go to the ports on which the
// service listens. Nothing else of a process is changed.
'use strict';

const net = require('net');

const names = new Set((process.env.INTEROP_NAMES || '').split(' '));
const ports = new Map((process.env.INTEROP_REDIRECT || '').split(',').map((pair) => pair.split('=').map(Number)));
const connect = net.Socket.prototype.connect;

net.Socket.prototype.connect = function (...args) {
  const [options, connected] = Array.isArray(args[0]) ? args[0] : net._normalizeArgs(args);
  const port = ports.get(Number(options.port));
  if (port === undefined || !names.has(options.host)) return connect.apply(this, args);
  return connect.call(this, { ...options, host: '127.0.0.1', port }, connected);
};
