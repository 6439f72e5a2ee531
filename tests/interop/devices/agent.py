"""A device with Microsoft's SDK for Python. Reads what to do, a line of JSON each, and answers in the same way.

usage: agent.py HOST SCOPE CA-FILE [websockets]
"""

import json
import sys
import threading

from azure.iot.device import X509, IoTHubDeviceClient, ProvisioningDeviceClient

host, scope, ca_file = sys.argv[1:4]
with open(ca_file) as file:
    common = {"server_verification_cert": file.read(), "websockets": "websockets" in sys.argv[4:]}
homes = {}
saying = threading.Lock()


def say(**line):
    with saying:
        print(json.dumps(line), flush=True)


def x509(identity):
    return X509(cert_file=identity["certFile"], key_file=identity["keyFile"])


def register(identity, payload=None):
    named = {"provisioning_host": host, "registration_id": identity["registrationId"], "id_scope": scope}
    if identity.get("symmetricKey"):
        client = ProvisioningDeviceClient.create_from_symmetric_key(
            symmetric_key=identity["symmetricKey"], **named, **common
        )
    else:
        client = ProvisioningDeviceClient.create_from_x509_certificate(x509=x509(identity), **named, **common)
    if payload is not None:
        client.provisioning_payload = payload
    result = client.register()
    state = result.registration_state
    given = state.response_payload
    return {
        "status": result.status,
        "substatus": state.sub_status,
        "assignedHub": state.assigned_hub,
        "deviceId": state.device_id,
        "payload": json.loads(given) if isinstance(given, str) else given,
    }


def open_home(home, identity, hub, device_id):
    if identity.get("symmetricKey"):
        client = IoTHubDeviceClient.create_from_symmetric_key(
            symmetric_key=identity["symmetricKey"], hostname=hub, device_id=device_id, **common
        )
    else:
        client = IoTHubDeviceClient.create_from_x509_certificate(
            x509=x509(identity), hostname=hub, device_id=device_id, **common
        )
    homes[home] = client
    client.on_twin_desired_properties_patch_received = lambda patch: say(event="desired", home=home, value=patch)
    client.connect()

    def failed(error):
        # A connection that was lost is made again and again; when that is refused, nothing more happens by itself.
        if type(error).__name__ in ("UnauthorizedError", "CredentialError"):
            say(event="gone", home=home, value=f"{type(error).__name__}: {error}")

    client.on_background_exception = failed


def close(home):
    client = homes.pop(home)
    client.on_background_exception = None
    client.shutdown()


def perform(question):
    what = question.pop("do")
    if what == "register":
        return register(**question)
    if what == "open":
        return open_home(question["home"], question["identity"], question["hub"], question["deviceId"])
    if what == "twin":
        return homes[question["home"]].get_twin()
    if what == "report":
        return homes[question["home"]].patch_twin_reported_properties(question["patch"])
    if what == "close":
        return close(question["home"])
    raise ValueError(what)


for line in sys.stdin:
    try:
        say(value=perform(json.loads(line)))
    except Exception as error:
        say(error={"name": type(error).__name__, "message": f"{error} {error.__cause__ or ''}".strip()})
for left in list(homes):
    close(left)
