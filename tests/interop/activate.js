// Activates a blob in the TPM behind a Unix socket with the device code of azure-iot-security-tpm, and prints what the
// key that came in it makes of a message.
//
// usage: node activate.js SOCKET BLOB-IN-BASE64 MESSAGE
'use strict';

const net = require('net');
const { Tpm } = require('tss.js');
const { TpmSecurityClient } = require('azure-iot-security-tpm');

// Raw TPM frames over a stream: one command out, one answer in.
class SocketDevice {
  constructor(path) {
    this.path = path;
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
    this.socket.on('error', fail);
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

function fail(error) {
  console.error(error);
  process.exit(1);
}

const [socket, blob, message] = process.argv.slice(2);
const tpm = new Tpm(false);
tpm.device = new SocketDevice(socket);
const client = new TpmSecurityClient(undefined, tpm);

client.getEndorsementKey((error, endorsementKey) => {
  if (error) fail(error);
  client.getRegistrationId((error, registrationId) => {
    if (error) fail(error);
    client.activateIdentityKey(Buffer.from(blob, 'base64'), (error) => {
      if (error) fail(error);
      client.signWithIdentity(Buffer.from(message), (error, signature) => {
        if (error) fail(error);
        console.log(JSON.stringify({
          endorsementKey: endorsementKey.toString('base64'),
          registrationId,
          signature: signature.toString('base64'),
        }));
        tpm.device.close();
      });
    });
  });
});
