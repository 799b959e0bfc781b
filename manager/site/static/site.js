// On every page: small helps. Everything works without them but what must be made in the browser.

const shown = document.querySelector("[data-focus]");
if (shown) {
  (document.querySelector('[aria-invalid="true"]') ?? shown).focus();
}

// on a phone the navigation is wider than the screen: show where one is
function showWhere() {
  for (const here of document.querySelectorAll("nav [aria-current]")) {
    const row = here.closest("nav");
    row.scrollLeft = here.offsetLeft - row.clientWidth / 3;
  }
}
showWhere();
addEventListener("resize", showWhere); // it is turned

// copy buttons: say for a moment that it is done, also to a screen reader
const live = document.createElement("div");
live.className = "hidden-words";
live.setAttribute("role", "status");
document.body.append(live);

export async function copy(button, text) {
  await navigator.clipboard.writeText(text);
  const done = document.body.dataset.copied;
  const before = [...button.childNodes];
  button.replaceChildren(done);
  live.textContent = done;
  setTimeout(() => {
    button.replaceChildren(...before);
    live.textContent = "";
  }, 1600);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) {
    copy(button, button.dataset.copy);
  }
});

// what cannot be undone asks first; a form is sent once
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.confirm && !form.dataset.agreed) {
    event.preventDefault();
    ask(form, event.submitter);
  } else if (form.dataset.sent) {
    event.preventDefault();
  } else if (form.method === "post" && !event.defaultPrevented) {
    form.dataset.sent = "yes";
  }
});
addEventListener("pageshow", () => {
  for (const form of document.forms) {
    delete form.dataset.sent;
  }
});

function ask(form, submitter) {
  const dialog = document.createElement("dialog");
  const words = document.createElement("p");
  words.id = "asked";
  words.textContent = form.dataset.confirm;
  dialog.setAttribute("aria-labelledby", "asked");
  const back = document.createElement("button");
  back.textContent = document.body.dataset.back;
  back.autofocus = true;
  const go = document.createElement("button");
  go.textContent = submitter?.getAttribute("aria-label") ?? submitter?.textContent.trim() ?? "OK";
  go.className = "danger";
  const row = document.createElement("div");
  row.className = "row apart";
  row.append(back, go);
  const stack = document.createElement("div");
  stack.className = "stack";
  stack.append(words, row);
  dialog.append(stack);
  document.body.append(dialog);
  dialog.addEventListener("close", () => dialog.remove());
  back.addEventListener("click", () => dialog.close());
  go.addEventListener("click", () => {
    form.dataset.agreed = "yes";
    dialog.close();
    form.requestSubmit(submitter);
  });
  dialog.showModal();
}

// fields that only count with a certain choice
for (const select of document.querySelectorAll("[data-shows]")) {
  const show = () => {
    for (const part of document.querySelectorAll(`[data-with="${select.name}"]`)) {
      part.hidden = !part.dataset.values.split(" ").includes(select.value);
    }
  };
  select.addEventListener("change", show);
  show();
}

// a token that came behind the #: into the form that waits for it, and out of the address
const waiting = document.querySelector("[data-fragment]");
if (waiting) {
  if (location.hash.length > 1) {
    waiting.value = decodeURIComponent(location.hash.slice(1));
    history.replaceState(null, "", location.pathname + location.search);
  }
  waiting.closest(".field").hidden = Boolean(waiting.value) && !waiting.matches('[aria-invalid="true"]');
}

// the person's zone, where nothing better is known
const zoneHere = Intl.DateTimeFormat().resolvedOptions().timeZone;
for (const field of document.querySelectorAll("[data-zone-here]")) {
  if (field.type === "hidden" || [...field.options].some((option) => option.value === zoneHere)) {
    field.value = zoneHere;
  }
}

// changing the language keeps what stands behind the #; browsers carry it over a redirect, and tell no server
for (const form of document.querySelectorAll('form[action="/language"]')) {
  form.addEventListener("submit", () => {
    form.action = `/language${location.hash}`;
  });
}
