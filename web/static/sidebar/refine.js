/** Filter and ranking of an answer: what the server is asked beside prompt and response. */

import { element, one } from "../common/dom.js";

/**
 * @typedef {import("../common/server.js").Attribution} Attribution
 * @typedef {import("../common/server.js").Question} Question
 */

/** The choices; `changed` is called when somebody makes one. */
export class Refine {
  #details;
  #form;
  #changed;
  #sources = new Set();

  /**
   * @param {HTMLDetailsElement} details
   * @param {() => void} changed
   */
  constructor(details, changed) {
    this.#details = details;
    this.#form = /** @type {HTMLFormElement} */ (one(details, "form"));
    this.#changed = changed;
    this.#form.addEventListener("change", () => this.#form.reportValidity() && changed());
    this.#form.addEventListener("submit", (event) => event.preventDefault());
  }

  /** What is chosen, as a part of a question. @returns {Partial<Question>} */
  get question() {
    const { owner, source, ranking, top_k } = Object.fromEntries(new FormData(this.#form));
    const filter = {
      ...(owner && { owners: [String(owner)] }),
      ...(source && { sources: [String(source)] }),
    };
    return {
      top_k: Number(top_k),
      ranking: String(ranking),
      ...((owner || source) && { filter }),
    };
  }

  /** What is chosen, in words; empty where everything is compared. */
  get inWords() {
    const { owner, source } = Object.fromEntries(new FormData(this.#form));
    return [owner && `owner ${owner}`, source && `source ${source}`].filter(Boolean).join(", ");
  }

  /** Only the documents of one owner from now on. @param {string} owner */
  chooseOwner(owner) {
    this.#select("owner").value = owner;
    this.#details.open = true;
    this.#changed();
  }

  /** Forget the filter, without asking again. */
  clear() {
    this.#select("owner").value = "";
    this.#select("source").value = "";
  }

  /** Offer what an answer names: all owners, and the sources seen so far. @param {Attribution} found */
  offer({ owners, proponents, opponents }) {
    this.#details.hidden = false;
    this.#fill("owner", owners.flatMap(({ owner }) => owner ?? []));
    for (const { source } of [...proponents, ...opponents]) if (source) this.#sources.add(source);
    this.#fill("source", [...this.#sources]);
  }

  /** @param {string} name @param {string[]} values */
  #fill(name, values) {
    const select = this.#select(name);
    const chosen = select.value;
    const offered = [...new Set(chosen ? [...values, chosen] : values)].sort((a, b) => a.localeCompare(b));
    const [all] = select.options;
    select.replaceChildren(
      all,
      ...offered.map((value) => {
        const option = /** @type {HTMLOptionElement} */ (element("option", value));
        option.value = value;
        return option;
      }),
    );
    select.value = chosen;
  }

  /** @param {string} name */
  #select(name) {
    return /** @type {HTMLSelectElement} */ (this.#form.elements.namedItem(name));
  }
}
