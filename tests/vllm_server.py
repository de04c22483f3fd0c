"""A server that speaks vLLM's protocol, with transformers behind it: token ids, seeds, biases, reloaded weights, sleep.

It can be made to fail: `ignore_updates` keeps the first weights, `broken` maps a path to the statuses of its next
answers, `silent` delays every answer. It also starts from a command line, as `vllm serve` does.
"""

import argparse
import json
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from urllib.parse import parse_qs, urlsplit

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        self.answer(None)

    def do_POST(self):
        size = int(self.headers.get("Content-Length") or 0)
        self.answer(json.loads(self.rfile.read(size)) if size else None)

    def answer(self, body):
        server, address = self.server, urlsplit(self.path)
        with server.lock:
            server.asked.append((address.path, parse_qs(address.query), body, self.headers.get("Authorization")))
            statuses = server.broken.get(address.path, [])
            status, reply = (statuses.pop(0), {"error": "broken"}) if statuses else (200, None)
            if status == 200:
                try:
                    status, reply = server.reply(address.path, parse_qs(address.query), body)
                except Exception as error:  # as vLLM's own error handler does
                    status, reply = 500, {"error": repr(error)}
        time.sleep(server.silent)
        content = b"" if reply is None else json.dumps(reply).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            pass  # the client has given up

    def log_message(self, *_):
        pass


class VLLMServer(ThreadingHTTPServer):
    """Serves a model folder on the loopback."""

    daemon_threads = True

    def __init__(self, folder, port=0, name="policy", max_model_len=None):
        super().__init__(("127.0.0.1", port), Handler)
        self.network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.name, self.max_model_len = name, max_model_len or self.network.config.max_position_embeddings
        self.asked, self.broken, self.lock = [], {}, Lock()
        self.silent, self.ignore_updates, self.awake = 0.0, False, {"weights", "kv_cache"}
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def reply(self, path, query, body):
        """Return the status and the body of the answer."""
        match path:
            case "/health":
                return 200, None
            case "/v1/models":
                return 200, {"data": [{"id": self.name, "max_model_len": self.max_model_len}]}
            case "/v1/completions" if self.awake == {"weights", "kv_cache"} and body["model"] == self.name:
                return 200, self.complete(body)
            case "/collective_rpc" if body["method"] == "reload_weights" and "weights" in self.awake:
                self.reload(Path(body["kwargs"]["weights_path"]))
                return 200, {"results": [None]}
            case "/reset_prefix_cache":
                return 200, None
            case "/sleep":
                self.awake = set()
                for weight in self.network.parameters():  # level 2 discards them
                    weight.data.zero_()
                return 200, None
            case "/wake_up":
                self.awake |= set(query.get("tags", ["weights", "kv_cache"]))
                return 200, None
        return 404, {"detail": "Not Found"}

    def reload(self, folder):
        """Load weights in place."""
        assert (folder / "config.json").exists()
        weights = {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}
        missing, unknown = self.network.load_state_dict({k: v.float() for k, v in weights.items()}, strict=False)
        assert not {*unknown, *missing} - {"lm_head.weight"}, (missing, unknown)
        if self.ignore_updates and self.first is None:
            self.first = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        elif self.ignore_updates:
            self.network.load_state_dict(self.first)
        self.network.tie_weights()

    first = None

    @torch.no_grad()
    def complete(self, body):
        """Sample token by token, and give each token's log-probability after bias and temperature."""
        stream = torch.Generator().manual_seed(body["seed"])
        ids, tokens, logps, cache, reason = body["prompt"], [], [], None, "length"
        fed = torch.tensor([ids])
        while len(tokens) < body["max_tokens"]:
            out = self.network(input_ids=fed, past_key_values=cache, use_cache=True)
            scores, cache = out.logits[0, -1].float(), out.past_key_values
            for token, bias in body["logit_bias"].items():
                scores[int(token)] += bias
            logprobs = (scores / body["temperature"]).log_softmax(-1)
            token = int(torch.multinomial(logprobs.exp(), 1, generator=stream))
            tokens.append(token)
            logps.append(float(logprobs[token]))
            fed = torch.tensor([[token]])
            if token in body["stop_token_ids"]:
                reason = "stop"
                break
        names = [f"token_id:{token}" for token in tokens]
        logprobs = {"tokens": names, "token_logprobs": logps, "top_logprobs": [None] * len(tokens)}
        choice = {"token_ids": tokens, "prompt_token_ids": ids, "logprobs": logprobs, "finish_reason": reason}
        return {"choices": [choice]}


@contextmanager
def vllm_server(folder, **options):
    """Serve a model folder in threads of this process."""
    server = VLLMServer(folder, **options)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--port", type=int)
    known, _ = parser.parse_known_args()
    torch.set_num_threads(1)
    VLLMServer(known.folder, known.port).serve_forever()
