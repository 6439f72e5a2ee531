// SDKs and transports that register devices.
'use strict';

const { NodeDevice } = require('./devices/node');
const { PythonDevice } = require('./devices/python');
const { HOST, SCOPE } = require('./world');

const DEVICES = {
  'Node HTTP': () => new NodeDevice('http', HOST, SCOPE),
  'Node MQTT': () => new NodeDevice('mqtt', HOST, SCOPE),
  'Node MQTT-WS': () => new NodeDevice('mqtt-ws', HOST, SCOPE),
  'Python MQTT': () => new PythonDevice('mqtt', HOST, SCOPE),
  'Python MQTT-WS': () => new PythonDevice('mqtt-ws', HOST, SCOPE),
};
const COLUMNS = Object.keys(DEVICES);
/** Hubs are spoken to over MQTT only. */
const AT_HUBS = COLUMNS.filter((column) => column !== 'Node HTTP');

module.exports = { AT_HUBS, COLUMNS, device: (column) => DEVICES[column]() };
