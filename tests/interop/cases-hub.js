// A device at its hub: its twin over MQTT, and what happens when it is moved away.
'use strict';

const assert = require('assert');
const { once } = require('events');
const { AT_HUBS, device } = require('./columns');
const { steps, within } = require('./cells');
const { KINDS } = require('./kinds');
const { HUBS, random, rehome } = require('./world');

async function atHub(column, proof) {
  const identity = await KINDS[`${proof}, individual`]();
  const it = device(column);
  const [wanted, reported] = [random(), random()];
  let home;
  let gone;
  await steps('at the hub', column, proof, [
    ['reads its twin', async () => {
      await identity.enroll({ hub: 'hub-a', twin: { tags: { secret: 1 }, desired: { wanted } } });
      await it.register(identity);
      home = await it.open(identity, HUBS['hub-a'], identity.deviceId);
      const twin = await home.twin();
      assert.equal(twin.desired.wanted, wanted);
      assert.ok(Number.isInteger(twin.desired.$version) && Number.isInteger(twin.reported.$version));
      assert.equal(twin.tags, undefined);
    }],
    ['reports properties', async () => {
      await home.report({ reported, nested: { größe: 'µ' } });
      await home.report({ nested: null });
      const { reported: stored } = await rehome('twin', 'get', identity.registrationId);
      assert.deepEqual(stored.properties, { reported });
    }],
    ['is told what is desired', async () => {
      const told = once(home, 'desired');
      await rehome('twin', 'patch', identity.registrationId, '--desired', '{"every": {"seconds": 5}}');
      const [patch] = await within(20, told);
      assert.deepEqual(patch.every, { seconds: 5 });
      assert.ok(Number.isInteger(patch.$version));
    }],
    ['is hung up on when it moves, and let in nowhere but at its new hub', async () => {
      gone = once(home, 'gone');
      await rehome('device', 'reprovision', identity.registrationId, '--to', 'hub-b', '--wait');
      const [why] = await within(40, gone);
      assert.match(String(why), /not authorized|unauthorized|credential/i);
      await home.close();
      await assert.rejects(it.open(identity, HUBS['hub-a'], identity.deviceId));
    }],
    ['registers again by itself and goes on with its twin', async () => {
      const told = await it.register(identity);
      assert.equal(told.assignedHub, HUBS['hub-b']);
      home = await it.open(identity, told.assignedHub, told.deviceId);
      const twin = await home.twin();
      assert.deepEqual([twin.desired.wanted, twin.desired.every, twin.reported.reported], [wanted, { seconds: 5 }, reported]);
      await home.report({ again: 1 });
      await home.close();
    }],
  ]);
  await it.close();
}

module.exports.cases = ['X.509', 'symmetric key'].flatMap((proof) =>
  AT_HUBS.map((column) => ({ name: `at the hub | ${proof} | ${column}`, run: () => atHub(column, proof) })));
