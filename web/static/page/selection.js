/** Which characters of an answer are selected in its drawn form, by mouse, touch or keyboard. */

import { codePoints, inUnits } from "../common/characters.js";
import { placeOf } from "../common/inline.js";

/** @typedef {{start: number, end: number}} Span Code points. */

/**
 * @param {HTMLElement} body Where Markdown was drawn.
 * @param {string} source
 * @returns {?Span} null where nothing of it is selected.
 */
export function selectedSpan(body, source) {
  const selection = window.getSelection();
  if (!selection || selection.isCollapsed || selection.rangeCount === 0) return null;
  const range = selection.getRangeAt(0);
  if (!body.contains(range.commonAncestorContainer)) return null;
  let start = Infinity;
  let end = -Infinity;
  for (const node of texts(body)) {
    if (!range.intersectsNode(node)) continue;
    const place = placeOf(node);
    if (place === undefined) continue;
    const from = node === range.startContainer ? range.startOffset : 0;
    const to = node === range.endContainer ? range.endOffset : node.data.length;
    if (to <= from) continue;
    start = Math.min(start, place + from);
    end = Math.max(end, place + to);
  }
  if (end <= start) return null;
  const text = source.slice(start, end);
  start += text.length - text.trimStart().length;
  end -= text.length - text.trimEnd().length;
  return end > start ? { start: codePoints(source, start), end: codePoints(source, end) } : null;
}

/**
 * Where some parts of the source are drawn. What Markdown does not draw, such as `**`, is nowhere; a
 * part that goes over the end of an element is in several places.
 * @template {Span} Part
 * @param {HTMLElement} body
 * @param {string} source
 * @param {readonly Part[]} parts
 * @returns {{part: Part, range: Range}[]}
 */
export function placesOf(body, source, parts) {
  const inOrder = inUnits(source, parts);
  return texts(body).flatMap((node) => {
    const place = placeOf(node);
    if (place === undefined) return [];
    const found = [];
    for (const part of inOrder) {
      const from = Math.max(0, part.start - place);
      const to = Math.min(node.data.length, part.end - place);
      if (from >= node.data.length) break;
      if (to <= from) continue;
      const range = new Range();
      range.setStart(node, from);
      range.setEnd(node, to);
      found.push({ part, range });
    }
    return found;
  });
}

/**
 * Arrow keys choose a word, with Shift more of them.
 * @param {KeyboardEvent} event
 * @param {HTMLElement} body
 * @returns {boolean} Whether the key was one of these.
 */
export function chooseByKey(event, body) {
  const direction = { ArrowRight: "forward", ArrowLeft: "backward" }[event.key];
  const selection = window.getSelection();
  if (!direction || !selection || event.ctrlKey || event.altKey || event.metaKey) return false;
  const inside = selection.rangeCount > 0 && body.contains(selection.anchorNode);
  if (!inside) selection.collapse(body, 0);
  if (event.shiftKey) selection.modify("extend", direction, "word");
  else chooseWord(selection, direction, inside);
  if (!body.contains(selection.focusNode)) selection.selectAllChildren(body);
  return true;
}

/** @param {Selection} selection @param {string} direction @param {boolean} inside */
function chooseWord(selection, direction, inside) {
  if (inside && direction === "forward") selection.collapseToEnd();
  else if (inside) selection.collapseToStart();
  if (direction === "backward") {
    selection.modify("move", "backward", "word");
    selection.modify("extend", "forward", "word");
    return;
  }
  selection.modify("extend", "forward", "word");
  if (!selection.toString().trim()) {
    selection.collapseToEnd();
    selection.modify("extend", "forward", "word");
  }
}

/** @param {HTMLElement} body @returns {Text[]} */
function texts(body) {
  const walker = document.createTreeWalker(body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) found.push(/** @type {Text} */ (walker.currentNode));
  return found;
}
