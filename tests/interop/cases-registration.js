// Registration: every way to be enrolled, through every SDK and transport.
'use strict';

const assert = require('assert');
const { COLUMNS, device } = require('./columns');
const { steps } = require('./cells');
const { KINDS } = require('./kinds');
const { HUBS, random, rehome, until, webhook } = require('./world');

async function twinAt(hub, deviceId) {
  return rehome('twin', 'get', deviceId, '--hub', hub);
}

/** How each SDK says that a device is not enrolled. */
function isRefusal(column, error) {
  const said = `${error.name}: ${error.message}`;
  if (column === 'Node HTTP') return error.name === 'UnauthorizedError';
  if (column.startsWith('Node')) return /Unauthorized|[Nn]ot authorized/.test(said);
  return /401|Unauthorized|not authorized/i.test(said);
}

async function register(column, kind) {
  const identity = await KINDS[kind]();
  const it = device(column);
  const wanted = random();
  const hook = await webhook('hub-a', { greeting: wanted });
  let told;
  await steps('registration', column, kind, [
    ['registers', async () => {
      await identity.enroll({ hub: 'hub-a', twin: { tags: {}, desired: { wanted } } });
      told = await it.register(identity);
      assert.equal(told.status, 'assigned');
      assert.equal(told.assignedHub, HUBS['hub-a']);
    }],
    ['is told its device id', async () => assert.equal(told.deviceId, identity.deviceId)],
    ['has the initial twin at its hub', async () => {
      const twin = await twinAt('hub-a', identity.deviceId);
      assert.deepEqual(twin.desired.properties, { wanted });
    }],
    ['registers again and stays', async () => {
      const again = await it.register(identity);
      assert.deepEqual([again.assignedHub, again.deviceId], [HUBS['hub-a'], identity.deviceId]);
    }],
    ['moves with its twin when its enrollment says so', async () => {
      const tags = { kept: wanted };
      await rehome('twin', 'patch', identity.registrationId, '--tags', JSON.stringify(tags), '--desired', '{"since": 1}');
      await identity.change({ hub: 'hub-b' });
      const moved = await it.register(identity);
      assert.deepEqual([moved.assignedHub, moved.substatus], [HUBS['hub-b'], 'deviceDataMigrated']);
      const twin = await twinAt('hub-b', identity.deviceId);
      assert.deepEqual([twin.desired.properties, twin.tags], [{ wanted, since: 1 }, tags]);
      await until('the old hub has forgotten it', () => twinAt('hub-a', identity.deviceId).then(() => false, () => true));
    }],
    ['is allocated by a webhook, with its payload', async () => {
      await identity.change({ webhook: hook.url });
      const sent = { model: 'm1' };
      const allocated = await it.register(identity, { payload: sent });
      assert.deepEqual([allocated.assignedHub, allocated.payload], [HUBS['hub-a'], { greeting: wanted }]);
      const { deviceRuntimeContext: context, linkedHubs } = hook.asked.at(-1);
      assert.deepEqual([context.registrationId, context.payload], [identity.registrationId, sent]);
      assert.equal(context.currentIotHubHostName, HUBS['hub-b']);
      assert.deepEqual([...linkedHubs].sort(), Object.values(HUBS));
    }],
    ['is refused when its enrollment is deleted', async () => {
      await identity.remove();
      await assert.rejects(it.register(identity), (error) => isRefusal(column, error));
    }],
  ]);
  hook.close();
  await it.close();
}

module.exports = Object.keys(KINDS).flatMap((kind) =>
  COLUMNS.map((column) => ({ name: `${kind} | ${column}`, run: () => register(column, kind) })));
