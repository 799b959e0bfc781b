// Scheduling: the meeting's password is made here and kept in this browser until the meeting's page reads it. The form is sent without it.

import { keepFresh, newPassword, takeFresh } from "./secret.js";

const form = document.querySelector("form[data-schedule]");
const own = form.querySelector("[data-own]");
const field = document.getElementById("own-password");
const choice = () => form.querySelector('input[name="secret"]:checked').value;

const show = () => {
  own.hidden = choice() !== "own";
};
form.addEventListener("change", show);
show();

const typed = takeFresh(); // the form was refused: nothing that was typed is lost
if (typed && choice() === "own") {
  field.value = typed;
}

form.addEventListener("submit", async (event) => {
  const kind = choice();
  if (form.dataset.ready) {
    return;
  }
  if (kind === "own" && !field.value.trim()) {
    event.preventDefault();
    field.setAttribute("aria-invalid", "true");
    field.focus();
    return;
  }
  if (kind !== "words") {
    keepFresh(kind === "own" ? field.value.trim().normalize("NFC") : "");
    return;
  }
  event.preventDefault();
  keepFresh(await newPassword());
  form.dataset.ready = "yes";
  setTimeout(() => form.requestSubmit(event.submitter)); // a form that is still being sent is not sent again
});
addEventListener("pageshow", () => {
  delete form.dataset.ready; // who comes back gets a new password
});
