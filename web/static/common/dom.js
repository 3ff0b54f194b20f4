/** Elements out of templates; text goes in as text, never as markup. */

/**
 * The element that a selector names below a root. A template without it is a bug.
 * @template {HTMLElement} [T=HTMLElement]
 * @param {ParentNode} root
 * @param {string} selector
 * @returns {T}
 */
export function one(root, selector) {
  const found = root.querySelector(selector);
  if (found === null) throw new Error(`nothing on the page is ${selector}`);
  return /** @type {T} */ (found);
}

/**
 * A fresh copy of the first element of a template.
 * @template {HTMLElement} [T=HTMLElement]
 * @param {ParentNode} root Where the template is.
 * @param {string} id
 * @returns {T}
 */
export function copy(root, id) {
  const template = /** @type {HTMLTemplateElement} */ (one(root, `template#${id}`));
  return /** @type {T} */ (document.importNode(template.content, true).firstElementChild);
}

/**
 * An element with text in it.
 * @param {string} tag
 * @param {string} text
 * @param {string} [className]
 */
export function element(tag, text, className = "") {
  const node = document.createElement(tag);
  node.textContent = text;
  if (className) node.className = className;
  return node;
}

/**
 * Only web addresses become links: a corpus may hold `javascript:` ones.
 * @param {?string} url
 */
export function safeAddress(url) {
  if (!url || !URL.canParse(url)) return null;
  return ["http:", "https:"].includes(new URL(url).protocol) ? url : null;
}

/**
 * A link that leads away in a tab of its own and says nothing of where it was.
 * @param {string} address
 * @param {string} text
 */
export function outwardLink(address, text) {
  const link = document.createElement("a");
  link.href = address;
  link.rel = "noopener noreferrer";
  link.target = "_blank";
  link.textContent = text;
  return link;
}
