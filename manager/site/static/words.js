// The word list of generated passwords (BIP-39, English, 2,048 words): the same as `parley schedule` draws from.

let words = null;

export async function wordlist() {
  if (!words) {
    const told = await fetch(new URL("words.txt", import.meta.url));
    words = (await told.text()).trim().split("\n");
  }
  return words;
}
