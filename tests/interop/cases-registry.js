// Back ends of a hub with azure-iothub: its devices and their twins.
'use strict';

const assert = require('assert');
const { once } = require('events');
const { Registry } = require('azure-iothub');
const { called, pages } = require('./backends/node');
const { device } = require('./columns');
const { steps, within } = require('./cells');
const { KINDS } = require('./kinds');
const { HUBS, random, rehome } = require('./world');

async function registry() {
  const { connection_string: line } = await rehome('connection-string', 'hub', 'hub-a', '--reveal');
  const { connection_string: other } = await rehome('connection-string', 'hub', 'hub-b', '--reveal');
  const hub = Registry.fromConnectionString(line);
  const identity = await KINDS['X.509, individual']();
  const it = device('Node MQTT');
  const { deviceId: id } = identity;
  await identity.enroll({ hub: 'hub-a', twin: { tags: { site: 'x' }, desired: { every: 1 } } });
  await it.register(identity);
  const home = await it.open(identity, HUBS['hub-a'], id);
  await steps('azure-iothub', 'Node', null, [
    ['reads a device, and lists it with the others', async () => {
      const found = await called(hub, 'get', id);
      assert.deepEqual([found.deviceId, found.status, found.authentication.type], [id, 'enabled', 'selfSigned']);
      assert.ok((await called(hub, 'list')).some((one) => one.deviceId === id));
      await assert.rejects(called(hub, 'get', 'nobody'), (error) => error.name === 'DeviceNotFoundError');
    }],
    ['reads a twin, with tags and what the device reported', async () => {
      const reported = random();
      await home.report({ reported });
      const twin = await called(hub, 'getTwin', id);
      assert.deepEqual([twin.tags, twin.properties.desired.every, twin.properties.reported.reported], [{ site: 'x' }, 1, reported]);
    }],
    ['changes tags and desired properties, which the device is told', async () => {
      const told = once(home, 'desired');
      const twin = await called(hub, 'updateTwin', id, { tags: { floor: 2 }, properties: { desired: { every: 7 } } }, '*');
      assert.deepEqual(twin.tags, { site: 'x', floor: 2 });
      assert.equal((await within(20, told))[0].every, 7);
    }],
    ['overwrites nothing that was changed meanwhile', async () => {
      const { etag } = await called(hub, 'getTwin', id);
      await called(hub, 'updateTwin', id, { tags: { floor: 3 } }, etag);
      await assert.rejects(called(hub, 'updateTwin', id, { tags: { floor: 4 } }, etag), (error) => error.name === 'InvalidEtagError');
      assert.equal((await called(hub, 'getTwin', id)).tags.floor, 3);
    }],
    ['queries twins page by page', async () => {
      const all = await pages(hub.createQuery('SELECT * FROM devices', 1));
      assert.ok(all.every((page) => page.length <= 1));
      assert.ok(all.flat().some((twin) => twin.deviceId === id && twin.tags.floor === 3));
    }],
    ['shuts a device out and lets it in again', async () => {
      const found = await called(hub, 'get', id);
      await called(hub, 'update', { ...found, status: 'disabled', statusReason: 'floods' });
      await assert.rejects(it.open(identity, HUBS['hub-a'], id));
      assert.equal((await called(hub, 'get', id)).status, 'disabled');
      await called(hub, 'update', { ...(await called(hub, 'get', id)), status: 'enabled' });
      await (await it.open(identity, HUBS['hub-a'], id)).close();
    }],
    ['makes no device: it gets to a hub by registering', async () => {
      await assert.rejects(called(hub, 'create', { deviceId: 'made-by-hand' }), (error) => error.status === 400);
    }],
    ["is refused with another hub's key", async () => {
      const stranger = Registry.fromConnectionString(line.replace(/SharedAccessKey=.*/, /SharedAccessKey=.*/.exec(other)[0]));
      await assert.rejects(called(stranger, 'get', id), (error) => error.name === 'UnauthorizedError');
    }],
    ['deletes a device, which is let in no longer', async () => {
      await called(hub, 'delete', id);
      await assert.rejects(called(hub, 'get', id), (error) => error.name === 'DeviceNotFoundError');
      await assert.rejects(it.open(identity, HUBS['hub-a'], id));
    }],
  ]);
  await home.close();
}

module.exports.cases = [{ name: 'azure-iothub', run: registry }];
