// A device with Microsoft's SDK for Node.
'use strict';

const { EventEmitter } = require('events');
const { ProvisioningDeviceClient } = require('azure-iot-provisioning-device');
const { Http } = require('azure-iot-provisioning-device-http');
const { Mqtt, MqttWs } = require('azure-iot-provisioning-device-mqtt');
const { X509Security } = require('azure-iot-security-x509');
const { SymmetricKeySecurityClient } = require('azure-iot-security-symmetric-key');
const { Client } = require('azure-iot-device');
const { ExponentialBackOffWithJitter } = require('azure-iot-common');
const hubTransports = require('azure-iot-device-mqtt');

const TRANSPORTS = {
  http: { Provisioning: Http, Hub: hubTransports.Mqtt },
  mqtt: { Provisioning: Mqtt, Hub: hubTransports.Mqtt },
  'mqtt-ws': { Provisioning: MqttWs, Hub: hubTransports.MqttWs },
};

/**
 * Reconnects as the SDK does by itself, but for a connection that was refused: the device has another home. Left alone, the
 * SDK tries for four minutes before it says `disconnect`, since it takes a refusal for a broken connection.
 */
class UntilRefused extends ExponentialBackOffWithJitter {
  shouldRetry(error) {
    return !/Not authorized/.test(error.message) && super.shouldRetry(error);
  }
}

class NodeDevice {
  constructor(transport, host, scope) {
    this.transport = TRANSPORTS[transport];
    this.host = host;
    this.scope = scope;
  }

  /** Registers; fails as the SDK fails. */
  async register(identity, { payload } = {}) {
    const { registrationId, symmetricKey, cert, key } = identity;
    const security = symmetricKey
      ? new SymmetricKeySecurityClient(registrationId, symmetricKey)
      : new X509Security(registrationId, { cert, key });
    const client = ProvisioningDeviceClient.create(this.host, this.scope, new this.transport.Provisioning(), security);
    if (payload !== undefined) client.setProvisioningPayload(payload);
    const { status, substatus, assignedHub, deviceId, payload: given } = await client.register();
    return { status, substatus, assignedHub, deviceId, payload: given };
  }

  /** Goes to its hub. */
  async open(identity, hub, deviceId) {
    const home = new NodeHome();
    await home.open(this.transport.Hub, identity, hub, deviceId);
    return home;
  }

  async close() {}
}

/** A device at its hub. Emits `desired` with each patch, and `gone` once when the SDK gives the connection up. */
class NodeHome extends EventEmitter {
  async open(Transport, { symmetricKey, cert, key }, hub, deviceId) {
    const proof = symmetricKey ? `SharedAccessKey=${symmetricKey}` : 'x509=true';
    this.client = Client.fromConnectionString(`HostName=${hub};DeviceId=${deviceId};${proof}`, Transport);
    this.client.setRetryPolicy(new UntilRefused());
    if (!symmetricKey) await this.client.setOptions({ cert, key });
    this.client.on('error', (error) => this.emit('gone', String(error)));
    this.client.on('disconnect', (why) => this.emit('gone', String(why.transportObj)));
    try {
      await this.client.open();
      this.live = await this.client.getTwin();
    } catch (error) {
      this.client.removeAllListeners();
      this.client.close(() => {});
      throw error;
    }
    const known = new Set();
    this.live.on('properties.desired', (patch) => {
      // The first one is the whole document that getTwin fetched.
      if (known.has(patch.$version)) return;
      known.add(patch.$version);
      if (known.size > 1) this.emit('desired', patch);
    });
  }

  async twin() {
    const twin = await this.client.getTwin();
    const { update: _, ...reported } = twin.properties.reported;
    return JSON.parse(JSON.stringify({ desired: twin.properties.desired, reported }));
  }

  report(patch) {
    return new Promise((resolve, reject) => {
      this.live.properties.reported.update(patch, (error) => (error ? reject(error) : resolve()));
    });
  }

  close() {
    this.client.removeAllListeners();
    return new Promise((resolve) => this.client.close(() => resolve()));
  }
}

module.exports = { NodeDevice };
