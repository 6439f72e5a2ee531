// One device through all front ends: gRPC (the command line), HTTPS and MQTT, and the HTTPS of back ends.
'use strict';

const assert = require('assert');
const { Registry } = require('azure-iothub');
const { NodeBackend, called } = require('./backends/node');
const { device } = require('./columns');
const { steps } = require('./cells');
const { KINDS } = require('./kinds');
const { HUBS, rehome } = require('./world');

/** Both lists come newest first. */
function oldestFirst(list) {
  return [...list].reverse();
}

async function between() {
  const identity = await KINDS['X.509, individual']();
  const [https, mqtt, python] = [device('Node HTTP'), device('Node MQTT'), device('Python MQTT')];
  const id = identity.registrationId;
  const line = async (...of) => (await rehome('connection-string', ...of, '--reveal')).connection_string;
  const backend = new NodeBackend(await line('service'));
  const registry = Registry.fromConnectionString(await line('hub', 'hub-a'));
  const credential = ['--id', id, '--cert', identity.certFile, '--key', identity.keyFile];
  await steps('between front ends', 'rehome', null, [
    ['registered over HTTPS, moved by an operator, registered again over MQTT', async () => {
      await identity.enroll({ hub: 'hub-a', twin: { tags: {}, desired: { first: 1 } } });
      assert.equal((await https.register(identity)).assignedHub, HUBS['hub-a']);
      await rehome('device', 'reprovision', id, '--to', 'hub-b', '--reason', 'by hand', '--wait');
      const again = await mqtt.register(identity);
      assert.deepEqual([again.assignedHub, again.deviceId], [HUBS['hub-b'], identity.deviceId]);
    }],
    ['registered over MQTT, moved by its enrollment, looked up over gRPC', async () => {
      await rehome('device', 'unpin', id);
      assert.equal((await python.register(identity)).assignedHub, HUBS['hub-a']);
      const shown = await rehome('device', 'show', id);
      assert.equal(shown.hub_id, 'hub-a');
      const grpc = await rehome('register', ...credential);
      assert.deepEqual([grpc.hub_id, grpc.device_id], ['hub-a', identity.deviceId]);
      const home = await mqtt.open(identity, HUBS['hub-a'], identity.deviceId);
      assert.equal((await home.twin()).desired.first, 1);
      await home.close();
    }],
    ['one registration, one audit trail', async () => {
      const all = (await rehome('device', 'list')).filter((one) => one.registration_id.toLowerCase() === id.toLowerCase());
      assert.equal(all.length, 1);
      const moves = (await rehome('device', 'history', id)).map((one) => [one.from_hub_id, one.to_hub_id]);
      assert.deepEqual(oldestFirst(moves), [[null, 'hub-a'], ['hub-a', 'hub-b'], ['hub-b', 'hub-a']]);
      const audit = await rehome('audit', 'list', '--registration', id);
      const done = audit.filter(({ action }) => action === 'registration_assigned' || action === 'registration_unpinned');
      assert.deepEqual(oldestFirst(done).map(({ actor, action, hub_id: hub }) => [actor, action, hub]), [
        ['device', 'registration_assigned', 'hub-a'],
        ['development operator', 'registration_assigned', 'hub-b'],
        ['development operator', 'registration_unpinned', null],
        ['device', 'registration_assigned', 'hub-a'],
      ]);
    }],
    ['seen alike by the command line, the service SDK and the registry of its hub', async () => {
      const shown = await rehome('device', 'show', id);
      const state = await backend.registration(id);
      assert.deepEqual([state.status, state.assignedHub, state.deviceId], ['assigned', HUBS[shown.hub_id], shown.device_id]);
      assert.equal((await called(registry, 'get', shown.device_id)).status, 'enabled');
      const enrolled = await backend.get('enrollment', id);
      assert.deepEqual([enrolled.registrationState.assignedHub, enrolled.iotHubs], [HUBS[shown.hub_id], [HUBS['hub-a']]]);
    }],
    ['ended through the service SDK, and gone for all of them', async () => {
      await backend.deleteRegistration(id);
      await assert.rejects(rehome('device', 'show', id));
      await assert.rejects(called(registry, 'get', identity.deviceId), (error) => error.name === 'DeviceNotFoundError');
      await assert.rejects(mqtt.open(identity, HUBS['hub-a'], identity.deviceId));
      const [last] = await rehome('audit', 'list', '--registration', id);
      assert.deepEqual([last.action, last.actor], ['registration_deleted', 'policy provisioningserviceowner']);
    }],
  ]);
  await Promise.all([https, mqtt, python].map((it) => it.close()));
}

module.exports.cases = [{ name: 'between front ends', run: between }];
