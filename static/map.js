// The map of a model: one stop of the Tab key, arrow keys from cell to cell, and what is known of a
// cell beside it.
"use strict";
const tip = new WA.Tip("tooltip");
// What cells can be coloured by: the name, and where a cell holds its number.
const measures = [...document.querySelectorAll("input[name=measure]")].map((input) => (
  { input, key: input.dataset.number, name: document.querySelector(`label[for=${input.id}]`).textContent }));

const line = (...content) => {
  const made = document.createElement("p");
  made.append(...content);
  return made;
};
const strong = (tag, text) => Object.assign(document.createElement(tag), { textContent: text });

let told = null;
const hide = () => {
  told?.removeAttribute("aria-describedby");
  told = null;
  tip.hide();
};
const tell = (cell) => {
  if (cell === told) return;
  hide();
  told = cell;
  // The browser's own tooltip would come on top of this one.
  cell.dataset.said ??= cell.title;
  cell.removeAttribute("title");
  const numbers = measures.filter(({ key }) => key in cell.dataset).map(({ input, key, name }) => {
    const row = line(name, strong("b", cell.dataset[key]));
    row.classList.toggle("chosen", input.checked);
    return row;
  });
  const labels = cell.dataset.said.split("\n").filter(Boolean).map((text) => {
    const row = line(strong("bdi", text));
    row.className = "label";
    return row;
  });
  tip.show(cell, line(strong("code", cell.textContent)), ...numbers, ...labels);
  cell.setAttribute("aria-describedby", tip.box.id);
};
addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

for (const table of document.querySelectorAll("table[data-cells]")) {
  const rows = [...table.tBodies[0].rows].map((row) => [...row.cells].slice(1));
  const link = (row, column) => rows[row]?.[column]?.firstElementChild;
  const links = rows.flat().map((cell) => cell.firstElementChild).filter(Boolean);
  let stop = links[0];
  for (const one of links) if (one !== stop) one.tabIndex = -1;

  // The next cell with a direction that way, over gaps.
  const beside = (row, column, down, right) => {
    do { row += down; column += right; } while (rows[row] && column in rows[row] && !link(row, column));
    return link(row, column);
  };

  table.addEventListener("pointerover", (event) => {
    const own = event.target.closest("td a");
    if (own) tell(own);
    else hide();
  });
  table.addEventListener("pointerleave", hide);
  table.addEventListener("focusout", hide);
  table.closest(".wide").addEventListener("scroll", hide, { passive: true });

  table.addEventListener("focusin", (event) => {
    const own = event.target.closest("a");
    if (own?.matches(":focus-visible")) requestAnimationFrame(() => { if (own === document.activeElement) tell(own); });
    if (!own || own === stop) return;
    stop.tabIndex = -1;
    own.tabIndex = 0;
    stop = own;
  });

  table.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const cell = event.target.closest("td");
    const row = rows.findIndex((cells) => cells.includes(cell));
    if (row < 0) return;
    const column = rows[row].indexOf(cell);
    const found = {
      ArrowUp: () => beside(row, column, -1, 0),
      ArrowDown: () => beside(row, column, 1, 0),
      ArrowLeft: () => beside(row, column, 0, -1),
      ArrowRight: () => beside(row, column, 0, 1),
      Home: () => link(row, 0) ?? beside(row, 0, 0, 1),
      End: () => link(row, rows[row].length - 1) ?? beside(row, rows[row].length - 1, 0, -1),
    }[event.key];
    if (!found) return;
    event.preventDefault();
    found()?.focus();
  });
}
