// A device with Microsoft's SDK for Python: agent.py, told what to do line by line.
'use strict';

const path = require('path');
const readline = require('readline');
const { EventEmitter } = require('events');
const { spawn } = require('child_process');

class PythonDevice {
  constructor(transport, host, scope) {
    const args = [path.join(__dirname, 'agent.py'), host, scope, process.env.NODE_EXTRA_CA_CERTS];
    if (transport === 'mqtt-ws') args.push('websockets');
    this.child = spawn(process.env.INTEROP_PYTHON, args, { stdio: ['pipe', 'pipe', 'pipe'] });
    this.said = '';
    this.child.stderr.on('data', (part) => (this.said = (this.said + part).slice(-4000)));
    this.waiting = [];
    this.homes = new Map();
    readline.createInterface({ input: this.child.stdout }).on('line', (line) => this.heard(JSON.parse(line)));
    this.child.on('exit', () => this.waiting.splice(0).forEach(({ reject }) => reject(new Error(this.said))));
  }

  heard({ event, home, error, value }) {
    if (event) {
      this.homes.get(home)?.emit(event, value);
      return;
    }
    const { resolve, reject } = this.waiting.shift();
    if (error) reject(Object.assign(new Error(`${error.name}: ${error.message}`), { name: error.name }));
    else resolve(value);
  }

  ask(question) {
    return new Promise((resolve, reject) => {
      this.waiting.push({ resolve, reject });
      this.child.stdin.write(JSON.stringify(question) + '\n');
    });
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

  async close() {
    this.child.stdin.end();
    await new Promise((resolve) => this.child.once('exit', resolve));
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
