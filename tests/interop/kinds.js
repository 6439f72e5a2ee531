// Ways to be enrolled: each makes an identity for a device and writes its enrollment.
'use strict';

const crypto = require('crypto');
const { authority, fresh, issued, random, rehome, selfSigned, write } = require('./world');

/** Options of an enrollment, as the command line has them. */
function rules({ hub, webhook, twin }) {
  const options = [];
  if (hub) options.push('--allocation', 'static', '--hub', hub);
  if (webhook) options.push('--allocation', 'custom', '--any-hub', '--webhook-url-file', write(`${random()}.url`, webhook), '--webhook-api-version', '2021-10-01');
  if (twin) options.push('--initial-twin', write(`${random()}.json`, JSON.stringify(twin)));
  return options;
}

/** One device that proves itself with a certificate of its own. */
class X509Individual {
  async prepare() {
    this.registrationId = fresh('reg');
    this.deviceId = fresh('device');
    Object.assign(this, await selfSigned(this.registrationId));
    return this;
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

  async enroll(wishes) {
    await rehome('group', 'create', this.group, '--symmetric-key', ...rules(wishes));
    const { primary_key: master } = await rehome('group', 'keys', this.group);
    // As the service's documentation tells people to.
    this.symmetricKey = crypto.createHmac('sha256', Buffer.from(master, 'base64')).update(this.registrationId).digest('base64');
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

module.exports = { KINDS };
