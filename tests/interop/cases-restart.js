// Devices at their hubs while the service is restarted: they come back by themselves.
'use strict';

const assert = require('assert');
const { once } = require('events');
const { AT_HUBS, device } = require('./columns');
const { steps, within } = require('./cells');
const { KINDS } = require('./kinds');
const { HUBS, random, rehome } = require('./world');

async function restarted(serving) {
  const devices = await Promise.all(AT_HUBS.map(async (column) => {
    const identity = await KINDS['X.509, individual']();
    await identity.enroll({ hub: 'hub-a' });
    const it = device(column);
    await it.register(identity);
    const home = await it.open(identity, HUBS['hub-a'], identity.deviceId);
    await home.twin();
    return { column, identity, it, home };
  }));
  await serving.stop();
  await serving.start();
  await Promise.all(devices.map(async ({ column, identity, it, home }) => {
    const wanted = random();
    await steps('after a restart of the service', column, null, [
      ['comes back by itself', async () => {
        const { first } = await eventually(() => home.report({ first: wanted }).then(() => home.twin()).then((twin) => twin.reported));
        assert.equal(first, wanted);
        const told = once(home, 'desired');
        await rehome('twin', 'patch', identity.registrationId, '--desired', JSON.stringify({ wanted }));
        assert.equal((await within(20, told))[0].wanted, wanted);
      }],
    ]);
    await home.close();
    await it.close();
  }));
}

/** What comes of it at last: an SDK that has lost its connection fails what it is asked meanwhile. */
async function eventually(ask) {
  for (;;) {
    try {
      return await within(10, ask());
    } catch (error) {
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
}

module.exports.cases = [{ name: 'restart', run: restarted }];
