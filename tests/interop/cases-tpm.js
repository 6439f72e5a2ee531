// A device with a TPM (a software one) over HTTPS: azure-iot-security-tpm, and its hub with tokens that the TPM signs.
'use strict';

const assert = require('assert');
const fs = require('fs');
const path = require('path');
const { spawn } = require('child_process');
const { ProvisioningDeviceClient } = require('azure-iot-provisioning-device');
const { Http } = require('azure-iot-provisioning-device-http');
const { TpmAuthenticationProvider, TpmSecurityClient } = require('azure-iot-security-tpm');
const { Client } = require('azure-iot-device');
const { Mqtt } = require('azure-iot-device-mqtt');
const { tpmAt } = require('./devices/tpm');
const { called } = require('./backends/node');
const { steps } = require('./cells');
const { HOST, HUBS, SCOPE, file, random, rehome, until, write } = require('./world');

/** A chip with nothing in it. */
async function chip() {
  const folder = fs.mkdtempSync(file('tpm-'));
  // A socket's path is short, and a work folder's may be long.
  const socket = path.join(fs.mkdtempSync('/tmp/rehome-tpm-'), 'socket');
  const args = ['socket', '--tpm2', '--flags', 'not-need-init,startup-clear', '--tpmstate', `dir=${folder}`,
    '--server', `type=unixio,path=${socket}`, '--ctrl', `type=unixio,path=${socket}.ctrl`];
  const child = spawn('swtpm', args, { stdio: 'ignore' });
  process.once('exit', () => child.kill('SIGKILL'));
  await until('there is a TPM', () => fs.existsSync(socket));
  return { socket, end: () => { child.kill(); fs.rmSync(path.dirname(socket), { recursive: true, force: true }); } };
}

async function tpm() {
  const { socket, end } = await chip();
  const security = new TpmSecurityClient(undefined, tpmAt(socket, () => {}));
  const wanted = random();
  let id;
  const register = async () => {
    const client = ProvisioningDeviceClient.create(HOST, SCOPE, new Http(), security);
    const result = await client.register();
    return result.registrationState ?? result;
  };
  const twinAt = async (hub, deviceId) => {
    const client = Client.fromAuthenticationProvider(TpmAuthenticationProvider.fromTpmSecurityClient(deviceId, hub, security), Mqtt);
    await client.open();
    const twin = await client.getTwin();
    await new Promise((resolve) => client.close(resolve));
    return twin;
  };
  await steps('TPM', 'Node HTTP', null, [
    ['registers by its endorsement key', async () => {
      const endorsementKey = await called(security, 'getEndorsementKey');
      id = await called(security, 'getRegistrationId');
      const key = write('tpm.ek', Buffer.from(endorsementKey).toString('base64'));
      await rehome('enroll', 'create', id, '--endorsement-key', key, '--allocation', 'static', '--hub', 'hub-a',
        '--initial-twin', write('tpm.json', JSON.stringify({ tags: {}, desired: { wanted } })));
      const told = await register();
      assert.deepEqual([told.status, told.assignedHub, told.deviceId], ['assigned', HUBS['hub-a'], id]);
    }],
    ['is let in by its hub with a token that the TPM signed', async () => {
      assert.equal((await twinAt(HUBS['hub-a'], id)).properties.desired.wanted, wanted);
    }],
    ['moves when it registers again, and is given another key', async () => {
      await rehome('enroll', 'update', id, '--hub', 'hub-b');
      const told = await register();
      assert.equal(told.assignedHub, HUBS['hub-b']);
      assert.equal((await twinAt(HUBS['hub-b'], id)).properties.desired.wanted, wanted);
    }],
    ['is refused when another TPM is enrolled under its id', async () => {
      await rehome('enroll', 'delete', id);
      await assert.rejects(register());
    }],
  ]);
  end();
}

module.exports.cases = [{ name: 'TPM', run: tpm }];
