// The page that an invitation's link opens. What stands behind the # goes into nothing but the program on this computer.

import { copy } from "./site.js";

const page = document.querySelector("[data-join]");
const { number, invite } = page.dataset;
const fragment = location.hash.slice(1);

page.querySelector(`[data-fragment-is="${fragment ? "whole" : "none"}"]`).hidden = !invite && !fragment;
page.querySelector("[data-copy-link]").addEventListener("click", (event) => copy(event.currentTarget, location.href));

const say = (state) => {
  for (const word of page.querySelectorAll("[data-is]")) {
    word.hidden = word.dataset.is !== state;
  }
};

const ask = (path, body) =>
  fetch(`/api/v1${path}`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });

// who has only a number pays with some work of this browser, so that nobody tries them all
async function proof() {
  const { challenge, bits } = await (await ask("/challenges", {})).json();
  const encoder = new TextEncoder();
  for (let nonce = 0; ; nonce += 1) {
    const digest = new DataView(await crypto.subtle.digest("SHA-256", encoder.encode(`${challenge}:${nonce}`)));
    if (Math.clz32(digest.getUint32(0)) >= bits) {
      return { challenge, nonce: String(nonce) };
    }
  }
}

async function look(patience) {
  const asked = { meeting_id: Number(number), ...(invite ? { invite } : { proof: await proof() }) };
  const answer = await ask(`/looks?wait=${patience}`, asked);
  const state = answer.ok ? "open" : (await answer.json()).name;
  say(state);
  if (state === "not-open-yet") {
    setTimeout(watch, 1000, 20); // the server holds the question until the meeting opens
  }
}

const watch = (patience) => look(patience).catch(() => say("asking"));

if (invite) {
  watch(0);
} else {
  const button = page.querySelector("[data-look]");
  button.hidden = false;
  button.addEventListener("click", async () => {
    button.disabled = true;
    say("asking");
    await watch(0);
    button.disabled = false;
  });
}
