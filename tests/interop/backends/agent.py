"""A back end of the provisioning service with Microsoft's SDKs for Python.

Reads the connection string and then what to do, a line of JSON each, and answers in the same way.

usage: agent.py azure-iot-deviceprovisioning | azure-iothub-provisioningserviceclient
"""

import json
import sys


class Current:
    """azure-iot-deviceprovisioning."""

    def __init__(self, connection_string):
        from azure.iot.deviceprovisioning import DeviceProvisioningClient

        self.client = DeviceProvisioningClient.from_connection_string(connection_string)
        self.of = {"enrollment": self.client.enrollment, "group": self.client.enrollment_group}
        self.id = {"enrollment": "registrationId", "group": "enrollmentGroupId"}

    def put(self, kind, document):
        return self.of[kind].create_or_update(document[self.id[kind]], document, if_match=document.get("etag"))

    def get(self, kind, id):
        return self.of[kind].get(id)

    def delete(self, kind, id, etag=None):
        return self.of[kind].delete(id, if_match=etag)

    def mechanism(self, kind, id):
        return self.of[kind].get_attestation_mechanism(id)

    def bulk(self, mode, enrollments):
        return self.client.enrollment.run_bulk_operation({"mode": mode, "enrollments": enrollments})

    def query(self, kind, size):
        return paged(self.of[kind].query({"query": "SELECT *"}, top=size))

    def registration(self, id):
        return self.client.device_registration_state.get(id)

    def deleteRegistration(self, id):
        return self.client.device_registration_state.delete(id)

    def registrationsOf(self, group, size):
        return paged(self.client.device_registration_state.query(group, top=size))


def paged(items):
    return [list(page) for page in items.by_page()]


class Legacy:
    """azure-iothub-provisioningserviceclient."""

    def __init__(self, connection_string):
        import provisioningserviceclient as sdk
        from provisioningserviceclient import models, protocol

        self.sdk, self.models, self.raw = sdk, models, protocol.models
        self.client = sdk.ProvisioningServiceClient.create_from_connection_string(connection_string)
        self.of = {"enrollment": models.IndividualEnrollment, "group": models.EnrollmentGroup}

    def model(self, kind, document):
        model = self.of[kind].deserialize(document)
        if model.initial_twin is not None:
            model.initial_twin = model.initial_twin._wrap()
        return model

    @staticmethod
    def shown(model):
        if getattr(model, "initial_twin", None) is not None:
            model.initial_twin = model.initial_twin._unwrap()
        return model.serialize(keep_readonly=True)

    def put(self, kind, document):
        return self.shown(self.client.create_or_update(self.model(kind, document)))

    def get(self, kind, id):
        get = self.client.get_individual_enrollment if kind == "enrollment" else self.client.get_enrollment_group
        return self.shown(get(id))

    def delete(self, kind, id, etag=None):
        client = self.client
        individual = kind == "enrollment"
        delete = client.delete_individual_enrollment_by_param if individual else client.delete_enrollment_group_by_param
        return delete(id, etag)

    def mechanism(self, kind, id):
        client = self.client
        individual = kind == "enrollment"
        mechanism = (
            client.get_individual_enrollment_attestation_mechanism
            if individual
            else client.get_enrollment_group_attestation_mechanism
        )
        return mechanism(id).serialize(keep_readonly=True)

    def bulk(self, mode, enrollments):
        models = [self.model("enrollment", one) for one in enrollments]
        result = self.client.run_bulk_operation(self.sdk.BulkEnrollmentOperation(mode, models))
        return result.serialize(keep_readonly=True)

    def query(self, kind, size):
        specification = self.sdk.QuerySpecification("SELECT *")
        client = self.client
        individual = kind == "enrollment"
        query = client.create_individual_enrollment_query if individual else client.create_enrollment_group_query
        return [[self.shown(one) for one in page] for page in query(specification, size)]

    def registration(self, id):
        return self.client.get_registration_state(id).serialize(keep_readonly=True)

    def deleteRegistration(self, id):
        return self.client.delete_registration_state_by_param(id)

    def registrationsOf(self, group, size):
        query = self.client.create_registration_state_query(group, size)
        return [[one.serialize(keep_readonly=True) for one in page] for page in query]


def status_of(error):
    """The status of the answer that an SDK's error was made of."""
    for one in (error, getattr(error, "cause", None), error.__cause__, *error.args):
        response = getattr(one, "response", None)
        status = getattr(one, "status_code", None) or getattr(response, "status_code", None)
        if status:
            return status
    return None


SDKS = {"azure-iot-deviceprovisioning": Current, "azure-iothub-provisioningserviceclient": Legacy}
backend = None
for line in sys.stdin:
    question = json.loads(line)
    try:
        if backend is None:
            backend, answer = SDKS[sys.argv[1]](question), None
        else:
            answer = getattr(backend, question[0])(*question[1:])
            answer = None if answer is None else json.loads(json.dumps(answer, default=str))
        line = {"value": answer}
    except Exception as error:
        line = {"error": {"name": type(error).__name__, "message": str(error), "status": status_of(error)}}
    print(json.dumps(line), flush=True)
