// Ways to be enrolled: each makes an identity for a device and writes its enrollment, by the command line or, as back ends
// do, by the service SDK.
'use strict';

const crypto = require('crypto');
const { NodeBackend } = require('./backends/node');
const { HUBS, authority, fresh, issued, once, random, rehome, selfSigned, write } = require('./world');

/** Options of an enrollment, as the command line has them. */
function rules({ hub, webhook, twin }) {
  const options = [];
  if (hub) options.push('--allocation', 'static', '--hub', hub);
  if (webhook) options.push('--allocation', 'custom', '--any-hub', '--webhook-url-file', write(`${random()}.url`, webhook), '--webhook-api-version', '2021-10-01');
  if (twin) options.push('--initial-twin', write(`${random()}.json`, JSON.stringify(twin)));
  return options;
}

/** Keys as some programs make them: the text of a UUID. */
function ownKeys() {
  const key = () => Buffer.from(crypto.randomUUID()).toString('base64');
  return { primaryKey: key(), secondaryKey: key() };
}

/** A device's key, as Azure's documentation has people derive it from the group's. */
function derived(master, registrationId) {
  return crypto.createHmac('sha256', Buffer.from(master, 'base64')).update(registrationId).digest('base64');
}

const backend = once(async () => new NodeBackend((await rehome('connection-string', 'service', '--reveal')).connection_string));

/** What an enrollment has of wishes. */
function members({ hub, webhook, twin }) {
  return {
    ...(hub && { allocationPolicy: 'static', iotHubs: [HUBS[hub]], customAllocationDefinition: null }),
    ...(webhook && { allocationPolicy: 'custom', iotHubs: null, customAllocationDefinition: { webhookUrl: webhook, apiVersion: '2021-10-01' } }),
    ...(twin && { initialTwin: { tags: twin.tags, properties: { desired: twin.desired } } }),
  };
}

/** An identity whose enrollment is written by the service SDK for Node. */
function byService(identity) {
  const [kind, document] = identity.document();
  const id = document.enrollmentGroupId ?? document.registrationId;
  return Object.assign(identity, {
    enroll: async (wishes) => (await backend()).put(kind, { ...document, ...members(wishes) }),
    // Reads and writes back, under the etag that it read.
    change: async (wishes) => (await backend()).put(kind, { ...(await (await backend()).get(kind, id)), ...members(wishes) }),
    remove: async () => (await backend()).delete(kind, id),
  });
}

/** One device that proves itself with a certificate of its own. */
class X509Individual {
  async prepare() {
    this.registrationId = fresh('reg');
    this.deviceId = fresh('device');
    Object.assign(this, await selfSigned(this.registrationId));
    return this;
  }

  document() {
    const { registrationId, deviceId, cert: certificate } = this;
    return ['enrollment', { registrationId, deviceId, attestation: { type: 'x509', x509: { clientCertificates: { primary: { certificate } } } } }];
  }

  async enroll(wishes) {
    await rehome('enroll', 'create', this.registrationId, '--certificate', this.certFile, '--device-id', this.deviceId, ...rules(wishes));
  }

  async change(wishes) {
    await rehome('enroll', 'update', this.registrationId, ...rules(wishes));
  }

  async remove() {
    await rehome('enroll', 'delete', this.registrationId);
  }
}

/** One of many devices with certificates of an authority, `below` so many others. */
class X509Group {
  constructor(below) {
    this.below = below;
  }

  async prepare() {
    this.registrationId = this.deviceId = fresh('reg');
    this.group = fresh('group');
    const chain = [await authority(`${this.group}-ca`)];
    for (let at = 1; at <= this.below; at += 1) chain.push(await authority(`${this.group}-ca-${at}`, chain.at(-1)));
    this.anchor = chain[0];
    Object.assign(this, await issued(this.registrationId, chain.at(-1)));
    return this;
  }

  document() {
    const certificate = Buffer.from(this.anchor.cert).toString('base64');
    return ['group', { enrollmentGroupId: this.group, attestation: { type: 'x509', x509: { signingCertificates: { primary: { certificate } } } } }];
  }

  async enroll(wishes) {
    await rehome('group', 'create', this.group, '--certificate', this.anchor.certFile, ...rules(wishes));
  }

  async change(wishes) {
    await rehome('group', 'update', this.group, ...rules(wishes));
  }

  async remove() {
    await rehome('group', 'delete', this.group);
  }
}

/** One device with keys of its own. */
class KeyIndividual {
  async prepare() {
    this.registrationId = fresh('reg');
    this.deviceId = fresh('device');
    return this;
  }

  document() {
    const { registrationId, deviceId } = this;
    const keys = ownKeys();
    this.symmetricKey = keys.primaryKey;
    return ['enrollment', { registrationId, deviceId, attestation: { type: 'symmetricKey', symmetricKey: keys } }];
  }

  async enroll(wishes) {
    await rehome('enroll', 'create', this.registrationId, '--symmetric-key', '--device-id', this.deviceId, ...rules(wishes));
    this.symmetricKey = (await rehome('enroll', 'keys', this.registrationId)).primary_key;
  }

  async change(wishes) {
    await rehome('enroll', 'update', this.registrationId, ...rules(wishes));
  }

  async remove() {
    await rehome('enroll', 'delete', this.registrationId);
  }
}

/** One of many devices whose keys are derived from the group's; the device has its own only. */
class KeyGroup {
  async prepare() {
    this.registrationId = this.deviceId = fresh('Reg');
    this.group = fresh('group');
    return this;
  }

  document() {
    const keys = ownKeys();
    this.symmetricKey = derived(keys.primaryKey, this.registrationId);
    return ['group', { enrollmentGroupId: this.group, attestation: { type: 'symmetricKey', symmetricKey: keys } }];
  }

  async enroll(wishes) {
    await rehome('group', 'create', this.group, '--symmetric-key', ...rules(wishes));
    this.symmetricKey = derived((await rehome('group', 'keys', this.group)).primary_key, this.registrationId);
  }

  async change(wishes) {
    await rehome('group', 'update', this.group, ...rules(wishes));
  }

  async remove() {
    await rehome('group', 'delete', this.group);
  }
}

const KINDS = {
  'X.509, individual': () => new X509Individual().prepare(),
  'X.509, group': () => new X509Group(0).prepare(),
  'X.509, group, through two intermediates': () => new X509Group(2).prepare(),
  'symmetric key, individual': () => new KeyIndividual().prepare(),
  'symmetric key, group': () => new KeyGroup().prepare(),
};

module.exports = { KINDS, byService };
