/** A permalink to what the sidebar shows, to be copied. */

import { element, outwardLink } from "../common/dom.js";

/**
 * @param {HTMLElement} place
 * @param {string} link
 */
export function offerLink(place, link) {
  const button = /** @type {HTMLButtonElement} */ (element("button", "Copy link", "link"));
  button.type = "button";
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(link);
      button.textContent = "Copied";
    } catch {
      // Not every page may write to the clipboard: then the link is there to be copied by hand.
      place.replaceChildren(outwardLink(link, "Link to this attribution"));
    }
  });
  place.replaceChildren(button);
}
