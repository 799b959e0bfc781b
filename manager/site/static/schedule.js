// Scheduling: the meeting's password is made here and kept in this browser until the meeting's page reads it. The form is sent without it.

import { keepFresh, newPassword } from "./secret.js";

const form = document.querySelector("form[data-schedule]");
const own = form.querySelector("[data-own]");
const field = document.getElementById("own-password");
const choice = () => form.querySelector('input[name="secret"]:checked').value;

const show = () => {
  own.hidden = choice() !== "own";
};
form.addEventListener("change", show);
show();

form.addEventListener("submit", async (event) => {
  if (form.dataset.ready) {
    return;
  }
  event.preventDefault();
  const kind = choice();
  if (kind === "own" && !field.value.trim()) {
    field.setAttribute("aria-invalid", "true");
    field.focus();
    return;
  }
  const password = kind === "words" ? await newPassword() : kind === "own" ? field.value.trim().normalize("NFC") : "";
  keepFresh(password);
  form.dataset.ready = "yes";
  form.requestSubmit(event.submitter);
});
