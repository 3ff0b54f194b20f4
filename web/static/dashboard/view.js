/** A view as the server tells it: facts, a text, figures, tables. */

import { drawn } from "./figure.js";
import { content, listed } from "./table.js";

/**
 * @param {import("./server.js").View} view
 * @param {(problem: Error) => void} failed Told when a file cannot be had.
 * @returns {HTMLElement}
 */
export function answer(view, failed) {
  const template = /** @type {HTMLTemplateElement} */ (document.querySelector("#answer"));
  const node = /** @type {HTMLElement} */ (template.content.firstElementChild.cloneNode(true));
  node.querySelector(".title").textContent = view.title;
  node.querySelector(".says").textContent = view.says;
  for (const why of view.missing) {
    const item = document.createElement("li");
    item.textContent = why;
    node.querySelector(".missing").append(item);
  }
  for (const fact of view.facts) node.querySelector(".facts").append(told(fact));
  const text = /** @type {HTMLElement} */ (node.querySelector(".text"));
  text.hidden = view.text === null;
  text.textContent = view.text;
  node.querySelector(".figures").append(...view.figures.map(drawn));
  node.querySelector(".tables").append(...view.tables.map((table) => listed(table, failed)));
  return node;
}

/** @param {import("./server.js").Fact} fact */
function told(fact) {
  const node = document.createElement("div");
  const name = document.createElement("dt");
  const value = document.createElement("dd");
  const says = document.createElement("dd");
  name.textContent = fact.title;
  value.className = "value";
  value.dir = "auto";
  value.append(content(fact.value, fact.kind));
  says.className = "hint";
  says.textContent = fact.says;
  node.append(name, value, says);
  return node;
}
