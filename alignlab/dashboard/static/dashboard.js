// Follow runs, apply filters when they change, and ask for explanations. Without this script the pages still work.
const get = async (url) => new DOMParser().parseFromString(await (await fetch(url)).text(), "text/html");

for (const form of document.querySelectorAll("form[data-filter]")) {
  for (const select of form.querySelectorAll("select")) select.addEventListener("change", () => form.requestSubmit());
}

// The table of runs: replace it when a run has changed, and keep the chosen boxes and the focus.
const table = document.querySelector("[data-live]");
if (table) {
  let waiting = false;
  new EventSource(table.dataset.live).addEventListener("changed", () => {
    if (waiting) return;
    waiting = true;
    setTimeout(async () => {
      waiting = false;
      const chosen = new Set([...table.querySelectorAll("input:checked")].map((box) => box.value));
      const focused = document.activeElement.value ?? document.activeElement.href;
      const fresh = (await get(location.href)).querySelector("[data-live]");
      if (!fresh) return;
      table.replaceChildren(...fresh.childNodes);
      for (const box of table.querySelectorAll("input")) box.checked = chosen.has(box.value);
      for (const each of table.querySelectorAll("input, a, button")) if (focused && (each.value ?? each.href) === focused) each.focus();
    }, 1000);
  });
}

// A run: show its last step, and draw its curves again at most every two seconds.
const live = document.getElementById("live");
if (live) {
  const source = new EventSource(live.dataset.follow);
  let waiting = false, before = null;
  const draw = async () => {
    waiting = false;
    const curves = document.getElementById("curves");
    const open = new Map([...curves.querySelectorAll("details")].map((each) => [each.dataset.keep, each.open]));
    curves.replaceChildren(...(await get(live.dataset.curves)).body.childNodes);
    for (const each of curves.querySelectorAll("details")) if (open.has(each.dataset.keep)) each.open = open.get(each.dataset.keep);
  };
  source.addEventListener("steps", (event) => {
    const line = JSON.parse(event.data).at(-1);
    const shown = Object.entries(line).filter(([name, value]) => name.includes("/") && typeof value === "number").slice(0, 4);
    live.textContent = `${line.stage}, step ${line.step}: ` + shown.map(([name, value]) => `${name} ${value.toPrecision(3)}`).join(", ");
    if (!waiting) { waiting = true; setTimeout(draw, 2000); }
  });
  source.addEventListener("state", (event) => {
    const state = JSON.parse(event.data);
    if (before !== null && state !== before) location.reload();
    before = state;
    if (state !== "running") source.close();
  });
}

const form = document.getElementById("explain");
if (form) {
  const status = document.getElementById("status"), place = document.getElementById("explanation");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    status.textContent = "The models are loaded and read; this takes seconds for a small model.";
    try {
      const body = JSON.stringify(Object.fromEntries(new FormData(form)));
      const answer = await fetch(form.dataset.action, { method: "POST", headers: { "Content-Type": "application/json" }, body });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      place.replaceChildren(...(answer.ok ? page.body : page.querySelector("main")).childNodes);
      status.textContent = answer.ok ? "Done." : "";
    } catch {
      status.textContent = "The server does not answer.";
    } finally {
      button.disabled = false;
    }
  });
}
