// Requests to the server, and small helpers that all pages share.

const status = document.querySelector("#status");

export function say(text, isError = false) {
  status.textContent = text;
  status.classList.toggle("error", isError);
}

export async function request(path, body, options = {}) {
  const response = await fetch(path, {
    method: body === undefined ? "GET" : "POST",
    headers: body === undefined ? {} : { "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
    ...options,
  });
  if (!response.ok) {
    const told = await response.json().catch(() => null);
    throw new Error(told?.error?.message ?? `the server answers ${response.status}`);
  }
  return response;
}

export async function call(path, body, options) {
  return (await request(path, body, options)).json();
}

// Run something that the user has asked for; say what went wrong.
export async function attempt(work, doing = "") {
  say(doing);
  try {
    const done = await work();
    if (status.textContent === doing) say("");
    return done;
  } catch (error) {
    if (error.name !== "AbortError") say(error.message, true);
    return undefined;
  }
}

export function element(name, text, className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}
