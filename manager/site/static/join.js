// The page that an invitation's link opens. What stands behind the # goes into nothing but the program on this computer.

import { copy } from "./site.js";

const page = document.querySelector("[data-join]");
const { number, invite } = page.dataset;
const fragment = location.hash.slice(1);
const link = location.href;

page.querySelector(`[data-fragment-is="${fragment ? "whole" : "none"}"]`).hidden = !invite && !fragment;
page.querySelector("[data-open]").href = `parley://${location.host}/j/${number}${invite ? `/${invite}` : ""}${location.hash}`;
page.querySelector("[data-copy-link]").addEventListener("click", (event) => copy(event.currentTarget, link));

function say(state) {
  for (const word of page.querySelectorAll("[data-is]")) {
    word.hidden = word.dataset.is !== state;
  }
}

// whoever has only a number pays with some work of this browser, so that nobody tries them all
async function work({ challenge, bits }) {
  const encoder = new TextEncoder();
  for (let nonce = 0; ; nonce += 1) {
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", encoder.encode(`${challenge}.${nonce}`)));
    let zeros = 0;
    for (const byte of digest) {
      zeros += Math.clz32(byte) - 24;
      if (byte) {
        break;
      }
    }
    if (zeros >= bits) {
      return String(nonce);
    }
  }
}
