// A TPM behind a Unix socket, as tss.js speaks to one: raw frames over a stream, one command out, one answer in.
'use strict';

const net = require('net');
const { Tpm } = require('tss.js');

class SocketDevice {
  /** `failed` is told what goes wrong with the socket. */
  constructor(path, failed) {
    this.path = path;
    this.failed = failed;
    this.received = Buffer.alloc(0);
    this.waiting = null;
  }

  connect(continuation) {
    this.socket = net.connect(this.path, () => continuation(null));
    this.socket.on('data', (part) => {
      this.received = Buffer.concat([this.received, part]);
      if (this.waiting && this.received.length >= 10 && this.received.length >= this.received.readUInt32BE(2)) {
        const [answered, frame] = [this.waiting, this.received];
        this.waiting = null;
        this.received = Buffer.alloc(0);
        setImmediate(answered, null, frame);
      }
    });
    this.socket.on('error', this.failed);
    return null;
  }

  dispatchCommand(command, continuation) {
    this.waiting = continuation;
    this.socket.write(command);
  }

  close() {
    this.socket.end();
  }
}

/** The TPM at a socket. */
function tpmAt(path, failed) {
  const tpm = new Tpm(false);
  tpm.device = new SocketDevice(path, failed);
  return tpm;
}

module.exports = { tpmAt };
