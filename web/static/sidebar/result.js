/** An answer of the service as the sidebar shows it. */

import { copy, one } from "../common/dom.js";
import { STANDS_OUT, count, duration } from "../common/words.js";
import { templates } from "./assets.js";
import { Card } from "./card.js";
import { folded } from "./duplicates.js";
import { drawOwners } from "./owners.js";

/**
 * @typedef {import("../common/server.js").Attribution} Attribution
 * @typedef {import("../common/server.js").Hit} Hit
 * @typedef {import("./card.js").Actions & {choose: (owner: string) => void, weakOpened: () => void}} Actions
 */

/**
 * @param {Attribution} found
 * @param {string} response
 * @param {Actions} actions
 * @returns {{view: HTMLElement, cards: Card[], spoken: string}}
 */
export function draw(found, response, actions) {
  const view = copy(templates, "result");
  const { query, proponents, opponents, owners } = found;
  const spoken = query.message || verdict(proponents);
  one(view, ".message").textContent = spoken;
  one(view, ".measured").textContent = measured(found);
  view.classList.toggle("nothing", !query.stands_out);

  const largest = Math.max(0, ...[...proponents, ...opponents].map(size));
  /** @type {Card[]} */
  const cards = [];
  /** @param {string} side @param {Hit[]} hits */
  const fill = (side, hits) => {
    const drawn = folded(hits).map((group) => {
      const card = new Card(group, largest, response, actions);
      cards.push(card);
      return { card, strong: !query.stands_out || group.hit.confidence >= STANDS_OUT };
    });
    place(one(view, side), drawn);
  };
  fill(".proponents", proponents);
  fill(".opponents", opponents);
  drawOwners(one(view, ".owners"), owners, actions.choose);
  if (!query.stands_out) holdBack(view, actions.weakOpened);
  return { view, cards, spoken };
}

/** The hits that are shown unasked. @param {Attribution} found */
export function strongHits({ query, proponents, opponents }) {
  const hits = [...proponents, ...opponents];
  return query.stands_out ? hits.filter(({ confidence }) => confidence >= STANDS_OUT) : [];
}

/**
 * Ten documents are always nearest to anything: shown unasked they would pass for a finding.
 * @param {HTMLElement} view
 * @param {() => void} opened
 */
function holdBack(view, opened) {
  const weak = one(view, ".weak");
  weak.hidden = false;
  weak.append(...[".key", ".shading", ".hits", ".owners"].map((part) => one(view, part)));
  weak.addEventListener("toggle", opened, { once: true });
}

/**
 * What stands out is listed; the rest of a side is folded.
 * @param {HTMLElement} section
 * @param {{card: Card, strong: boolean}[]} drawn
 */
function place(section, drawn) {
  const weak = drawn.filter(({ strong }) => !strong);
  for (const { card, strong } of drawn) one(section, strong ? "ol.strong" : "ol.faint").append(card.node);
  const listed = drawn.length - weak.length;
  one(section, ".none").hidden = listed > 0;
  one(section, ":scope > details").hidden = weak.length === 0;
  const more = listed > 0 ? " more" : "";
  const verb = weak.length === 1 ? "does" : "do";
  one(section, ":scope > details > summary").textContent =
    `Show ${weak.length}${more} that ${verb} not stand out`;
}

/** @param {Hit} hit */
function size({ relative_influence }) {
  return Math.abs(relative_influence);
}

/** @param {Hit[]} proponents */
function verdict(proponents) {
  const strong = proponents.filter((hit) => hit.confidence >= STANDS_OUT);
  if (strong.length === 0) return "No passage stands out as a proponent.";
  const [{ title, document_id }] = strong;
  const first = title || document_id;
  return strong.length === 1
    ? `One passage stands out: “${first}”`
    : `${strong.length} passages stand out, first of all “${first}”`;
}

/** @param {Attribution} found */
function measured({ query, index, timings_ms, cached }) {
  const total = Object.values(timings_ms).reduce((sum, part) => sum + part, 0);
  const unit = query.measurement === "contrast" ? "compared" : "of response";
  return [
    `${count(query.tokens, "token")} ${unit}, ${query.loss_nats.toFixed(1)} nats`,
    index.exact ? "exact search" : "approximate search",
    cached ? "from the cache" : duration(total),
  ].join(" · ");
}
