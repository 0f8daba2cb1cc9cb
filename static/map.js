// The map of a model: one stop of the Tab key, and arrow keys from cell to cell.
"use strict";
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

  table.addEventListener("focusin", (event) => {
    const own = event.target.closest("a");
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
