/** Markdown within a line: emphasis, code, links. Nodes, never markup; each text knows its place. */

import { outwardLink, safeAddress } from "./dom.js";

/** Units of the source before the first of a text node. @type {WeakMap<Node, number>} */
const places = new WeakMap();

const DEEPEST = 6;
// In order: an escaped sign, code, a link or an image, an address, strong, emphasis, struck out.
// Every repetition is bounded, so that no text makes the search take the square of its length.
const MARKS =
  /\\([!-/:-@[-`{-~])|(`{1,9})(?!`)([^\n]{0,999}?[^`\n])\2(?!`)|!?\[([^[\]\n]{0,500})\]\(([^()\s]{0,2000})(?:\s"[^"\n]{0,500}")?\)|(https?:\/\/[^\s<>()[\]"]{1,2000}[^\s<>()[\]".,;:!?'*_])|(\*\*|__)(?=\S)([^\n]{0,999}?\S)\7|(?<![\p{L}\p{N}])([*_])(?=[^\s*_])([^*_\n]{0,999}?[^\s*_])\9(?![\p{L}\p{N}])|(~~)(?=\S)([^\n~]{0,999}?\S)~~/gu;

/**
 * @param {string} text
 * @param {number} at Units of the source before it.
 * @param {number} [depth]
 * @returns {Node[]}
 */
export function inline(text, at, depth = 0) {
  /** @type {Node[]} */
  const nodes = [];
  let done = 0;
  for (const found of depth < DEEPEST ? text.matchAll(MARKS) : []) {
    const start = found.index;
    if (start > done) nodes.push(placed(text.slice(done, start), at + done));
    nodes.push(...marked(found, at + start, depth));
    done = start + found[0].length;
  }
  if (done < text.length) nodes.push(placed(text.slice(done), at + done));
  return nodes;
}

/** A text node that knows where in the source it is from. @param {string} text @param {number} at */
export function placed(text, at) {
  const node = document.createTextNode(text);
  places.set(node, at);
  return node;
}

/** Units of the source before a text node; undefined for one that is not from it. @param {Node} node */
export function placeOf(node) {
  return places.get(node);
}

/**
 * @param {RegExpMatchArray} found
 * @param {number} at
 * @param {number} depth
 * @returns {Node[]}
 */
function marked(found, at, depth) {
  const [all, escaped, tick, code, label, target, address, , strong, , emphasis, , struck] = found;
  /** @param {string} tag @param {string} text @param {number} before */
  const wrap = (tag, text, before) => {
    const node = document.createElement(tag);
    node.append(...inline(text, at + before, depth + 1));
    return [node];
  };
  if (escaped !== undefined) return [placed(escaped, at + 1)];
  if (tick !== undefined) {
    const node = document.createElement("code");
    node.append(placed(code, at + tick.length));
    return [node];
  }
  if (label !== undefined) {
    const before = all.indexOf("[") + 1;
    const inner = inline(label, at + before, depth + 1);
    const safe = all.startsWith("!") ? null : safeAddress(target); // an image asks another host
    return safe ? [link(safe, inner)] : inner;
  }
  if (address !== undefined) {
    const safe = safeAddress(address);
    const inner = [placed(address, at)];
    return safe ? [link(safe, inner)] : inner;
  }
  if (strong !== undefined) return wrap("strong", strong, 2);
  if (emphasis !== undefined) return wrap("em", emphasis, 1);
  return wrap("s", struck, 2);
}

/** @param {string} address @param {Node[]} inner */
function link(address, inner) {
  const node = outwardLink(address, "");
  node.append(...inner);
  return node;
}
