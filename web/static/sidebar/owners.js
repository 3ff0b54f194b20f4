/** Whose data an answer is made of: one compact bar of shares, all totals behind it. */

import { copy, element, one } from "../common/dom.js";
import { nats, percent } from "../common/words.js";
import { templates } from "./assets.js";
import { bar } from "./card.js";

/** @typedef {import("../common/server.js").Owner} Owner */

const NAMED = 4; // in the bar; the rest is one part
const WORTH_NAMING = 0.01;

/**
 * @param {HTMLElement} section
 * @param {readonly Owner[]} owners
 * @param {(owner: string) => void} choose Called with the owner whose documents alone are wanted.
 */
export function drawOwners(section, owners, choose) {
  section.hidden = owners.length === 0;
  const parts = shares(owners);
  one(section, ".stack").append(
    ...parts.map(({ share }, position) => {
      const part = element("span", "", `owner-${position}`);
      part.style.setProperty("--share", String(share));
      return part;
    }),
  );
  one(section, ".shares").append(
    ...parts.map(({ owner, share, others }, position) => {
      const item = copy(templates, "share");
      const button = /** @type {HTMLButtonElement} */ (one(item, "button"));
      button.classList.add(`owner-${position}`);
      one(item, ".name").textContent = others ? `${others} others` : (owner ?? "No owner named");
      one(item, ".amount").textContent = percent(share);
      if (owner === null) button.disabled = true;
      else {
        button.title = `Only documents of ${owner}`;
        button.addEventListener("click", () => choose(owner));
      }
      return item;
    }),
  );
  drawTotals(one(section, "details ol"), owners);
}

/**
 * The positive shares, largest first, small ones as one.
 * @param {readonly Owner[]} owners
 * @returns {{owner: ?string, share: number, others?: number}[]}
 */
function shares(owners) {
  const positive = owners.filter(({ share }) => share > 0).sort((a, b) => b.share - a.share);
  const named = positive.filter(({ share }, i) => i < NAMED && share >= WORTH_NAMING);
  const rest = positive.slice(named.length);
  if (rest.length === 0) return named;
  const share = rest.reduce((sum, one) => sum + one.share, 0);
  return [...named, { owner: null, share, others: rest.length }];
}

/** @param {HTMLElement} list @param {readonly Owner[]} owners */
function drawTotals(list, owners) {
  const ordered = [...owners].sort((a, b) => Math.abs(b.influence) - Math.abs(a.influence));
  const largest = Math.abs(ordered[0]?.influence ?? 0);
  list.append(
    ...ordered.map(({ owner, influence, share }) => {
      const row = copy(templates, "owner");
      one(row, ".name").textContent = owner ?? "No owner named";
      const amount = [nats(influence), share > 0 && percent(share)];
      one(row, ".amount").textContent = amount.filter(Boolean).join(" · ");
      bar(one(row, ".bar"), influence, largest);
      return row;
    }),
  );
}
