// The running service.
'use strict';

const fs = require('fs');
const { spawn } = require('child_process');
const { file, rehome, until, work } = require('./world');

class Serving {
  static async start() {
    const serving = new Serving();
    await serving.start();
    return serving;
  }

  /** Resolves when it serves. */
  async start() {
    const log = fs.openSync(file('serve.log'), 'a');
    this.child = spawn(process.env.INTEROP_REHOME, ['serve'], { cwd: work, stdio: ['ignore', log, log] });
    fs.closeSync(log);
    this.ended = new Promise((resolve) => this.child.once('exit', resolve));
    process.once('exit', () => this.child.kill('SIGKILL'));
    await until('the service serves', () => {
      if (this.child.exitCode !== null) throw new Error(`the service ended: ${fs.readFileSync(file('serve.log'))}`);
      return rehome('hub', 'list').catch(() => false);
    }, 60);
  }

  async stop() {
    this.child.kill('SIGTERM');
    await this.ended;
  }

  /** The value of one of its metrics. */
  async gauge(name) {
    const response = await fetch(`http://127.0.0.1:${process.env.INTEROP_METRICS}/metrics`);
    const line = (await response.text()).split('\n').find((one) => one.startsWith(`${name} `));
    return Number(line.split(' ')[1]);
  }

  /** Bytes of memory that it holds. */
  memory() {
    const [, resident] = fs.readFileSync(`/proc/${this.child.pid}/statm`, 'utf8').split(' ');
    return Number(resident) * 4096;
  }
}

module.exports = { Serving };
