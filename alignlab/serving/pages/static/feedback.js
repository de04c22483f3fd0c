// Feedback: browse, filter, withdraw; an administrator sees all, and who has how much influence.
import { attempt, call, element, say } from "./api.js";

const find = (id) => document.getElementById(id);
const SIZE = 25;
let offset = 0;

// An answer's id is long: its end tells it apart.
const short = (text) => String(text).replace(/^(ans-).*(.{6})$/, "$1…$2");

function describe(value) {
  const words = Object.entries(value).map(([name, content]) => {
    const list = Array.isArray(content)
      ? content
      : typeof content === "object"
        ? Object.entries(content).map(([key, rank]) => `${rank} for ${short(key)}`)
        : [short(content)];
    return `${name}: ${list.join(", ")}`;
  });
  return words.join("\n") || "(withdrawn)";
}

function rowOf(entry) {
  const row = document.createElement("tr");
  const time = element("td", new Date(1000 * entry.updated).toLocaleString(), "words");
  const action = element("td", "");
  const words = [entry.user, entry.kind, describe(entry.value)].map((text) => element("td", text, "words"));
  row.append(time, ...words, action);
  if (entry.withdrawn === null) {
    const button = element("button", "Withdraw", "quiet");
    button.setAttribute("aria-label", `Withdraw the feedback of ${time.textContent}`);
    button.addEventListener("click", async () => {
      if (!(await attempt(() => call(`/feedback/${entry.id}`, undefined, { method: "DELETE" }), "Withdrawing"))) return;
      await load();
      say("Withdrawn");
    });
    action.append(button);
  }
  return row;
}

async function load() {
  const data = new FormData(find("filter"));
  const query = new URLSearchParams({ limit: SIZE, offset });
  if (data.get("kind")) query.set("kind", data.get("kind"));
  if (data.get("by")) query.set("by", data.get("by"));
  if (!data.get("withdrawn")) query.set("withdrawn", "false");
  const told = await attempt(() => call(`/feedback?${query}`));
  if (!told) return;
  find("rows").replaceChildren(...told.feedback.map(rowOf));
  const last = offset + told.feedback.length;
  find("count").textContent = told.total ? `${offset + 1} to ${last} of ${told.total}` : "There is no feedback.";
  find("earlier").disabled = offset === 0;
  find("later").disabled = last >= told.total;
}

async function influence() {
  const told = await attempt(() => call("/influence"));
  find("influence").replaceChildren(
    ...(told?.users ?? []).map((user) => {
      const row = document.createElement("tr");
      const share = (part) => (part === null ? "–" : `${Math.round(100 * part)}%`);
      row.append(element("td", user.user, "words"));
      const cells = [user.feedback, share(user.share), user.duplicates, share(user.up_share), user.outlier ? "outlier" : ""];
      row.append(...cells.map((cell) => element("td", cell)));
      return row;
    }),
  );
}

find("filter").addEventListener("submit", (event) => {
  event.preventDefault();
  offset = 0;
  load();
});
find("earlier").addEventListener("click", () => {
  offset = Math.max(0, offset - SIZE);
  load();
});
find("later").addEventListener("click", () => {
  offset += SIZE;
  load();
});
load();
if (find("influence")) influence();
