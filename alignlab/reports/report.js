// Filter the completions by kind of prompt. Without this script the page shows all of them.
const bar = document.getElementById("filter");
if (bar) {
  bar.hidden = false;
  const cards = document.querySelectorAll("[data-kind]");
  bar.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    for (const other of bar.querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button));
    for (const card of cards) card.hidden = button.value !== "" && card.dataset.kind !== button.value;
  });
}
