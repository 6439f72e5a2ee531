// A back end of the provisioning service with Microsoft's SDKs for Python: agent.py, told what to do line by line.
'use strict';

const path = require('path');
const { Lines } = require('../lines');

const CALLS = ['put', 'get', 'delete', 'mechanism', 'bulk', 'query', 'registration', 'deleteRegistration', 'registrationsOf'];

class PythonBackend {
  /** `sdk` is the package: azure-iot-deviceprovisioning, or azure-iothub-provisioningserviceclient. */
  constructor(sdk, connectionString) {
    // Not on the command line, where others could read its key.
    this.lines = new Lines([path.join(__dirname, 'agent.py'), sdk]);
    this.ready = this.lines.ask(connectionString);
  }

  async close() {
    await this.lines.close();
  }
}

for (const call of CALLS) {
  PythonBackend.prototype[call] = async function (...args) {
    await this.ready;
    return this.lines.ask([call, ...args]);
  };
}

module.exports = { PythonBackend };
