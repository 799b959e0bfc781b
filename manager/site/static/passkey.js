// Passkeys (WebAuthn level 3). The server's options are JSON; the browser converts them to and fro.

for (const form of document.querySelectorAll("form[data-passkey]")) {
  const said = form.querySelector("[data-said]");
  form.addEventListener("submit", async (event) => {
    if (form.elements.answer.value) {
      return;
    }
    event.preventDefault();
    said.hidden = true;
    try {
      form.elements.answer.value = JSON.stringify(await answer(form.dataset.passkey, form.dataset.options));
    } catch (error) {
      said.textContent = error instanceof TypeError ? form.dataset.missing : form.dataset.failed;
      said.hidden = false;
      return;
    }
    form.requestSubmit(event.submitter);
  });
}

async function answer(kind, address) {
  const told = await fetch(address, { method: "POST", headers: { "content-type": "application/json" }, body: "{}" });
  if (!told.ok) {
    throw new Error(`options: ${told.status}`);
  }
  const options = await told.json();
  const credential =
    kind === "create"
      ? await navigator.credentials.create({ publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(options) })
      : await navigator.credentials.get({ publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(options) });
  return credential.toJSON();
}
