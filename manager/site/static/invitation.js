// A meeting's invitation: the link with the password behind its #, as text, as a mail, as a calendar entry. All of it is made here.

import { encoded, forget, keep, kept, takeFresh } from "./secret.js";
import { copy } from "./site.js";
import { withLink } from "./calendar.js";

const box = document.querySelector("[data-invitation]");
if (box) {
  const { number, link: bare, subject } = box.dataset;
  const state = { link: bare, password: null };
  const shown = document.getElementById("link");
  const mail = box.querySelector('[data-do="mail"]');

  const text = () => {
    const words = state.password ? box.dataset.wordsWith : box.dataset.wordsWithout;
    return words.replaceAll("{link}", state.link).replaceAll("{password}", state.password ?? "");
  };

  const show = (password) => {
    state.password = password || null;
    state.link = password ? `${bare}#${encoded(password)}.` : bare;
    shown.textContent = state.link;
    for (const part of box.querySelectorAll("[data-has]")) {
      part.hidden = !password;
    }
    box.querySelector("[data-lacks]").hidden = Boolean(password);
    box.querySelector("[data-password]").textContent = password ?? "";
    mail.href = `mailto:?subject=${encodeURIComponent(subject)}&body=${encodeURIComponent(text())}`;
  };

  const made = takeFresh();
  if (made && "fresh" in box.dataset) {
    keep(number, made); // of this meeting, which was scheduled a moment ago, and of no other that is looked at instead
  }
  show(kept(number));
  box.querySelector("[data-add]").addEventListener("submit", (event) => {
    event.preventDefault();
    const password = document.getElementById("add-password").value.trim();
    if (password) {
      keep(number, password);
      show(password);
    }
  });
  box.querySelector('[data-do="link"]').addEventListener("click", (event) => copy(event.currentTarget, state.link));
  box.querySelector('[data-do="text"]').addEventListener("click", (event) => copy(event.currentTarget, text()));
  box.querySelector('[data-do="calendar"]').addEventListener("click", async (event) => {
    if (!state.password) {
      return;
    }
    event.preventDefault();
    const told = await fetch(box.dataset.ics);
    const file = new Blob([withLink(await told.text(), bare, state.link)], { type: "text/calendar" });
    const anchor = document.createElement("a");
    anchor.href = URL.createObjectURL(file);
    anchor.download = `meeting-${number}.ics`;
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(anchor.href), 10_000);
  });
  for (const form of document.querySelectorAll('form[action$="/cancel"]')) {
    form.addEventListener("submit", () => form.dataset.agreed && forget(number));
  }
}
