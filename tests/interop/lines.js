// A program that is asked line by line, and answers so: a line of JSON each.
'use strict';

const readline = require('readline');
const { spawn } = require('child_process');

class Lines {
  /** `heard` gets the lines that answer nothing. */
  constructor(args, heard = () => {}) {
    this.child = spawn(process.env.INTEROP_PYTHON, args, { stdio: ['pipe', 'pipe', 'pipe'] });
    this.said = '';
    this.waiting = [];
    this.child.stderr.on('data', (part) => (this.said = (this.said + part).slice(-4000)));
    readline.createInterface({ input: this.child.stdout }).on('line', (text) => {
      const line = JSON.parse(text);
      if (line.event) {
        heard(line);
        return;
      }
      const { resolve, reject } = this.waiting.shift();
      const { error, value } = line;
      if (error) reject(Object.assign(new Error(`${error.name}: ${error.message}`), { name: error.name, status: error.status }));
      else resolve(value);
    });
    this.ended = new Promise((resolve) => this.child.once('exit', resolve));
    this.ended.then(() => this.waiting.splice(0).forEach(({ reject }) => reject(new Error(`it ended: ${this.said}`))));
  }

  ask(question) {
    return new Promise((resolve, reject) => {
      this.waiting.push({ resolve, reject });
      this.child.stdin.write(JSON.stringify(question) + '\n');
    });
  }

  async close() {
    this.child.stdin.end();
    await this.ended;
  }
}

module.exports = { Lines };
