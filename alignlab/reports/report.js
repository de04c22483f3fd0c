// Search and filter the items of a report. Without this script the page shows the first items of each set.
const NARROW = matchMedia("(max-width: 720px)").matches;
const STEP = NARROW ? 3 : 8; // items that are shown at first, and added by "Show more"
const ROWS = 10; // of a table on a phone, before "Show more measures"
const COLOURS = { worse: "worse", wrong: "worse", "still wrong": "changed", better: "better", right: "better" };

function browse(section) {
  const data = JSON.parse(section.querySelector("script").textContent);
  const [form, list, more] = [".filter", ".list", ".more"].map((name) => section.querySelector(name));
  const first = list.querySelector("article");
  const ordered = data.items.map((item, at) => ({ item, at }));
  let shown = STEP;

  function verdict(item) {
    return data.verdicts[item[5][form.measure.value === "" ? 0 : Number(form.measure.value) + 1]];
  }
  function loss(item) {
    const measure = Number(form.measure.value);
    const [before, after] = data.compared.map((at) => (at === null ? 0 : item[4][at][measure] ?? 0));
    return data.measures[measure][1] * (before - after);
  }
  function matches({ item }) {
    const [id, kind, prompt, texts] = item;
    const words = form.search.value.toLowerCase();
    const text = () => [id, ...prompt.map((turn) => turn[1]), ...texts].join("\n").toLowerCase();
    return (form.kind.value === "" || kind === form.kind.value)
      && (form.measure.value === "" || verdict(item) !== undefined)
      && (form.verdict.value === "" || verdict(item) === form.verdict.value)
      && (words === "" || text().includes(words));
  }
  function show() {
    const found = ordered.filter(matches);
    if (form.measure.value !== "") found.sort((one, other) => loss(other.item) - loss(one.item) || one.at - other.at);
    list.replaceChildren(...found.slice(0, shown).map(({ item }) => card(item)));
    more.hidden = found.length <= shown;
    const left = data.total - data.items.length;
    form.querySelector("output").textContent = `${found.length.toLocaleString("en")} of ${data.items.length.toLocaleString("en")} items`
      + (left ? `; ${left.toLocaleString("en")} more are in ${data.source}` : "");
  }
  function card(item) {
    const copy = first.cloneNode(true);
    const [id, kind, prompt, texts, values] = item;
    const chip = copy.querySelector(".chip");
    const name = verdict(item) ?? "";
    chip.className = `chip ${COLOURS[name] ?? ""}`;
    chip.textContent = name;
    copy.querySelector(".kind").textContent = kind.replaceAll("_", " ");
    copy.querySelector(".id").textContent = id;
    copy.querySelector(".prompt").textContent = prompt.map(([role, text]) => (prompt.length > 1 ? `${role}: ${text}` : text)).join("\n\n");
    copy.querySelectorAll(".answer").forEach((answer, at) => {
      const text = answer.querySelector(".text");
      text.textContent = texts[at] || "empty completion";
      text.classList.toggle("empty", !texts[at]);
      answer.querySelector(".scores").replaceChildren(...scores(item, values[at], at));
    });
    return copy;
  }
  function* scores(item, values, at) {
    for (const [place, [label, , rate]] of data.measures.entries()) {
      if (values[place] === null) continue;
      const entry = document.createElement("li");
      entry.textContent = `${label} ${rate ? (values[place] ? "yes" : "no") : values[place]}`;
      const failed = ["worse", "wrong", "still wrong"].includes(data.verdicts[item[5][place + 1]]);
      if (failed && at === data.compared[1]) entry.className = "failed";
      yield entry;
    }
  }
  form.addEventListener("input", () => { shown = STEP; show(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => { shown += STEP; show(); });
  form.hidden = false;
  show();
  return { form, list, more, reset() { form.reset(); shown = STEP; show(); } };
}

// A phone shows the first rows of the first table and the first items; the other sections are folded.
if (NARROW) {
  for (const table of document.querySelectorAll(".models")) shorten(table);
  const kept = [document.querySelector(".section"), document.querySelector(".items")];
  for (const section of document.querySelectorAll(".section")) section.open = kept.includes(section);
}

function shorten(table) {
  const rest = [...table.tBodies[0].rows].slice(ROWS);
  if (rest.length === 0) return;
  const all = document.createElement("button");
  all.type = "button";
  all.textContent = `Show ${rest.length} more measures`;
  const hide = (hidden) => rest.forEach((row) => { row.hidden = hidden; });
  all.addEventListener("click", () => { hide(false); all.remove(); });
  table.parentElement.after(all);
  hide(true);
}

const sets = [...document.querySelectorAll(".items")].map(browse);

function move(by) {
  const cards = [...document.querySelectorAll("article")].filter((one) => one.checkVisibility());
  const at = cards.indexOf(document.activeElement.closest("article"));
  const set = sets.find((one) => by > 0 && one.list.lastElementChild === cards[at] && !one.more.hidden);
  if (set) {
    const count = set.list.children.length;
    set.more.click();
    set.list.children[count].focus();
  } else cards[Math.max(at + by, 0)]?.focus(); // after the last card nothing moves
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches("input, select, textarea");
  const set = sets.find((one) => one.list.parentElement.contains(event.target)) ?? sets[0];
  if (event.key === "Escape" && set) {
    set.reset();
    event.target.blur();
  } else if (!typing && event.key === "/" && set) {
    event.preventDefault();
    set.form.search.focus();
  } else if (!typing && (event.key === "j" || event.key === "k")) move(event.key === "j" ? 1 : -1);
});

function reveal() {
  const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
  if (target && target.matches("details")) target.open = true;
}
addEventListener("hashchange", reveal);
reveal();
