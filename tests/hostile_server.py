"""A server on the loopback that answers with raw bytes: broken, endless, enormous, slow or malicious ones."""

import gzip
import json
import socket
import time
import zlib
from contextlib import contextmanager
from itertools import chain, repeat
from threading import Thread

OK = b"HTTP/1.1 200 OK\r\n"


def whole(body: bytes, head: bytes = OK) -> list[bytes]:
    return [head + b"Content-Length: %d\r\n\r\n" % len(body) + body]


def chat(content: object, **more: object) -> list[bytes]:
    """An answer of a chat model; it is no answer for a reward."""
    return whole(json.dumps({"choices": [{"message": {"content": content}}], **more}).encode())


def slowly(data: bytes) -> "chain[bytes]":
    for byte in data:
        time.sleep(0.02)
        yield bytes([byte])


def endless(head: bytes, piece: bytes) -> "chain[bytes]":
    return chain([head], repeat(piece))


def bomb() -> bytes:
    pack = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(pack.compress(bytes(10**6)) for _ in range(300)) + pack.flush()


def packed(data: bytes, encoding: bytes) -> list[bytes]:
    return whole(data, OK + b"Content-Encoding: " + encoding + b"\r\n")


BOMB = bomb()  # 300 MB of zeros
DEEP = b"[" * 100_000
USED = '{"choices": [{"message": {"content": "{}"}}], "usage": {"prompt_tokens": %s, "completion_tokens": 1}}'
BUSY = b"HTTP/1.1 503 Busy\r\nRetry-After: %s\r\nContent-Length: 0\r\n\r\n"
ANSWERS = {
    "nothing at all": [],
    "no HTTP": [b"SSH-2.0-OpenSSH_9.6\r\n\r\n"],
    "a header without end": lambda: endless(OK, b"x: y\r\n"),
    "a header of a megabyte": [OK + b"x: " + b"y" * 10**6 + b"\r\n\r\n"],
    "a header byte by byte": lambda: slowly(OK + b"x: y\r\n" * 20),
    "a body byte by byte": lambda: chain([OK + b"Content-Length: 90\r\n\r\n"], slowly(b" " * 90)),
    "hints without end": lambda: endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a body without end": lambda: endless(OK + b"\r\n", b"x" * 10**5),
    "chunks without end": lambda: endless(
        OK + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b" " * 65536 + b"\r\n"
    ),
    "a chunk of 2^64 bytes": [OK + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\nabc"],
    "a chunk of no size": [OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n"],
    "a terabyte": lambda: endless(OK + b"Content-Length: 1000000000000\r\n\r\n", b" " * 10**5),
    "fewer bytes than announced": [OK + b"Content-Length: 90\r\n\r\n{"],
    "a negative length": [OK + b"Content-Length: -1\r\n\r\n{}"],
    "two lengths": [OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}"],
    "a gzip bomb": packed(BOMB, b"gzip"),
    "a bomb called deflate": packed(BOMB, b"deflate"),
    "broken gzip": packed(b"\x1f\x8b\x08broken", b"gzip"),
    "gzip cut short": packed(gzip.compress(b'{"scores": [1]}')[:-9], b"gzip"),
    "an unknown encoding": packed(b"{}", b"br"),
    "deep lists": whole(DEEP),
    "lists of 900 levels": whole(b"[" * 900 + b"]" * 900),
    "deep objects": whole(b'{"a":' * 100_000),
    "a million lists": whole(b"[" + b"[]," * 10**6 + b"[]]"),
    "a million objects": whole(b"[" + b'{"":0},' * 500_000 + b"0]"),
    "a number of 10,000 digits": whole(b'{"scores": [%s]}' % (b"9" * 10_000)),
    "infinite scores": whole(b'{"scores": [1e999]}'),
    "Infinity": whole(b'{"scores": [Infinity], "usage": {"prompt_tokens": Infinity}}'),
    "no number of tokens": whole((USED % '"many"').encode()),
    "infinite tokens": whole((USED % "1e999").encode()),
    "negative tokens": whole((USED % "-5").encode()),
    "a list of tokens": chat("{}", usage=[1]),
    "no UTF-8": whole(b'{"scores": ["\xff\xfe"]}'),
    "UTF-16": whole('{"scores": [1]}'.encode("utf-16")),
    "half a character": chat("\ud800"),
    "half a character inside": chat(r'{"A": {"reason": "\ud800"}}'),
    "braces": chat("{" * 200_000),
    "open objects": chat('{"a":' * 200_000),
    "broken objects": chat('{"x"' * 200_000),
    "an answer of three megabytes": chat("x" * 3_000_000),
    "no content": chat(None),
    "content that is a list": chat([["x"]]),
    "no choices": whole(b'{"choices": []}'),
    "choices that are a number": whole(b'{"choices": 5, "scores": 5, "data": 5}'),
    "null": whole(b"null"),
    "HTML": whole(b"<html>404</html>"),
    "no content at all": [b"HTTP/1.1 204 No Content\r\n\r\n"],
    "a redirect to itself": whole(b"", b"HTTP/1.1 302 Found\r\nLocation: /\r\n"),
    "a redirect to a file": whole(b"", b"HTTP/1.1 307 Go\r\nLocation: file:///etc/passwd\r\n"),
    "a status that is none": whole(b"", b"HTTP/1.1 999 Odd\r\n"),
    "a date without a zone": [BUSY % b"Mon, 30 Nov 2026 10:00:00 -0000"],
    "a date that is none": [BUSY % b"Mon, 99 Foo 99999 99:99:99 +9999"],
    "a wait that is no number": [BUSY % b"nan"],
    "a wait without end": [BUSY % b"inf"],
}


@contextmanager
def hostile_server(answer, asked=None):
    """Answer every request with these bytes; yields the address. Requests are added to `asked`."""
    listener = socket.create_server(("127.0.0.1", 0))
    done: list[bool] = []

    def serve() -> None:
        while not done:
            try:
                connection = listener.accept()[0]
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                try:
                    request = connection.recv(65536)
                    if asked is not None:
                        asked.append(request)
                    for piece in answer() if callable(answer) else answer:
                        if done:
                            break
                        connection.sendall(piece)
                except OSError:
                    continue  # the client has gone

    thread = Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        done.append(True)
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)
