// Shows a direction out of the script that it shares with its neighbours: in a page of its own, or
// in the page of all directions that have none. builder/pages/layout.py says what a shard holds.
"use strict";
{
  const SCRIPTS = ["direction", "charts", "tip", "examples", "copy"];
  const shell = document.querySelector("[data-shell]");
  const name = shell
    ? new URLSearchParams(location.search).get("d") ?? ""
    : location.pathname.split("/").pop().replace(/\.html$/, "");

  const fail = (text) => {
    const place = shell ?? document.querySelector(".poles");
    const note = document.createElement("p");
    note.className = "note warn";
    note.textContent = text;
    if (shell) shell.replaceChildren(note);
    else place.prepend(note);
  };

  // The main part of the page, as if it had come with it, and the scripts that fill it.
  const put = async (title, html) => {
    document.title = title;
    document.getElementById("content").innerHTML = WA.html(html);
    await Promise.all(SCRIPTS.map((script) => WA.load(`../../static/${script}.js`)));
  };

  // A place in the page that was named before the page was there.
  const goTo = (anchor) => {
    const target = anchor && document.getElementById(anchor);
    if (target && !target.matches(".example")) target.scrollIntoView();
  };

  WA.shard = async (size, letters) => {
    const found = WA.parts(await WA.inflate(size, letters));
    const at = found.names.indexOf(name);
    if (at < 0) {
      fail(`The file that should hold ${name} is of another build of this site.`);
      return;
    }
    if (shell) await put(found.titles[at], new TextDecoder().decode(found.html[at]));
    WA.show(WA.read(found.content[at]));
    if (shell) goTo(location.hash.slice(1));
  };

  const find = async () => {
    let names = [];
    WA.names = async (size, letters) => {
      names = WA.inflate(size, letters).then((bytes) => new TextDecoder().decode(bytes).split("\n"));
    };
    await WA.load("names.js");
    const at = (await names).indexOf(name);
    if (at < 0) throw new Error(name ? `This model has no direction ${name}.` : "The address names no direction.");
    await WA.load(`s/${Math.floor(at / Number(shell.dataset.shell)) + 1}.js`);
  };
  if (shell) find().catch((error) => fail(error.message));
}
