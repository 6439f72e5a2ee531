"""Clients that mean no good: connections that say nothing, and senders that take their time.

Opens them all, says so in a line of JSON, and holds them for as long as its standard input is open, while the slow senders
go on byte by byte.

usage: hostile.py HOST HTTPS-PORT MQTT-PORT COUNT CERT-FILE KEY-FILE
"""

import json
import socket
import ssl
import sys
import threading
import time

host, https, mqtt, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
# A certificate that nobody enrolled: enough for an MQTT connection, not for an answer.
context.load_cert_chain(sys.argv[5], sys.argv[6])
name = b"MQTT"
user = b"0ne00REHOME/registrations/stranger/api-version=2019-03-31"


def string(text):
    return len(text).to_bytes(2, "big") + text


def tcp(port):
    return socket.create_connection((host, port), timeout=60)


def tls(port):
    return context.wrap_socket(tcp(port), server_hostname="localhost")


def connected():
    body = string(name) + b"\x04\x82" + (0).to_bytes(2, "big") + string(b"stranger") + string(user)
    stream = tls(mqtt)
    stream.sendall(b"\x10" + bytes([len(body)]) + body)
    assert stream.recv(4)[3] == 0, "let in, until it asks something"
    return stream


def asked():
    """A request that has come to its end, on a connection that is kept."""
    stream = tls(https)
    stream.sendall(b"GET /nothing HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert stream.recv(65536).startswith(b"HTTP/1.1 404")
    return stream


SLOW = [
    (https, b"PUT /0ne00REHOME/registrations/slow/register?api-version=2021-10-01 HTTP/1.1\r\nhost: localhost\r\nx-a: " + b"a" * 600),
    (
        https,
        b"PUT /0ne00REHOME/registrations/slow/register?api-version=2021-10-01 HTTP/1.1\r\nhost: localhost\r\n"
        b"content-length: 600\r\n\r\n" + b" " * 500,
    ),
    (mqtt, b"\x10\xff\x01" + b"a" * 600),
]
KINDS = [
    lambda: tcp(https),
    lambda: tcp(mqtt),
    lambda: tls(https),
    lambda: tls(mqtt),
    asked,
    connected,
]

held = [[] for _ in KINDS]
threads = []


def hold(kind, share):
    for _ in range(share):
        held[kind].append(KINDS[kind]())


for kind in range(len(KINDS)):
    threads.append(threading.Thread(target=hold, args=(kind, count)))
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
slow = [[tls(port), text, 0] for port, text in SLOW for _ in range(20)]
done = threading.Event()


def dribble():
    while not done.is_set():
        for sender in slow:
            stream, text, at = sender
            if at < len(text):
                try:
                    stream.sendall(text[at : at + 1])
                    sender[2] += 1
                except OSError:
                    sender[2] = len(text)
        time.sleep(0.1)


dribbling = threading.Thread(target=dribble)
dribbling.start()


def open_still(streams):
    """How many the service has not hung up on."""
    left = 0
    for stream in streams:
        stream.setblocking(False)
        try:
            left += stream.recv(65536) != b""
        except (BlockingIOError, ssl.SSLWantReadError):
            left += 1
        except OSError:
            pass
    return left


print(json.dumps({"opened": sum(map(len, held)) + len(slow)}), flush=True)
for line in sys.stdin:
    print(json.dumps({"silent": open_still(held[0] + held[1] + held[3])}), flush=True)
done.set()
dribbling.join()
