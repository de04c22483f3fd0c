"""Talk to one model, or to two side by side: `task=chat task.model=outputs/latest/dpo/model`.

Answers appear token by token. Without a terminal, each line of standard input is a message or a command; answers go to
standard output and everything else to standard error. The conversations are kept in the run's folder.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from signal import SIGINT, default_int_handler, getsignal, signal
from typing import Any

from alignlab.chat import Turn
from alignlab.config.schema import Config
from alignlab.config.settings import path_in_home
from alignlab.config.task import Chat
from alignlab.errors import Explained
from alignlab.pipeline.language_models import check_language_model, language_model
from alignlab.pipeline.run_folder import CONVERSATIONS
from alignlab.runtime.files import cache_root, write_text
from alignlab.runtime.journal import line
from alignlab.runtime.progress import say

PROMPT = "> "
HISTORY, HISTORY_LINES = "chat_history", 1000
HELP = """\
/again         answer the last message again
/undo          take back the last message and its answers
/system TEXT   change the system turn; without TEXT, remove it
/reset         start a new conversation
/save FILE     add the conversation to a JSONL file, which dataset=file reads
/quit          end; so does Ctrl-D. Ctrl-C stops an answer"""


def plan(config: Config) -> Iterator[str]:
    """Yield the line of `dry_run=true`."""
    settings = check(config)
    names = " and ".join(models(settings).values())
    yield f"chat with {names}: temperature {settings.temperature:g}, at most {settings.max_new_tokens} tokens"


def run(config: Config, folder: Path) -> None:
    """Talk until the input ends; the last line printed is the file of the conversations."""
    settings = check(config)
    session = Session([load(config, place, named) for place, named in models(settings).items()], settings, folder)
    terminal = sys.stdin.isatty()
    if terminal:
        say(f"talking to {' and '.join(speaker.name for speaker in session.speakers)}; /help lists the commands")
    with interruptible():
        for text in typed_lines() if terminal else map(str.strip, sys.stdin):
            if text and not session.follow(text):
                break
    if session.file.exists():
        say(str(session.file))
    else:
        with suppress(OSError):
            folder.rmdir()


def check(config: Config) -> Chat:
    """Return the task's settings; raises a `Mistake` where one names no language model."""
    settings = config.task
    assert isinstance(settings, Chat)
    for place, named in models(settings).items():
        check_language_model(place, named)
    return settings


def models(settings: Chat) -> dict[str, str]:
    """Return the models to talk to by the settings that name them."""
    return {"task.model": settings.model} | ({"task.beside": settings.beside} if settings.beside else {})


