// SDKs and transports that register devices.
'use strict';

const { NodeDevice } = require('./devices/node');
const { PythonDevice } = require('./devices/python');
const { HOST, SCOPE } = require('./world');

const DEVICES = {
  'Node HTTP': () => new NodeDevice('http', HOST, SCOPE),
  'Node MQTT': () => new NodeDevice('mqtt', HOST, SCOPE),
  'Python MQTT': () => new PythonDevice('mqtt', HOST, SCOPE),
};

module.exports = { COLUMNS: Object.keys(DEVICES), device: (column) => DEVICES[column]() };
