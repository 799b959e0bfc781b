// What only browsers hold of a meeting: its password. Made here, kept here, put behind the # of a link; no server gets it.

import { wordlist } from "./words.js";

const FRESH = "parley-fresh";
const KEPT = "parley-meeting-";
export const PASSWORD_WORDS = 4;

export async function newPassword() {
  const words = await wordlist();
  const drawn = crypto.getRandomValues(new Uint16Array(PASSWORD_WORDS)); // 65,536 is a multiple of 2,048: no word is likelier
  return [...drawn].map((value) => words[value % words.length]).join("-");
}

// the same percent-encoding as `parley schedule`
export function encoded(password) {
  const escaped = encodeURIComponent(password.normalize("NFC"));
  return escaped.replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
}

export function keep(number, password) {
  try {
    localStorage.setItem(KEPT + number, password);
  } catch {
    // a browser that keeps nothing: the person copies the link now
  }
}

export function kept(number) {
  try {
    return localStorage.getItem(KEPT + number);
  } catch {
    return null;
  }
}

// between sending the form and the page that answers it: the meeting's own, or the form once more
export function keepFresh(password) {
  try {
    sessionStorage.setItem(FRESH, password);
  } catch {
    // the meeting's page says that it has no password, and takes one
  }
}

export function takeFresh() {
  try {
    const password = sessionStorage.getItem(FRESH);
    sessionStorage.removeItem(FRESH);
    return password;
  } catch {
    return null;
  }
}

export function forget(number) {
  try {
    localStorage.removeItem(KEPT + number);
  } catch {
    // nothing was kept
  }
}
