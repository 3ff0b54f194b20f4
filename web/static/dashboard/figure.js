/** A figure that the server has built, drawn by Plotly, which is loaded with the first one. */

import { copy, one } from "../common/dom.js";

const LIBRARY = "dashboard/plotly.min.js";
/** @type {?Promise<any>} */
let loading = null;

/**
 * @param {import("./views.js").Figure} figure
 * @returns {HTMLElement}
 */
export function drawn(figure) {
  const node = copy(document, "figure");
  node.dataset.figure = figure.name;
  one(node, "h3").textContent = figure.title;
  one(node, ".hint").textContent = figure.says;
  const plot = one(node, ".plot");
  plot.setAttribute("aria-label", figure.says);
  library().then(
    (Plotly) => {
      const ink = getComputedStyle(document.body).color;
      const layout = { ...figure.plot.layout, font: { color: ink } };
      return Plotly.newPlot(plot, figure.plot.data, layout, {
        responsive: true,
        displayModeBar: false,
      });
    },
    (error) => (plot.textContent = error.message),
  );
  return node;
}

/** @returns {Promise<any>} */
function library() {
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = LIBRARY;
    script.onload = () => resolve(Reflect.get(globalThis, "Plotly"));
    script.onerror = () => reject(new Error("The figures could not be drawn; the tables have the numbers."));
    document.head.append(script);
  });
  return loading;
}
