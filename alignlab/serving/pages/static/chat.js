// Chat: stream an answer, stop it, regenerate it, and give feedback on it.
import { attempt, call, element, request, say } from "./api.js";

const [turns, form, text, send, stop, model] = ["turns", "ask", "text", "send", "stop", "model"].map((id) =>
  document.getElementById(id),
);
let messages = [];
let running = null;

function show(role, content) {
  const turn = element("article", "", `turn ${role}`);
  turn.append(element("small", "You"), element("p", content, "text"));
  turns.append(turn);
}

async function* parts(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n\n");
    rest = lines.pop();
    for (const line of lines) {
      const data = line.slice("data: ".length);
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new Error(event.error.message);
      yield event;
    }
  }
}

async function answer() {
  const card = document.getElementById("answer").content.cloneNode(true).firstElementChild;
  card.querySelector(".who").textContent = model.value;
  turns.append(card);
  const place = card.querySelector(".text");
  running = new AbortController();
  send.disabled = true;
  stop.hidden = false;
  let id = null;
  const conversation = messages; // "New" replaces it while the answer is written
  await attempt(async () => {
    const body = { model: model.value, messages: conversation, stream: true };
    for await (const part of parts(await request("/v1/chat/completions", body, { signal: running.signal }))) {
      id = part.id;
      place.textContent += part.choices[0]?.delta.content ?? "";
    }
    say(`Answer: ${place.textContent}`);
  }, "The model is answering");
  const stopped = running.signal.aborted;
  running = null;
  send.disabled = false;
  stop.hidden = true;
  if (stopped) say("Stopped");
  if (!place.textContent && !id) {
    card.remove();
    conversation.pop();
    return;
  }
  conversation.push({ role: "assistant", content: place.textContent });
  offer(card, stopped ? null : id);
}

// Show the buttons of an answer; one that was stopped has no record, and so no feedback.
function offer(card, id) {
  const find = (name) => card.querySelector(name);
  const value = {};
  let stored = null;
  find(".actions").hidden = false;
  if (!id) for (const name of [".up", ".down", ".correct", ".report"]) find(name).hidden = true;

  async function tell(change) {
    Object.assign(value, change);
    const given = await attempt(() => call("/feedback", { id, ...value }), "Saving");
    if (!given) return false;
    stored = given.id;
    find(".withdraw").hidden = false;
    for (const name of ["up", "down"]) find(`.${name}`).setAttribute("aria-pressed", String(value.thumb === name));
    say("Saved");
    return true;
  }

  for (const name of ["up", "down"]) find(`.${name}`).addEventListener("click", () => tell({ thumb: name }));
  for (const [button, place] of [[".correct", ".correction"], [".report", ".harm"]]) {
    find(button).addEventListener("click", () => {
      const open = find(place).hidden;
      find(place).hidden = !open;
      find(button).setAttribute("aria-expanded", String(open));
      if (open) find(`${place} :is(textarea, input)`).focus();
    });
  }
  find(".correction textarea").value = find(".text").textContent;
  find(".correction").addEventListener("submit", async (event) => {
    event.preventDefault();
    if (await tell({ correction: find(".correction textarea").value })) find(".correct").click();
  });
  find(".harm").addEventListener("submit", async (event) => {
    event.preventDefault();
    const data = new FormData(event.target);
    const comment = data.get("comment");
    const change = { categories: data.getAll("category"), ...(comment ? { comment } : {}) };
    if (await tell(change)) find(".report").click();
  });
  find(".withdraw").addEventListener("click", async () => {
    if (!(await attempt(() => call(`/feedback/${stored}`, undefined, { method: "DELETE" }), "Withdrawing"))) return;
    for (const name of Object.keys(value)) delete value[name];
    for (const name of ["up", "down"]) find(`.${name}`).setAttribute("aria-pressed", "false");
    find(".withdraw").hidden = true;
    say("Withdrawn");
  });
  find(".again").addEventListener("click", async () => {
    if (running || card !== turns.lastElementChild) return say("Only the last answer can be written again", true);
    messages.pop();
    card.remove();
    await answer();
  });
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const content = text.value.trim();
  if (!content || running) return;
  messages.push({ role: "user", content });
  show("user", content);
  text.value = "";
  await answer();
  text.focus();
});
text.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    form.requestSubmit();
  }
});
document.addEventListener("keydown", (event) => event.key === "Escape" && running?.abort());
stop.addEventListener("click", () => running?.abort());
document.getElementById("new").addEventListener("click", () => {
  running?.abort();
  messages = [];
  turns.replaceChildren();
  say("A new conversation");
  text.focus();
});
