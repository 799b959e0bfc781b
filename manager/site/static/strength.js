// How guessable a password looks, while it is typed. The server judges again, with a dictionary; nothing leaves this page meanwhile.

const WORST = /pass|word|qwert|azert|admin|welcome|letme|bonjour|soleil|1234|abcd|monkey|dragon|parley/gi;

export function bits(password) {
  const bare = password.replace(WORST, "").replace(/(.)\1+/gu, "$1").replace(/(19|20)\d\d/g, "0");
  const kinds = [/\p{Ll}/u, /\p{Lu}/u, /\p{Nd}/u, /[^\p{L}\p{Nd}]/u];
  const size = [26, 26, 10, 33].reduce((sum, each, at) => sum + (kinds[at].test(bare) ? each : 0), 0);
  return [...bare].length * Math.log2(Math.max(size, 2)) * 0.8;
}


for (const field of document.querySelectorAll("input[data-strength]")) {
  const meter = document.createElement("meter");
  Object.assign(meter, { min: 0, max: 4, low: 2, high: 3, optimum: 4, value: 0 });
  meter.setAttribute("aria-label", field.dataset.strength);
  const words = field.dataset.scores.split("|");
  const said = document.createElement("p");
  said.className = "hint";
  said.setAttribute("role", "status");
  field.after(meter, said);
  meter.hidden = said.hidden = true;
  field.addEventListener("input", () => {
    const score = Math.min(4, Math.floor(bits(field.value) / 16));
    meter.hidden = said.hidden = !field.value;
    meter.value = Math.max(score, 0.2);
    said.textContent = words[score];
  });
}
