"""A real server on the loopback that speaks OpenAI's protocol: it ranks by length, dawdles, fails or talks nonsense."""

import json
import re
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread

ANSWER = re.compile(r"<answer (\w)>\n(.*?)\n</answer \1>", re.DOTALL)


def lengths(body):
    """Rank the answers, the longest first, as the request's schema wants it."""
    texts = dict(ANSWER.findall(body["messages"][1]["content"]))
    order = sorted(texts, key=lambda letter: -len(texts[letter]))
    rank = {letter: 1 + order.index(letter) for letter in texts}
    return {
        letter: {
            name: {"reason": f"{len(texts[letter])} letters", "rank": rank[letter]}
            for name in ("safety", "helpfulness")
        }
        for letter in texts
    }


def said(value, fence=False):
    """A chat completion that says this."""
    text = value if isinstance(value, str) else json.dumps(value)
    text = f"Surely:\n```json\n{text}\n```" if fence else text
    used = {"prompt_tokens": 100, "completion_tokens": 10}
    return 200, json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}], "usage": used}), {}


def honest(body, number):
    return said(lengths(body))


class Chat(BaseHTTPRequestHandler):
    """Answers a request with what `server.script(body, number)` gives: status, text, headers."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            number = len(server.asked)
            server.asked.append((time.monotonic(), self.path, self.headers.get("Authorization"), body))
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        try:
            status, text, headers = server.script(body, number)
        finally:
            with server.lock:
                server.at_once -= 1
        try:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(text.encode())), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text.encode())
        except OSError:
            pass  # whoever asked has gone

    def log_message(self, *_):
        pass


@contextmanager
def chat_server(script=honest):
    """Serve; `asked` holds what was asked."""
    served = ThreadingHTTPServer(("127.0.0.1", 0), Chat)
    served.daemon_threads = True
    served.asked, served.lock, served.script, served.at_once, served.most_at_once = [], Lock(), script, 0, 0
    served.url = f"http://127.0.0.1:{served.server_address[1]}/v1"
    thread = Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        served.shutdown()
        served.server_close()
        thread.join()
