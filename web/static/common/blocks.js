/** Markdown in blocks: paragraphs, headings, lists, quotes, code, tables. A tree, no markup.
 *
 * Every line keeps its place in the source, so that what is selected in a drawn answer is known as
 * characters of the answer. The subset of CommonMark and GitHub's tables that models write.
 */

/**
 * @typedef {{text: string, at: number}} Line `at`: units of the source before its first.
 * @typedef {{type: "paragraph" | "code" | "heading", lines: Line[], level?: number}
 *   | {type: "rule"}
 *   | {type: "quote", blocks: Block[]}
 *   | {type: "list", ordered: boolean, first: number, items: Block[][]}
 *   | {type: "table", head: Line[], rows: Line[][]}} Block
 */

const FENCE = /^ {0,3}(`{3,}|~{3,})/;
const HEADING = /^ {0,3}(#{1,6})\s+/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])( +|$)/;
const DELIMITERS = /^\|?\s{0,9}:?-+:?\s{0,9}(\|\s{0,9}:?-+:?\s{0,9})*\|?$/;
const DEEPEST = 8; // beyond, what looks like nesting is text: thousands of `>` must not exhaust the stack

/** @param {string} source @returns {Block[]} */
export function parseBlocks(source) {
  /** @type {Line[]} */
  const lines = [];
  let at = 0;
  for (const text of source.split("\n")) {
    lines.push({ text: text.replace(/\r$/, ""), at });
    at += text.length + 1;
  }
  return blocksOf(lines, 0);
}

/** @param {Line[]} lines @param {number} depth @returns {Block[]} */
function blocksOf(lines, depth) {
  /** @type {Block[]} */
  const blocks = [];
  let next = 0;
  while (next < lines.length) {
    if (!lines[next].text.trim()) {
      next += 1;
      continue;
    }
    const { block, end } = blockAt(lines, next, depth);
    blocks.push(block);
    next = end;
  }
  return blocks;
}

/** @param {Line[]} lines @param {number} from @param {number} depth @returns {{block: Block, end: number}} */
function blockAt(lines, from, depth) {
  const { text } = lines[from];
  if (FENCE.test(text)) return fence(lines, from);
  if (RULE.test(text)) return { block: { type: "rule" }, end: from + 1 };
  const heading = HEADING.exec(text);
  if (heading) {
    const line = cut(lines[from], heading[0].length);
    line.text = line.text.replace(/\s#+\s*$/, "");
    return { block: { type: "heading", level: heading[1].length, lines: [line] }, end: from + 1 };
  }
  if (depth < DEEPEST && QUOTE.test(text)) return quote(lines, from, depth);
  if (depth < DEEPEST && ITEM.test(text)) return list(lines, from, depth);
  if (text.includes("|") && DELIMITERS.test(lines[from + 1]?.text.trim() ?? "")) return table(lines, from);
  return paragraph(lines, from, depth);
}

/** @param {Line[]} lines @param {number} from @returns {{block: Block, end: number}} */
function fence(lines, from) {
  const [, mark] = /** @type {RegExpExecArray} */ (FENCE.exec(lines[from].text));
  const closing = new RegExp(`^ {0,3}${mark[0]}{${mark.length},}\\s*$`);
  let end = from + 1;
  while (end < lines.length && !closing.test(lines[end].text)) end += 1;
  return { block: { type: "code", lines: lines.slice(from + 1, end) }, end: end + 1 };
}

/** @param {Line[]} lines @param {number} from @param {number} depth @returns {{block: Block, end: number}} */
function quote(lines, from, depth) {
  const inner = [];
  let end = from;
  for (; end < lines.length && lines[end].text.trim(); end += 1) {
    inner.push(cut(lines[end], QUOTE.exec(lines[end].text)?.[0].length ?? 0));
  }
  return { block: { type: "quote", blocks: blocksOf(inner, depth + 1) }, end };
}

/** @param {Line[]} lines @param {number} from @param {number} depth @returns {{block: Block, end: number}} */
function list(lines, from, depth) {
  const [, , sign] = /** @type {RegExpExecArray} */ (ITEM.exec(lines[from].text));
  const kind = sign.at(-1);
  const items = [];
  let end = from;
  while (end < lines.length) {
    const start = ITEM.exec(lines[end].text);
    if (!start || start[2].at(-1) !== kind || RULE.test(lines[end].text)) break;
    const indent = start[1].length + start[2].length + Math.min(Math.max(start[3].length, 1), 4);
    const inner = [cut(lines[end], Math.min(indent, lines[end].text.length))];
    for (end += 1; end < lines.length; end += 1) {
      const { text } = lines[end];
      const deeper = indentOf(text) >= Math.min(indent, start[1].length + 2);
      const blank = !text.trim();
      if (blank && indentOf(lines[end + 1]?.text ?? "") < 2) break;
      if (!blank && !deeper && (interrupts(text) || !lines[end - 1].text.trim())) break;
      inner.push(cut(lines[end], Math.min(indent, indentOf(text))));
    }
    items.push(blocksOf(inner, depth + 1));
    let after = end;
    while (after < lines.length && !lines[after].text.trim()) after += 1;
    if (after < lines.length && ITEM.test(lines[after].text)) end = after; // a loose list
  }
  const first = Number.parseInt(sign, 10);
  const ordered = !Number.isNaN(first);
  return { block: { type: "list", ordered, first: ordered ? first : 1, items }, end };
}

/** @param {Line[]} lines @param {number} from @returns {{block: Block, end: number}} */
function table(lines, from) {
  let end = from + 2;
  while (end < lines.length && lines[end].text.includes("|")) end += 1;
  const rows = lines.slice(from + 2, end).map(cells);
  return { block: { type: "table", head: cells(lines[from]), rows }, end };
}

/** @param {Line} line @returns {Line[]} */
function cells({ text, at }) {
  const found = [];
  // A `|` in a code span or behind a backslash is none.
  for (const { 0: cell, index } of text.matchAll(/(?:`[^`]*`|\\.|[^|\\`]|`)+/g)) {
    if (!cell.trim() && (index === 0 || index + cell.length === text.length)) continue;
    const before = cell.length - cell.trimStart().length;
    found.push({ text: cell.trim(), at: at + index + before });
  }
  return found;
}

/** @param {Line[]} lines @param {number} from @param {number} depth @returns {{block: Block, end: number}} */
function paragraph(lines, from, depth) {
  let end = from + 1;
  while (end < lines.length && lines[end].text.trim()) {
    if (depth < DEEPEST && interrupts(lines[end].text)) break;
    end += 1;
  }
  const inner = lines.slice(from, end).map((line) => cut(line, indentOf(line.text)));
  return { block: { type: "paragraph", lines: inner }, end };
}

/** @param {string} text Whether a line ends the paragraph before it. */
function interrupts(text) {
  return [FENCE, HEADING, RULE, QUOTE, ITEM].some((start) => start.test(text));
}

/** @param {string} text */
function indentOf(text) {
  return text.length - text.trimStart().length;
}

/** @param {Line} line @param {number} units @returns {Line} */
function cut({ text, at }, units) {
  return { text: text.slice(units), at: at + units };
}
