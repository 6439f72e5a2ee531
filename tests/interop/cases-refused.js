// Who was not enrolled does not get in, through whatever SDK.
'use strict';

const assert = require('assert');
const crypto = require('crypto');
const { COLUMNS, device } = require('./columns');
const { steps } = require('./cells');
const { KINDS } = require('./kinds');
const { authority, fresh, issued, rehome } = require('./world');

/** How each SDK says that a device is not let in. */
function isRefusal(column, error) {
  const said = `${error.name}: ${error.message}`;
  if (column === 'Node HTTP') return error.name === 'UnauthorizedError';
  return /401|unauthorized|not authorized/i.test(said) || assert.fail(said);
}

async function refused(column) {
  const it = device(column);
  const is = (error) => isRefusal(column, error);
  const [keyed, grouped, member] = [
    await KINDS['symmetric key, individual'](),
    await KINDS['symmetric key, group'](),
    await KINDS['X.509, group'](),
  ];
  await Promise.all([keyed, grouped, member].map((one) => one.enroll({ hub: 'hub-a' })));
  await steps('refused', column, null, [
    ['a device with another key', async () => {
      const symmetricKey = crypto.randomBytes(64).toString('base64');
      await assert.rejects(it.register({ ...keyed, symmetricKey }), is);
    }],
    ["a device with its group's own key", async () => {
      const { primary_key: symmetricKey } = await rehome('group', 'keys', grouped.group);
      await assert.rejects(it.register({ registrationId: grouped.registrationId, symmetricKey }), is);
    }],
    ["a device with another device's key", async () => {
      await assert.rejects(it.register({ ...grouped, registrationId: fresh('reg') }), is);
    }],
    ['a device with a certificate of an authority that is not enrolled', async () => {
      const registrationId = fresh('reg');
      await assert.rejects(it.register({ registrationId, ...(await issued(registrationId, await authority(fresh('nobody')))) }), is);
    }],
    ["a device with another device's certificate", async () => {
      await assert.rejects(it.register({ ...member, registrationId: fresh('reg') }), is);
    }],
    ['nothing of them is left', async () => {
      const known = (await rehome('device', 'list')).map((one) => one.registration_id);
      for (const { registrationId } of [keyed, grouped, member]) assert.ok(!known.includes(registrationId));
    }],
  ]);
  await it.close();
}

module.exports = {
  isRefusal,
  cases: COLUMNS.map((column) => ({ name: `refused | ${column}`, run: () => refused(column) })),
};
