// Back ends of the provisioning service: enrollments and registrations through every service SDK.
'use strict';

const assert = require('assert');
const crypto = require('crypto');
const { NodeBackend } = require('./backends/node');
const { PythonBackend } = require('./backends/python');
const { device } = require('./columns');
const { steps } = require('./cells');
const { HUBS, authority, fresh, issued, random, rehome, selfSigned } = require('./world');

const BACKENDS = {
  'Node': (line) => new NodeBackend(line),
  'Python': (line) => new PythonBackend('azure-iot-deviceprovisioning', line),
  'Python, old': (line) => new PythonBackend('azure-iothub-provisioningserviceclient', line),
};

/** A key in base64. */
const key = () => crypto.randomBytes(48).toString('base64');

/** `TPM2B_PUBLIC` of an endorsement key that no TPM has: the usual template around a new RSA key. */
function endorsementKey() {
  const { n } = crypto.generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey.export({ format: 'jwk' });
  const template = '0001000b000300b20020837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa00060080004300100800000000000100';
  const area = Buffer.concat([Buffer.from(template, 'hex'), Buffer.from(n, 'base64url')]);
  return Buffer.concat([Buffer.from([area.length >> 8, area.length & 255]), area]).toString('base64');
}

async function documents() {
  const id = () => fresh('backend');
  const [x509, group] = [id(), id()];
  const { cert } = await selfSigned(x509);
  const root = await authority(`${group}-root`);
  return {
    'individual, X.509': ['enrollment', {
      registrationId: x509,
      deviceId: `${x509}-device`,
      attestation: { type: 'x509', x509: { clientCertificates: { primary: { certificate: cert } } } },
      initialTwin: { tags: { site: 'x' }, properties: { desired: { every: 5 } } },
    }],
    'individual, TPM': ['enrollment', {
      registrationId: id(),
      attestation: { type: 'tpm', tpm: { endorsementKey: endorsementKey() } },
      provisioningStatus: 'enabled',
      capabilities: { iotEdge: true },
      reprovisionPolicy: { updateHubAssignment: true, migrateDeviceData: true },
      allocationPolicy: 'custom',
      customAllocationDefinition: { webhookUrl: 'https://web.hook', apiVersion: '2018-11-01' },
    }],
    'individual, symmetric key': ['enrollment', {
      registrationId: id(),
      attestation: { type: 'symmetricKey', symmetricKey: { primaryKey: key(), secondaryKey: key() } },
      reprovisionPolicy: { updateHubAssignment: false, migrateDeviceData: false },
      allocationPolicy: 'hashed',
    }],
    'group, X.509': ['group', {
      enrollmentGroupId: group,
      // As some programs send it: base64 of the PEM.
      attestation: { type: 'x509', x509: { signingCertificates: { primary: { certificate: Buffer.from(root.cert).toString('base64') } } } },
      reprovisionPolicy: { updateHubAssignment: true, migrateDeviceData: false },
      allocationPolicy: 'geoLatency',
    }],
    'group, symmetric key': ['group', {
      enrollmentGroupId: id(),
      attestation: { type: 'symmetricKey', symmetricKey: { primaryKey: key(), secondaryKey: key() } },
      allocationPolicy: 'static',
      iotHubs: [HUBS['hub-a']],
    }],
  };
}

const idOf = (document) => document.registrationId ?? document.enrollmentGroupId;
const refusedWith = (status) => (error) => error.status === status || assert.fail(`${error.status} ${error.stack}`);

/** Created, read, changed, shown with its keys, deleted. */
async function life(backend, kind, document) {
  const id = idOf(document);
  const { type } = document.attestation;
  const made = await backend.put(kind, document);
  assert.equal(made.attestation.type, type);
  assert.ok(made.etag);
  const read = await backend.get(kind, id);
  assert.equal(idOf(read), id);
  assert.equal(read.provisioningStatus ?? 'enabled', 'enabled');
  assert.equal(read.allocationPolicy, document.allocationPolicy ?? read.allocationPolicy);
  assert.ok(!read.attestation.symmetricKey?.primaryKey, 'keys are not shown to who reads');
  if (kind === 'enrollment') assert.equal(read.registrationState.status, 'unassigned');
  const mechanism = await backend.mechanism(kind, id);
  assert.equal(mechanism.type, type);
  if (type === 'symmetricKey') {
    const { primaryKey, secondaryKey } = mechanism.symmetricKey;
    assert.deepEqual([primaryKey, secondaryKey], Object.values(document.attestation.symmetricKey));
  }
  // What is read is written back, as programs do it.
  const changed = await backend.put(kind, { ...read, provisioningStatus: 'disabled' });
  assert.equal(changed.provisioningStatus, 'disabled');
  assert.notEqual(changed.etag, read.etag);
  assert.deepEqual(await backend.mechanism(kind, id), mechanism, 'reading and writing back loses no key');
  await assert.rejects(backend.put(kind, { ...read, provisioningStatus: 'enabled' }), refusedWith(412));
  await assert.rejects(backend.delete(kind, id, read.etag), refusedWith(412));
  await backend.delete(kind, id, changed.etag);
  await assert.rejects(backend.get(kind, id), refusedWith(404));
}

