// A back end of the provisioning service with Microsoft's SDK for Node.
'use strict';

const { ProvisioningServiceClient } = require('azure-iot-provisioning-service');

/** The callback form of an SDK's call as a promise; an error carries the answer's `status`. */
function called(client, method, ...args) {
  return new Promise((resolve, reject) => {
    client[method](...args, (error, value) => {
      if (error) reject(Object.assign(error, { status: error.response?.statusCode }));
      else resolve(value && JSON.parse(JSON.stringify(value)));
    });
  });
}

/** Every page of a query. */
async function pages(query) {
  const all = [];
  while (query.hasMoreResults) all.push(await called(query, 'next'));
  return all;
}

const NAMES = { enrollment: 'IndividualEnrollment', group: 'EnrollmentGroup' };

class NodeBackend {
  constructor(connectionString) {
    this.client = ProvisioningServiceClient.fromConnectionString(connectionString);
  }

  put(kind, document) {
    return called(this.client, `createOrUpdate${NAMES[kind]}`, document);
  }

  get(kind, id) {
    return called(this.client, `get${NAMES[kind]}`, id);
  }

  delete(kind, id, etag) {
    return called(this.client, `delete${NAMES[kind]}`, ...(etag ? [id, etag] : [id]));
  }

  mechanism(kind, id) {
    return called(this.client, `get${NAMES[kind]}AttestationMechanism`, id);
  }

  bulk(mode, enrollments) {
    return called(this.client, 'runBulkEnrollmentOperation', { mode, enrollments });
  }

  query(kind, size) {
    return pages(this.client[`create${NAMES[kind]}Query`]({ query: 'SELECT *' }, size));
  }

  registration(id) {
    return called(this.client, 'getDeviceRegistrationState', id);
  }

  deleteRegistration(id) {
    return called(this.client, 'deleteDeviceRegistrationState', id);
  }

  registrationsOf(group, size) {
    return pages(this.client.createEnrollmentGroupDeviceRegistrationStateQuery({ query: 'SELECT *' }, group, size));
  }

  async close() {}
}

module.exports = { NodeBackend, called, pages };
