/** A view as the server tells it: facts, a text, figures, tables. */

import { copy, element, one } from "../common/dom.js";
import { drawn } from "./figure.js";
import { content, listed } from "./table.js";

/**
 * @param {import("./views.js").View} view
 * @param {(problem: Error) => void} failed Told when a file cannot be had.
 * @returns {HTMLElement}
 */
export function answer(view, failed) {
  const node = copy(document, "answer");
  one(node, ".title").textContent = view.title;
  one(node, ".says").textContent = view.says;
  one(node, ".missing").append(...view.missing.map((why) => element("li", why)));
  one(node, ".facts").append(...view.facts.map(told));
  one(node, ".text").hidden = view.text === null;
  one(node, ".text").textContent = view.text;
  one(node, ".figures").append(...view.figures.map(drawn));
  one(node, ".tables").append(...view.tables.map((table) => listed(table, failed)));
  return node;
}

/** @param {import("./views.js").Fact} fact */
function told({ title, value, kind, says }) {
  const node = element("div", "");
  const shown = element("dd", "", "value");
  shown.dir = "auto";
  shown.append(content(value, kind));
  node.append(element("dt", title), shown, element("dd", says, "hint"));
  return node;
}