async function service(column) {
  const { connection_string: line } = await rehome('connection-string', 'service', '--reveal');
  const backend = BACKENDS[column](line);
  const all = await documents();
  const keyed = (registrationId) => ({ registrationId, attestation: { type: 'symmetricKey', symmetricKey: { primaryKey: key(), secondaryKey: key() } } });
  const [group, ids] = [fresh('regs'), []];
  await steps('service SDKs', column, null, [
    ...Object.entries(all).map(([name, [kind, document]]) => [
      `${name}: created, read, changed, not overwritten, deleted`,
      () => life(backend, kind, document),
    ]),
    ['many at once: created, refused each for itself, changed, deleted', async () => {
      const prefix = fresh('bulk');
      const some = ['a', 'b', 'c'].map((end) => `${prefix}-${end}`);
      const enrollments = some.map(keyed);
      const made = await backend.bulk('create', enrollments);
      assert.equal(made.isSuccessful, true);
      const again = await backend.bulk('create', [enrollments[0], keyed(`${prefix}-d`)]);
      assert.equal(again.isSuccessful, false);
      assert.deepEqual(again.errors.map((error) => error.registrationId), [some[0]]);
      const changed = await backend.bulk('update', enrollments.map((one) => ({ ...one, provisioningStatus: 'disabled' })));
      assert.ok(typeof changed.isSuccessful === 'boolean');
      const gone = await backend.bulk('delete', [...some, `${prefix}-d`].map((id) => keyed(id)));
      assert.equal(gone.isSuccessful, true, JSON.stringify(gone));
      for (const id of some) await assert.rejects(backend.get('enrollment', id), refusedWith(404));
    }],
    ['queried page by page', async () => {
      const prefix = fresh('page');
      const five = ['1', '2', '3', '4', '5'].map((end) => `${prefix}-${end}`);
      for (const id of five) await backend.put('enrollment', keyed(id));
      const pages = await backend.query('enrollment', 2);
      assert.ok(pages.length >= 3 && pages.every((page) => page.length <= 2), `${pages.map((page) => page.length)}`);
      const found = pages.flat().map((one) => one.registrationId).filter((id) => id.startsWith(prefix));
      assert.deepEqual(found.sort(), five);
      for (const id of five) await backend.delete('enrollment', id);
    }],
    ['registrations: read, deleted', async () => {
      const root = await authority(`${group}-root`);
      await backend.put('group', {
        enrollmentGroupId: group,
        attestation: { type: 'x509', x509: { signingCertificates: { primary: { certificate: root.cert } } } },
        allocationPolicy: 'static',
        iotHubs: [HUBS['hub-b']],
      });
      ids.push(fresh('reg'), fresh('reg'), fresh('reg'));
      for (const id of ids) {
        const it = device('Node HTTP');
        await it.register({ registrationId: id, ...(await issued(id, root)) });
      }
      const state = await backend.registration(ids[0]);
      assert.deepEqual([state.status, state.assignedHub, state.deviceId], ['assigned', HUBS['hub-b'], ids[0]]);
      await backend.deleteRegistration(ids[0]);
      await assert.rejects(backend.registration(ids[0]), refusedWith(404));
    }],
    // The old package fails in itself here, before it calls anybody.
    ...(column === 'Python, old' ? [] : [['registrations of a group, page by page', async () => {
      const pages = await backend.registrationsOf(group, 1);
      assert.deepEqual(pages.flat().map((one) => one.registrationId).sort(), ids.slice(1).sort());
      assert.equal(pages.length, 2);
    }]]),
    ['refused with another key, or by a policy that nobody has', async () => {
      const wrong = [line.replace(/SharedAccessKey=.*/, `SharedAccessKey=${key()}`), line.replace(/SharedAccessKeyName=[^;]*/, 'SharedAccessKeyName=nobody')];
      for (const other of wrong) {
        const stranger = BACKENDS[column](other);
        await assert.rejects(stranger.get('enrollment', 'x'), refusedWith(401));
        await stranger.close();
      }
    }],
  ]);
  await backend.close();
}

module.exports.cases = Object.keys(BACKENDS).map((column) => ({ name: `service SDKs | ${column}`, run: () => service(column) }));