def load(config: Config, place: str, named: str) -> Any:
    """Load a model to talk to."""
    from alignlab.models.load import load_policy
    from alignlab.models.sampling import Sampling
    from alignlab.models.speaker import Speaker

    settings = config.task
    assert isinstance(settings, Chat)
    source = language_model(config, place, named)
    sampling = Sampling(settings.temperature, settings.top_p, settings.max_new_tokens, batch_size=1)
    return Speaker(source.name, *load_policy(source.path, config.hardware), sampling, config.seed)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C raise a `KeyboardInterrupt`, whatever handler a run has installed."""
    before = getsignal(SIGINT)
    signal(SIGINT, default_int_handler)
    try:
        yield
    finally:
        signal(SIGINT, before)


def typed_lines() -> Iterator[str]:
    """Yield the lines that the user types, with a history where readline is installed; Ctrl-C clears a line."""
    with line_history():
        while True:
            try:
                yield input(PROMPT).strip()
            except EOFError:
                say("")
                return
            except KeyboardInterrupt:
                say("\n/quit or Ctrl-D ends")


@contextmanager
def line_history() -> Iterator[None]:
    """Read and write the history of typed lines."""
    try:
        import readline
    except ImportError:
        yield
        return
    file = cache_root() / HISTORY
    with suppress(OSError):
        readline.read_history_file(file)
    readline.set_history_length(HISTORY_LINES)
    try:
        yield
    finally:
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(file)


class Session:
    """A conversation that one or two models answer, and the conversations before it."""

    def __init__(self, speakers: list[Any], settings: Chat, folder: Path) -> None:
        self.speakers, self.system = speakers, settings.system
        self.file = folder / CONVERSATIONS
        self.earlier: list[dict[str, Any]] = []
        self.draw = 0  # the number of answers so far, which chooses the random stream
        self.commands: dict[str, Callable[[str], bool | None]] = {
            "/help": lambda _: say(HELP),
            "/again": self.again,
            "/undo": self.undo,
            "/system": self.change_system,
            "/reset": self.reset,
            "/save": self.save,
            "/quit": lambda _: True,
        }
        self.begin()

    def follow(self, text: str) -> bool:
        """Answer a message or follow a command; return whether the session goes on."""
        name, _, rest = text.partition(" ")
        if not name.startswith("/"):
            self.ask(text)
        elif name in self.commands:
            return not self.commands[name](rest.strip())
        else:
            say(f"{name}: unknown command; /help lists them")
        return True

    def begin(self) -> None:
        """Begin a conversation."""
        for speaker in self.speakers:
            speaker.turns = system_turns(self.system)

    def ask(self, text: str) -> None:
        """Add a message, and let every model answer it."""
        if unknown := self.speakers[0].unknown_words(text):
            say(f"not in the model's vocabulary of {len(self.speakers[0].tokenizer)} tokens: {', '.join(unknown)}")
        for speaker in self.speakers:
            speaker.turns.append({"role": "user", "content": text})
        try:
            for speaker in self.speakers:
                self.answer(speaker)
        except Explained as error:
            say(str(error))
            self.take_back()
            return
        self.draw += 1
        write_text(self.file, "".join(map(line, [*self.earlier, *self.rows()])))

    def answer(self, speaker: Any) -> None:
        """Print a model's answer while it grows, and add it to the conversation."""
        prompt = speaker.prompt()
        if prompt.note:
            say(prompt.note)
        if len(self.speakers) > 1:
            write(f"[{speaker.name}] ")
        completion, stopped = speaker.answer(prompt.turns, self.draw, write)
        write("\n")
        if not completion.text:
            say("(an empty answer)")
        elif not (stopped or completion.finished):
            say(f"(cut at {len(completion.tokens)} tokens: task.max_new_tokens)")
        speaker.turns.append({"role": "assistant", "content": completion.text})

    def again(self, _: str) -> None:
        """Answer the last message again, with other random numbers."""
        if text := self.take_back():
            self.ask(text)

    def undo(self, _: str) -> None:
        """Take back the last message and its answers."""
        if text := self.take_back():
            say(f"taken back: {text}")

    def take_back(self) -> str:
        """Remove the last message and its answers; return its text, or an empty one where there is none."""
        text = ""
        for speaker in self.speakers:
            places = [place for place, turn in enumerate(speaker.turns) if turn["role"] == "user"]
            if not places:
                say("nothing was asked yet")
                return ""
            text = speaker.turns[places[-1]]["content"]
            del speaker.turns[places[-1] :]
        return text

    def change_system(self, text: str) -> None:
        """Change the system turn of this conversation and of those after it."""
        self.system = text
        for speaker in self.speakers:
            speaker.turns = [*system_turns(text), *(turn for turn in speaker.turns if turn["role"] != "system")]
        say("the system turn is changed" if text else "there is no system turn now")

    def reset(self, _: str) -> None:
        """Begin a new conversation."""
        self.earlier += self.rows()
        self.begin()
        say("a new conversation")

    def save(self, name: str) -> None:
        """Add the conversation to a file."""
        rows = self.rows()
        if not name or not rows:
            say("/save FILE: give the name of a file" if rows else "nothing was asked yet")
            return
        try:
            with path_in_home(Path(name)).open("a", encoding="utf-8") as stream:
                stream.writelines(map(line, rows))
        except OSError as error:
            say(f"{name}: cannot be written ({error.strerror})")
            return
        say(f"added to {name}")

    def rows(self) -> list[dict[str, Any]]:
        """Return the conversation as a row per model; none before the first answer."""
        return [
            {"messages": speaker.turns, "made_by": speaker.name}
            for speaker in self.speakers
            if any(turn["role"] == "assistant" for turn in speaker.turns)
        ]


def system_turns(text: str) -> list[Turn]:
    """Return the turns that a conversation begins with."""
    return [{"role": "system", "content": text}] if text else []


def write(text: str) -> None:
    """Print a part of an answer at once."""
    print(text, end="", flush=True)
