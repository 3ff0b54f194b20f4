/** A table with its files. Whatever is in it comes from corpora and ledgers: text, never markup. */

import { addressOf, filters, viewName } from "./address.js";
import { file } from "./server.js";
import { shown } from "./words.js";

const NUMBERS = new Set(["number", "count", "share"]);

/**
 * @param {import("./server.js").Table} table
 * @param {(problem: Error) => void} failed
 * @returns {HTMLElement}
 */
export function listed(table, failed) {
  const template = /** @type {HTMLTemplateElement} */ (document.querySelector("#table"));
  const node = /** @type {HTMLElement} */ (template.content.firstElementChild.cloneNode(true));
  node.dataset.table = table.name;
  node.querySelector("h3").textContent = table.title;
  node.querySelector(".hint").textContent = table.says;
  node.querySelector(".scroll").setAttribute("aria-label", table.title);
  const head = node.querySelector("thead tr");
  for (const column of table.columns) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = column.title;
    cell.classList.toggle("number", NUMBERS.has(column.kind));
    head.append(cell);
  }
  const body = node.querySelector("tbody");
  for (const row of table.rows) body.append(line(row, table.columns));
  const none = table.rows.length === 0;
  /** @type {HTMLElement} */ (node.querySelector(".empty")).hidden = !none;
  /** @type {HTMLElement} */ (node.querySelector(".scroll")).hidden = none;
  node.querySelector(".count").textContent =
    table.rows.length < table.total
      ? `${table.rows.length} of ${table.total} rows are shown; a file has all.`
      : `${table.total} rows.`;
  for (const button of node.querySelectorAll("button")) {
    button.setAttribute("aria-label", `${table.title} as ${button.textContent}`);
    button.addEventListener("click", () => save(table.name, button.dataset.form, failed));
  }
  return node;
}

/** @param {Array<?(number|string)>} row @param {import("./server.js").Column[]} columns */
function line(row, columns) {
  const node = document.createElement("tr");
  columns.forEach((column, place) => {
    const cell = document.createElement("td");
    cell.classList.toggle("number", NUMBERS.has(column.kind));
    cell.dir = "auto";
    cell.append(content(row[place], column.kind));
    node.append(cell);
  });
  return node;
}

/** @param {?(number|string)} value @param {string} kind @returns {Node} */
export function content(value, kind) {
  const text = document.createTextNode(shown(value, kind));
  if (typeof value !== "string" || (kind !== "document" && kind !== "owner")) return text;
  const link = document.createElement("a");
  link.href = addressOf(kind, value);
  link.append(text);
  return link;
}

/** @param {string} table @param {string} form @param {(problem: Error) => void} failed */
async function save(table, form, failed) {
  try {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await file(viewName(), table, form, filters()));
    link.download = `${table}.${form}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  } catch (problem) {
    failed(problem);
  }
}
