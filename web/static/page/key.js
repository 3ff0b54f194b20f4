/** The API key: asked for when the server wants one, kept for this tab alone. */

import { one } from "../common/dom.js";

/** @typedef {import("../common/server.js").Problem} Problem */

const KEY = "whence-key";
export const UNAUTHENTICATED = 401;

/** The key of this tab. */
export function key() {
  return sessionStorage.getItem(KEY);
}

/** The form that asks for one. */
export class KeyForm {
  #form;
  /** @type {(() => void)[]} */
  #waiting = [];

  /**
   * @param {HTMLFormElement} form
   * @param {(key: string) => void} use
   */
  constructor(form, use) {
    this.#form = form;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const given = String(new FormData(form).get("key"));
      sessionStorage.setItem(KEY, given);
      form.hidden = true;
      form.reset();
      use(given);
      for (const retry of this.#waiting.splice(0)) retry();
    });
  }

  /** @param {Problem} problem @param {() => void} [retry] */
  ask(problem, retry) {
    if (retry) this.#waiting.push(retry);
    one(this.#form, ".detail").textContent = problem.message;
    this.#form.hidden = false;
    one(this.#form, "input").focus();
  }
}
