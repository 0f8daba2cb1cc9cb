// Opens the files that hold windows: letters that are gzip of a header and streams of bytes.
//
// builder/pages/packed.py writes them and says what is in them.
"use strict";
globalThis.WA ??= {};
{
  // 13 bits in two of 91 letters.
  const place = new Uint8Array(127);
  Array.from({ length: 94 }, (_, at) => 33 + at).filter((code) => !`"\\<`.includes(String.fromCharCode(code)))
    .forEach((code, at) => { place[code] = at; });
  const bytesOf = (size, letters) => {
    const bytes = new Uint8Array(size);
    let held = 0, bits = 0, at = 0;
    for (let index = 0; index < letters.length; index += 2) {
      held = held << 13 | 91 * place[letters.charCodeAt(index)] + place[letters.charCodeAt(index + 1)];
      for (bits += 13; bits >= 8; at += 1) {
        bits -= 8;
        bytes[at] = held >> bits & 255;
      }
      held &= (1 << bits) - 1;
    }
    return bytes;
  };

  const inflated = async (bytes) => {
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  };

  // What the letters of a file hold, as bytes.
  WA.inflate = (size, letters) => inflated(bytesOf(size, letters));

  // The JSON header that bytes begin with, and where it ends.
  const headed = (bytes) => {
    const end = 4 + new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
    return { header: JSON.parse(new TextDecoder().decode(bytes.subarray(4, end))), end };
  };

  // The bytes of a shard: names and titles of its directions, and what it holds of each.
  WA.parts = (bytes) => {
    const { header, end } = headed(bytes);
    let at = end;
    const cut = (lengths) => lengths.map((length) => bytes.subarray(at, at += length));
    return { ...header, html: cut(header.html), content: cut(header.content) };
  };

  // The header; each text as pieces of {text, first token, how many tokens}; activations by token.
  WA.read = (bytes) => {
    const { header, end } = headed(bytes);
    let at = end;
    const number = () => {
      let found = 0, shift = 0;
      for (; bytes[at] & 128; at += 1, shift += 7) found += (bytes[at] & 127) * 2 ** shift;
      found += bytes[at] * 2 ** shift;
      at += 1;
      return found;
    };
    const texts = header.texts.map(([text, count, unusual]) => {
      const several = new Map(unusual);
      const pieces = [];
      let cut = 0, token = 0;
      for (let index = 0; index < count; index += 1) {
        const end = cut + number();
        const tokens = several.get(index) ?? 1;
        pieces.push({ text: text.slice(cut, end), first: token, tokens });
        cut = end;
        token += tokens;
      }
      return { pieces, tokens: token };
    });
    const [low, high] = header.span;
    const values = (levels) => Float32Array.from(levels, (level) => low + level / 255 * (high - low));
    const rest = bytes.subarray(at);
    const half = header.base ? rest.length / 2 : rest.length;
    return {
      header, texts, tuned: values(rest.subarray(0, half)),
      base: header.base ? values(rest.subarray(half)) : null,
    };
  };

  WA.unpack = async (size, letters) => WA.read(await WA.inflate(size, letters));

  // Hidden characters come named between two U+0000, and are shown in boxes as those of the page.
  WA.boxed = (text) => text.split("\0").map((part, at) => {
    if (at % 2 === 0) return part;
    const [name, ...rest] = part.startsWith("U+") ? part.split(" ") : [part];
    const box = document.createElement("b");
    box.className = "cc";
    box.textContent = name;
    if (rest.length) box.title = rest.join(" ");
    return box;
  }).filter((part) => part !== "");
}
