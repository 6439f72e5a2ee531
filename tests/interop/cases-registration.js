// Registration: every way to be enrolled, through every SDK and transport. Enrollments are written and twins are read by
// the service SDKs, as the end-to-end suite of Microsoft's own SDK for Node does it.
'use strict';

const assert = require('assert');
const { Registry } = require('azure-iothub');
const { COLUMNS, device } = require('./columns');
const { isRefusal } = require('./cases-refused');
const { steps } = require('./cells');
const { called } = require('./backends/node');
const { KINDS, byService } = require('./kinds');
const { HUBS, once, random, rehome, until, webhook } = require('./world');

const registry = Object.fromEntries(Object.keys(HUBS).map((hub) => [hub, once(async () =>
  Registry.fromConnectionString((await rehome('connection-string', 'hub', hub, '--reveal')).connection_string))]));

async function at(hub, call, ...args) {
  return called(await registry[hub](), call, ...args);
}

async function twinAt(hub, deviceId) {
  const { properties, tags } = await at(hub, 'getTwin', deviceId);
  const { $version, $metadata, ...desired } = properties.desired;
  return { desired, tags };
}

const isGone = (error) => error.name === 'DeviceNotFoundError';

async function register(column, kind) {
  const identity = byService(await KINDS[kind]());
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
      assert.deepEqual(await twinAt('hub-a', identity.deviceId), { desired: { wanted }, tags: {} });
    }],
    ['registers again and stays', async () => {
      const again = await it.register(identity);
      assert.deepEqual([again.assignedHub, again.deviceId], [HUBS['hub-a'], identity.deviceId]);
    }],
    ['moves with its twin when its enrollment says so', async () => {
      const tags = { kept: wanted };
      await at('hub-a', 'updateTwin', identity.deviceId, { tags, properties: { desired: { since: 1 } } }, '*');
      await identity.change({ hub: 'hub-b' });
      const moved = await it.register(identity);
      assert.deepEqual([moved.assignedHub, moved.substatus], [HUBS['hub-b'], 'deviceDataMigrated']);
      assert.deepEqual(await twinAt('hub-b', identity.deviceId), { desired: { wanted, since: 1 }, tags });
      await until('the old hub has forgotten it', () => twinAt('hub-a', identity.deviceId).then(() => false, isGone));
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
    ['is deleted from its hub', async () => {
      await at('hub-a', 'delete', identity.deviceId);
      await assert.rejects(at('hub-a', 'get', identity.deviceId), isGone);
    }],
  ]);
  hook.close();
  await it.close();
}

module.exports.cases = Object.keys(KINDS).flatMap((kind) =>
  COLUMNS.map((column) => ({ name: `${kind} | ${column}`, run: () => register(column, kind) })));
