// Activates a blob in the TPM behind a Unix socket with the device code of azure-iot-security-tpm, and prints what the
// key that came in it makes of a message.
//
// usage: node activate.js SOCKET BLOB-IN-BASE64 MESSAGE
'use strict';

const { TpmSecurityClient } = require('azure-iot-security-tpm');
const { tpmAt } = require('./devices/tpm');

function fail(error) {
  console.error(error);
  process.exit(1);
}

const [socket, blob, message] = process.argv.slice(2);
const tpm = tpmAt(socket, fail);
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
