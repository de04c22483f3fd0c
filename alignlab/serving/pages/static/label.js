// Label: rank the answers of an item, one item after the other; several people may rank the same item.
import { attempt, call, element, say } from "./api.js";

const find = (id) => document.getElementById(id);
let item = null;

function show(next) {
  item = next.item;
  find("progress").max = Math.max(next.total, 1);
  find("progress").value = next.done;
  find("count").textContent = `${next.done} of ${next.total}`;
  find("item").hidden = !item;
  find("none").hidden = Boolean(item);
  if (!item) return;
  find("instructions").textContent = item.instructions || "Rank the answers, the best first.";
  find("prompt").replaceChildren(
    ...item.messages.map((message) => {
      const turn = element("article", "", `turn ${message.role}`);
      turn.append(element("small", message.role), element("p", message.content, "text"));
      return turn;
    }),
  );
  find("answers").replaceChildren(...item.answers.map(choices));
  find("comment").value = "";
}

function choices(answer, place) {
  const box = element("fieldset", "");
  const name = `Answer ${String.fromCharCode(65 + place)}`;
  box.append(element("legend", name));
  const text = element("p", answer.completion || "(an empty answer)", "text");
  box.append(text);
  for (let rank = 1; rank <= item.answers.length; rank++) {
    const label = element("label", "", "check");
    const radio = document.createElement("input");
    Object.assign(radio, { type: "radio", name: answer.id, value: rank, required: true });
    radio.setAttribute("aria-label", `${name}: rank ${rank}`);
    label.append(radio, String(rank));
    box.append(label);
  }
  return box;
}

async function next() {
  const told = await attempt(() => call("/items/next"));
  if (told) show(told);
}

find("ranks").addEventListener("submit", async (event) => {
  event.preventDefault();
  const data = new FormData(event.target);
  const ranks = Object.fromEntries(item.answers.map((answer) => [answer.id, Number(data.get(answer.id))]));
  const comment = find("comment").value;
  const body = { ranks, ...(comment ? { comment } : {}) };
  if (!(await attempt(() => call(`/items/${item.id}/ranks`, body), "Saving"))) return;
  await next();
  say("Saved");
  find("answers").querySelector("input")?.focus();
});

find("add").addEventListener("submit", async (event) => {
  event.preventDefault();
  const body = {
    messages: [{ role: "user", content: find("new-text").value.trim() }],
    instructions: find("new-how").value,
    samples: Number(find("new-count").value),
  };
  if (!(await attempt(() => call("/items", body), "Answers are being written"))) return;
  find("new-text").value = "";
  await next();
  say("Added");
});

find("who").addEventListener("toggle", async () => {
  const told = find("who").open && (await attempt(() => call("/items/agreement")));
  if (!told) return;
  find("agreement").replaceChildren(
    ...told.labelers.map((pair) => {
      const row = document.createElement("tr");
      const names = `${pair.first} and ${pair.second}`;
      row.append(...[names, pair.pairs, `${Math.round(100 * pair.agreement)}%`].map((cell) => element("td", cell)));
      return row;
    }),
  );
  find("disputed").textContent = told.disputed.length
    ? `Labelers disagree on: ${told.disputed.join(", ")}`
    : "Nobody disagrees.";
});

next();
