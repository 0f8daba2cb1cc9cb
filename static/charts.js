// The charts of a direction's page: tokens by activation, and how its extremes grew with the corpus.
"use strict";
{
  const { ROLES, signed, whole } = WA;
  const LEVELS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_";
  const WIDTH = 560, HEIGHT = 96, FLOOR = 74, TOP = 6;
  const draw = (name, attributes, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text) element.textContent = text;
    return element;
  };

  // Values of the examples of a role, of each pole.
  const spans = (examples, role) => [0, 1].map((pole) =>
    examples.filter((row) => row[0] === pole && row[1] === role).map((row) => row[3]));

  const chart = ([role, tokens, mean, low, high, heights], examples) => {
    const x = (value) => Math.min(1, Math.max(0, (value - low) / (high - low))) * WIDTH;
    const step = WIDTH / heights.length;
    const outline = [...heights].map((letter, at) => {
      const y = FLOOR - LEVELS.indexOf(letter) / (LEVELS.length - 1) * (FLOOR - TOP);
      return `H${(at * step).toFixed(1)}V${y.toFixed(1)}`;
    }).join("");
    const svg = draw("svg", {
      class: "plot hist", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img",
      "aria-label": `${whole(tokens)} tokens, activations from ${signed(low, 3)} to ${signed(high, 3)}, mean ${signed(mean, 3)}`,
      "data-low": low, "data-high": high,
    });
    svg.append(
      draw("path", { class: "area", d: `M0 ${FLOOR}${outline}H${WIDTH}V${FLOOR}Z` }),
      draw("path", { class: "axis", d: `M0 ${FLOOR}H${WIDTH}` }),
      draw("path", { class: "mean", d: `M${x(mean).toFixed(1)} ${TOP}V${FLOOR}` }),
    );
    spans(examples, role).forEach((values, pole) => {
      if (!values.length) return;
      const left = x(Math.min(...values)), right = x(Math.max(...values));
      svg.append(draw("rect", {
        class: pole ? "min" : "max", x: Math.max(0, left - 1.5).toFixed(1), y: FLOOR + 3,
        width: Math.max(3, right - left + 3).toFixed(1), height: 4,
      }));
    });
    svg.append(
      draw("text", { x: 0, y: HEIGHT - 2, class: "s" }, signed(low, 2)),
      draw("text", { x: WIDTH, y: HEIGHT - 2, class: "e" }, signed(high, 2)),
      draw("path", { class: "at", d: `M-9 0V${FLOOR + 8}` }),
    );
    const figure = document.createElement("figure");
    figure.className = "chart";
    figure.dataset.of = ROLES[role];
    const caption = document.createElement("figcaption");
    const size = document.createElement("small");
    size.textContent = `${whole(tokens)} tokens`;
    caption.append(ROLES[role], " ", size);
    figure.append(caption, svg);
    return figure;
  };

  // Every share of the corpus is twice the one to its left.
  const growth = (pole, documents, extremes) => {
    const last = Math.log2(Math.max(2, documents.at(-1)));
    const low = Math.min(...extremes), high = Math.max(...extremes);
    const points = extremes.map((value, at) => {
      const x = 8 + Math.log2(Math.max(1, documents[at])) / last * (WIDTH - 16);
      const y = 8 + (high - value) / (high - low || 1) * (HEIGHT - 42);
      return `${x.toFixed(1)} ${y.toFixed(1)}`;
    });
    const svg = draw("svg", {
      class: "plot growth", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img",
      "aria-label": `extreme: ${signed(extremes[0], 3)} in ${whole(documents[0])} documents, ${signed(extremes.at(-1), 3)} in ${whole(documents.at(-1))}`,
    });
    svg.append(
      draw("path", { class: "axis", d: `M0 ${HEIGHT - 20}H${WIDTH}` }),
      draw("path", { class: `line ${pole}`, d: `M${points.join("L")}h0` }),
      draw("path", { class: `dots ${pole}`, d: points.map((point) => `M${point}h0`).join("") }),
      draw("text", { x: 0, y: HEIGHT - 4, class: "s" }, "1"),
      draw("text", { x: WIDTH, y: HEIGHT - 4, class: "e" }, `${whole(documents.at(-1))} documents`),
    );
    return svg;
  };

  WA.charts = ({ histograms, examples, growth: grown }) => {
    document.querySelector("[data-histograms]")?.replaceChildren(
      ...histograms.map((row) => chart(row, examples)));
    for (const [pole, documents, extremes] of grown) {
      const name = pole ? "min" : "max";
      document.querySelector(`[data-growth=${name}]`)?.append(growth(name, documents, extremes));
    }
  };
}
