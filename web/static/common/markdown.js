/** Markdown drawn as nodes: what a model writes can be no markup, whatever it writes. */

import { parseBlocks } from "./blocks.js";
import { inline, placed } from "./inline.js";

/** @typedef {import("./blocks.js").Block} Block @typedef {import("./blocks.js").Line} Line */

/**
 * @param {string} source
 * @param {number} [topHeading] Level of the heading that `#` becomes.
 * @returns {Node[]}
 */
export function markdown(source, topHeading = 3) {
  return parseBlocks(source).map((block) => drawn(block, topHeading));
}

/** @param {Block} block @param {number} topHeading @returns {Node} */
function drawn(block, topHeading) {
  switch (block.type) {
    case "rule":
      return document.createElement("hr");
    case "code":
      return code(block.lines);
    case "heading": {
      const level = Math.min(6, (block.level ?? 1) + topHeading - 1);
      return filled(`h${level}`, running(block.lines));
    }
    case "quote":
      return filled("blockquote", block.blocks.map((inner) => drawn(inner, topHeading)));
    case "list":
      return list(block, topHeading);
    case "table":
      return table(block.head, block.rows);
    default:
      return filled("p", running(block.lines));
  }
}

/** @param {{ordered: boolean, first: number, items: Block[][]}} block @param {number} topHeading */
function list({ ordered, first, items }, topHeading) {
  const node = document.createElement(ordered ? "ol" : "ul");
  if (ordered && first !== 1) node.setAttribute("start", String(first));
  for (const item of items) {
    // A lone paragraph needs no space of its own.
    const lone = item.filter(({ type }) => type === "paragraph").length === 1;
    const inner = item.flatMap((block) =>
      block.type === "paragraph" && lone
        ? running(block.lines)
        : [drawn(block, topHeading)],
    );
    node.append(filled("li", inner));
  }
  return node;
}

/** @param {Line[]} head @param {Line[][]} rows */
function table(head, rows) {
  const node = document.createElement("table");
  const row = (/** @type {Line[]} */ cells, /** @type {string} */ tag) =>
    filled("tr", cells.map(({ text, at }) => filled(tag, inline(text, at))));
  node.append(filled("thead", [row(head, "th")]), filled("tbody", rows.map((cells) => row(cells, "td"))));
  const frame = filled("div", [node]);
  frame.className = "table";
  frame.tabIndex = 0; // it may be wider than the page, and is scrolled by keyboard too
  frame.setAttribute("role", "region");
  frame.setAttribute("aria-label", "Table");
  return frame;
}

/** @param {Line[]} lines */
function code(lines) {
  const inner = filled("code", lines.map(({ text, at }) => placed(`${text}\n`, at)));
  const node = filled("pre", [inner]);
  node.tabIndex = 0;
  return node;
}

/** Lines that run on; one that ends in two spaces or a backslash ends there. @param {Line[]} lines */
function running(lines) {
  return lines.flatMap(({ text, at }, i) => {
    const last = i === lines.length - 1;
    const broken = /(\\| {2,9})$/.exec(text);
    const nodes = inline(broken ? text.slice(0, broken.index) : text, at);
    if (last) return nodes;
    return [...nodes, broken ? document.createElement("br") : placed("\n", at + text.length)];
  });
}

/** @param {string} tag @param {Node[]} nodes */
function filled(tag, nodes) {
  const node = document.createElement(tag);
  node.append(...nodes);
  return node;
}
