/** One influence as a card, from <template id="influence">. Corpus text is never HTML. */

import { certainty, meaning, nats, signed } from "./words.js";

/** @typedef {import("./api.js").Hit} Hit */

/**
 * @param {Hit} hit
 * @param {number} largest The largest |relative influence| of this answer: the full length of a bar.
 * @returns {HTMLLIElement}
 */
export function card(hit, largest) {
  const node = /** @type {HTMLTemplateElement} */ (document.querySelector("#influence"))
    .content.firstElementChild.cloneNode(true);
  const put = (selector, text) => (node.querySelector(selector).textContent = text);

  put(".rank span:last-child", String(hit.rank));
  put(".title", hit.title || hit.document_id);
  put(".score", signed(hit.relative_influence));
  put(".meaning", meaning(hit.relative_influence));
  put(".confidence", `${certainty(hit.confidence)} · ${nats(hit.influence)}`);
  node.querySelector(".text").append(...paragraphs(hit.text));
  provenance(node.querySelector(".provenance"), hit);
  node.querySelector("article").classList.add(hit.relative_influence < 0 ? "against" : "for");
  bar(node.querySelector(".bar"), hit.relative_influence, largest);

  const button = node.querySelector(".expand");
  button.addEventListener("click", () => {
    const open = node.classList.toggle("open");
    button.setAttribute("aria-expanded", String(open));
    button.textContent = open ? "Show less" : "Show the whole passage";
  });
  return node;
}

/** Offer to unfold a passage only where something is hidden; needs the card on the page. */
export function offerToUnfold(node) {
  const text = node.querySelector(".text");
  node.querySelector(".expand").hidden = text.scrollHeight <= text.clientHeight + 1;
}

/** A bar that grows from the middle: to the right for what helped, to the left for what hurt. */
export function bar(node, value, largest) {
  node.classList.add(value < 0 ? "against" : "for");
  const share = largest > 0 ? Math.min(1, Math.abs(value) / largest) : 0;
  node.firstElementChild.style.setProperty("--share", String(share));
}

function paragraphs(text) {
  return text.split(/\n\s*\n/).map((part) => {
    const paragraph = document.createElement("p");
    paragraph.textContent = part;
    return paragraph;
  });
}

function provenance(node, { source, owner, licence, url, document_id }) {
  const parts = [source, owner && `Owner: ${owner}`, licence && `Licence: ${licence}`];
  for (const part of parts.filter(Boolean)) {
    const item = document.createElement("span");
    item.textContent = part;
    node.append(item);
  }
  const address = safeAddress(url);
  if (address) {
    const link = document.createElement("a");
    link.href = address;
    link.rel = "noopener noreferrer";
    link.target = "_blank";
    link.textContent = "Open the source";
    link.setAttribute("aria-label", `Open the source of ${document_id} in a new tab`);
    node.append(link);
  }
}

/** Only web addresses become links: a corpus may hold `javascript:` ones. */
function safeAddress(url) {
  if (!url || !URL.canParse(url)) return null;
  return ["http:", "https:"].includes(new URL(url).protocol) ? url : null;
}
