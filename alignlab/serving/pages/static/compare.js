// Compare: two answers, blind and in random order; choose one, or a tie.
import { attempt, call, say } from "./api.js";

const [form, text, send, pair] = ["ask", "text", "send", "pair"].map((id) => document.getElementById(id));
const cards = [...pair.querySelectorAll("article")];
const buttons = [...pair.querySelectorAll("button")];
let item = null;

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  send.disabled = true;
  const messages = [{ role: "user", content: text.value.trim() }];
  const made = await attempt(() => call("/items/compare", { messages }), "Two answers are being written");
  send.disabled = false;
  if (!made) return;
  item = made;
  cards.forEach((card, place) => {
    card.querySelector(".text").textContent = made.answers[place].completion || "(an empty answer)";
    card.querySelector(".who").textContent = "";
  });
  pair.hidden = false;
  for (const button of buttons) {
    button.disabled = false;
    button.removeAttribute("aria-pressed");
  }
  say("Choose the better answer");
  buttons[0].focus();
});

async function choose(choice) {
  if (!item || buttons[0].disabled) return;
  const chosen = item;
  const named = choice === "tie" ? "tie" : chosen.answers[Number(choice)].id;
  const told = await attempt(() => call(`/items/${chosen.id}/choice`, { choice: named }), "Saving");
  if (!told) return;
  for (const button of buttons) {
    button.disabled = true;
    button.setAttribute("aria-pressed", String(button.dataset.choice === choice));
  }
  cards.forEach((card, place) => {
    card.querySelector(".who").textContent = told.models[chosen.answers[place].id];
  });
  say("Saved. Write the next message.");
  text.focus();
  text.select();
}

for (const button of buttons) button.addEventListener("click", () => choose(button.dataset.choice));
document.addEventListener("keydown", (event) => {
  const choice = { 1: "0", 2: "1", 0: "tie" }[event.key];
  if (choice && !event.target.closest("textarea, input, select")) choose(choice);
});
