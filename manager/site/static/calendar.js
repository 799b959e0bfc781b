// A calendar entry (RFC 5545) with another link in it: unfold, replace, fold at 75 octets.

export function withLink(entry, bare, link) {
  const lines = entry.replace(/\r?\n[ \t]/g, "").split(/\r?\n/);
  return lines.map((line) => fold(line.replaceAll(bare, line.startsWith("DESCRIPTION") ? escaped(link) : link))).join("\r\n");
}

// text values escape these (3.3.11); a link has at most commas of them, which encodeURIComponent leaves to nobody
function escaped(text) {
  return text.replace(/[\\;,]/g, "\\$&");
}

function fold(line) {
  const octets = new TextEncoder();
  const parts = [];
  let part = "";
  let size = 0;
  for (const c of line) {
    const length = octets.encode(c).length;
    if (size + length > 75) {
      parts.push(part);
      part = "";
      size = 1; // the space in front
    }
    part += c;
    size += length;
  }
  return [...parts, part].join("\r\n ");
}
