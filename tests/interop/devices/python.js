// A device with Microsoft's SDK for Python: agent.py, told what to do line by line.
'use strict';

const path = require('path');
const { EventEmitter } = require('events');
const { Lines } = require('../lines');

class PythonDevice {
  constructor(transport, host, scope) {
    const args = [path.join(__dirname, 'agent.py'), host, scope, process.env.NODE_EXTRA_CA_CERTS];
    if (transport === 'mqtt-ws') args.push('websockets');
    this.homes = new Map();
    this.lines = new Lines(args, ({ event, home, value }) => this.homes.get(home)?.emit(event, value));
  }

  ask(question) {
    return this.lines.ask(question);
  }

  register(identity, { payload } = {}) {
    return this.ask({ do: 'register', identity: shown(identity), payload });
  }

  async open(identity, hub, deviceId) {
    const name = String(this.homes.size);
    const home = new PythonHome(this, name);
    this.homes.set(name, home);
    await this.ask({ do: 'open', home: name, identity: shown(identity), hub, deviceId });
    return home;
  }

  close() {
    return this.lines.close();
  }
}

class PythonHome extends EventEmitter {
  constructor(device, name) {
    super();
    this.device = device;
    this.name = name;
  }

  twin() {
    return this.device.ask({ do: 'twin', home: this.name });
  }

  report(patch) {
    return this.device.ask({ do: 'report', home: this.name, patch });
  }

  close() {
    return this.device.ask({ do: 'close', home: this.name });
  }
}

function shown({ registrationId, symmetricKey, certFile, keyFile }) {
  return { registrationId, symmetricKey, certFile, keyFile };
}

module.exports = { PythonDevice };
